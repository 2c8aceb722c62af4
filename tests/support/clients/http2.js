// A client of the proxy on Node's own http2.
//
// Arguments: the proxy's URL, the file of its CA, the URL of an HTTPS origin. It prints what it got as JSON.
"use strict";
const crypto = require("node:crypto");
const fs = require("node:fs");
const http = require("node:http");
const http2 = require("node:http2");
const tls = require("node:tls");
const { once } = require("node:events");

const [proxyText, caFile, origin] = process.argv.slice(2);
const proxy = new URL(proxyText);
const target = new URL(origin);
const body = Buffer.from(Array.from({ length: 200000 }, (_, i) => i % 251));
const digest = (data) => crypto.createHash("sha256").update(data).digest("hex");

async function tunnel() {
  const path = `${target.hostname}:${target.port}`;
  const connect = http.request({ host: proxy.hostname, port: proxy.port, method: "CONNECT", path, agent: false });
  connect.end();
  const [, socket] = await once(connect, "connect");
  const secure = tls.connect({ socket, servername: target.hostname, ca: fs.readFileSync(caFile), ALPNProtocols: ["h2"] });
  await once(secure, "secureConnect");
  return secure;
}

async function main() {
  const socket = await tunnel();
  const session = http2.connect(origin, { createConnection: () => socket });

  async function ask(method, path, content = null, fields = {}) {
    const stream = session.request({ ":method": method, ":path": path, ...fields });
    const got = { interim: [], trailers: {} };
    stream.on("headers", (headers) => got.interim.push(headers));
    stream.on("trailers", (trailers) => { got.trailers = trailers; });
    const head = once(stream, "response");
    stream.end(content);
    [got.headers] = await head;
    const pieces = [];
    for await (const piece of stream) pieces.push(piece);
    got.data = Buffer.concat(pieces);
    return got;
  }

  const got = { alpn: socket.alpnProtocol };
  got.get = digest((await ask("GET", "/bytes/100000")).data);
  const chunked = await ask("GET", "/chunked/70000/9?trailers");
  got.chunked = digest(chunked.data);
  got.trailer = chunked.trailers["x-sha256"];
  got.posted = JSON.parse((await ask("POST", "/x", body)).data).body_sha256;
  got.head = Number((await ask("HEAD", "/bytes/5000")).headers["content-length"]);
  got.statuses = [];
  for (const status of [204, 304, 404, 500]) got.statuses.push((await ask("GET", `/status/${status}`)).headers[":status"]);
  got.early = (await ask("GET", "/interim")).interim.map((headers) => headers.link).filter(Boolean)[0];
  const all = await Promise.all(Array.from({ length: 40 }, (_, i) => ask("GET", `/bytes/${i * 100}`)));
  got.parallel = all.filter(({ data }, i) => data.length === i * 100).length;
  // one that is given up takes nothing with it
  const given = session.request({ ":path": "/sse/1000/20" });
  await once(given, "response");
  given.close(http2.constants.NGHTTP2_CANCEL);
  got.after = digest((await ask("GET", "/bytes/9")).data);
  await new Promise((resolve) => session.close(resolve));
  console.log(JSON.stringify(got));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
