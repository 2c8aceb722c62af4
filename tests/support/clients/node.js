// A client of the proxy on Node's own http, https and tls, or with a fifth argument on undici (npm) and its ProxyAgent.
//
// Arguments: the proxy's URL, the file of its CA, the URL of an HTTPS origin, that of an HTTP origin.
// It prints what it got as JSON.
"use strict";
const crypto = require("node:crypto");
const fs = require("node:fs");
const http = require("node:http");
const https = require("node:https");
const tls = require("node:tls");
const { once } = require("node:events");
const { Readable } = require("node:stream");

const [proxyText, caFile, origin, plainOrigin, engine] = process.argv.slice(2);
const proxy = new URL(proxyText);
const ca = fs.readFileSync(caFile);
const body = Buffer.from(Array.from({ length: 200000 }, (_, i) => i % 251));

const digest = (data) => crypto.createHash("sha256").update(data).digest("hex");

function pieces() {
  const list = [];
  for (let start = 0; start < body.length; start += 30000) list.push(body.subarray(start, start + 30000));
  return Readable.from(list);
}

async function collect(stream) {
  const list = [];
  for await (const piece of stream) list.push(piece);
  return Buffer.concat(list);
}

class Tunnelling extends https.Agent {
  createConnection(options, callback) {
    const target = `${options.host}:${options.port}`;
    const connect = http.request({ host: proxy.hostname, port: proxy.port, method: "CONNECT", path: target, agent: false });
    connect.once("connect", (answer, socket) => {
      if (answer.statusCode !== 200) return callback(new Error(`CONNECT was answered ${answer.statusCode}`));
      const secure = tls.connect({ socket, servername: options.host, ca });
      secure.once("secureConnect", () => callback(null, secure));
      secure.once("error", callback);
    });
    connect.once("error", callback);
    connect.end();
  }
}

async function withHttps() {
  const agent = new Tunnelling({ keepAlive: true, maxSockets: 8 });
  const got = {};

  async function ask(method, path, { headers = {}, content = null, on = {} } = {}) {
    const request = https.request(origin + path, { method, headers, agent });
    for (const [name, listener] of Object.entries(on)) request.on(name, (...facts) => listener(request, ...facts));
    if (content instanceof Readable) content.pipe(request);
    else if (!on.continue) request.end(content);
    const [response] = await once(request, "response");
    return { response, data: await collect(response) };
  }

  got.get = digest((await ask("GET", "/bytes/100000")).data);
  const chunked = await ask("GET", "/chunked/70000/9?trailers");
  got.chunked = digest(chunked.data);
  got.trailer = chunked.response.trailers["x-sha256"];
  const length = { "Content-Length": body.length };
  got.posted = JSON.parse((await ask("POST", "/echo", { content: body, headers: length })).data).body_sha256;
  got.streamed = JSON.parse((await ask("POST", "/echo", { content: pieces() })).data).body_sha256;
  const trailed = https.request(`${origin}/echo`, { method: "PUT", headers: { Trailer: "X-End" }, agent });
  trailed.write(body);
  trailed.addTrailers({ "X-End": "yes" });
  trailed.end();
  const [answer] = await once(trailed, "response");
  got.trailed = JSON.stringify(JSON.parse(await collect(answer)).trailers) === '[["X-End","yes"]]';
  got.head = Number((await ask("HEAD", "/bytes/5000")).response.headers["content-length"]);
  got.statuses = [];
  for (const status of [204, 304, 404, 500]) got.statuses.push((await ask("GET", `/status/${status}`)).response.statusCode);
  got.early = "";
  await ask("GET", "/interim", { on: { information: (_, facts) => { if (facts.statusCode === 103) got.early = facts.headers.link; } } });
  got.continued = false;
  const headers = { ...length, Expect: "100-continue" };
  const onContinue = (request) => { got.continued = true; request.end(body); };
  got.expected = JSON.parse((await ask("PUT", "/echo", { headers, on: { continue: onContinue } })).data).body_sha256;
  const counts = Array.from({ length: 40 }, (_, i) => i * 100);
  const answers = await Promise.all(counts.map((count) => ask("GET", `/bytes/${count}`)));
  got.parallel = answers.filter(({ data }, i) => data.length === counts[i]).length;
  const plain = http.get({ host: proxy.hostname, port: proxy.port, path: `${plainOrigin}/bytes/9`, headers: { Host: new URL(plainOrigin).host } });
  const [plainAnswer] = await once(plain, "response");
  got.plain = digest(await collect(plainAnswer));
  agent.destroy();
  return got;
}

async function withUndici() {
  const undici = require("undici");
  const dispatcher = new undici.ProxyAgent({ uri: proxyText, requestTls: { ca }, pipelining: 1 });
  const got = {};
  const ask = (method, path, options = {}) => undici.request(origin + path, { method, dispatcher, ...options });
  const bytes = async (answer) => Buffer.from(await (await answer).body.arrayBuffer());

  got.get = digest(await bytes(ask("GET", "/bytes/100000")));
  const chunked = await ask("GET", "/chunked/70000/9?trailers");
  got.chunked = digest(await bytes(chunked));
  got.trailer = chunked.trailers["x-sha256"];
  got.posted = JSON.parse(await bytes(ask("POST", "/echo", { body }))).body_sha256;
  got.streamed = JSON.parse(await bytes(ask("POST", "/echo", { body: pieces() }))).body_sha256;
  const head = await ask("HEAD", "/bytes/5000");
  await head.body.dump();
  got.head = Number(head.headers["content-length"]);
  got.statuses = [];
  for (const status of [204, 304, 404, 500]) {
    const answer = await ask("GET", `/status/${status}`);
    await answer.body.dump();
    got.statuses.push(answer.statusCode);
  }
  got.early = "";
  const onInfo = (facts) => { if (facts.statusCode === 103) got.early = facts.headers.link; };
  // not /interim, whose 100 it takes for an error where it has not sent Expect
  await (await ask("GET", "/hints", { onInfo })).body.dump();
  const counts = Array.from({ length: 40 }, (_, i) => i * 100);
  const answers = await Promise.all(counts.map((count) => bytes(ask("GET", `/bytes/${count}`))));
  got.parallel = answers.filter((data, i) => data.length === counts[i]).length;
  const fetched = await undici.fetch(`${origin}/bytes/77`, { dispatcher });
  got.fetched = digest(Buffer.from(await fetched.arrayBuffer()));
  got.plain = digest(await bytes(undici.request(`${plainOrigin}/bytes/9`, { dispatcher })));
  await dispatcher.close();
  return got;
}

(engine === "undici" ? withUndici() : withHttps()).then((got) => console.log(JSON.stringify(got)), (error) => {
  console.error(error);
  process.exitCode = 1;
});
