// A handshake over loopback, by Node's tls: node verify.js ROOTS CHAIN KEY NAME
const fs = require('fs');
const tls = require('tls');

const [roots, chain, key, servername] = process.argv.slice(2);
const server = tls.createServer({ cert: fs.readFileSync(chain), key: fs.readFileSync(key) });
server.on('tlsClientError', () => {});
server.listen(0, '127.0.0.1', () => {
  const ca = fs.readFileSync(roots);
  const client = tls.connect({ host: '127.0.0.1', port: server.address().port, ca, servername }, () => process.exit(0));
  client.on('error', (error) => {
    console.error(error.message);
    process.exit(1);
  });
});
