// Asks for a URL through a proxy and refuses the certificate: `node refuse.js PROXY URL CA HOW`.
const [proxy, target, ca, how] = process.argv.slice(2);
const { hostname, port } = new URL(proxy);
const url = new URL(target);
const options = how === "unknown" ? {} : {
  ca: require("fs").readFileSync(ca),
  checkServerIdentity: () => new Error("another key is pinned"),
};

require("http").request({ hostname, port, method: "CONNECT", path: url.host, headers: { host: url.host } })
  .on("connect", (response, socket) => {
    require("https").get(url, { createConnection: () =>
      require("tls").connect({ ...options, socket, servername: url.hostname }) }, () => process.exit(1))
      .on("error", (error) => { console.log(error.message); process.exit(0); });
  }).end();
