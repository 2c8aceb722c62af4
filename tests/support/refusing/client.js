// node client.js PROXY-PORT TARGET CA-FILE [pin]: GET through a CONNECT, verified by CA-FILE; with `pin`, by a pin that never fits
const [port, target, caFile, pin] = process.argv.slice(2);
const options = { ca: require('fs').readFileSync(caFile), servername: target.split(':')[0] };
if (pin) options.checkServerIdentity = () => new Error('the pin does not fit');
const connect = require('http').request({ host: '127.0.0.1', port, method: 'CONNECT', path: target });
connect.on('connect', (answer, socket) => {
  const secured = require('tls').connect({ socket, ...options }, () => {
    secured.write(`GET /close/5 HTTP/1.1\r\nHost: ${target}\r\n\r\n`);
  });
  secured.pipe(process.stdout);
  secured.on('error', (error) => { console.error(String(error)); process.exitCode = 1; });
});
connect.end();
