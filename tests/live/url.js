// Connects with a string just as `dbssl url --driver node` prints it, and says `t` if the connection is encrypted.
//
// url.js ENGINE STRING

const engines = {
  async postgres(url) {
    const client = new (require('pg').Client)({ connectionString: url })
    await client.connect()
    const { rows } = await client.query('select ssl from pg_stat_ssl where pid = pg_backend_pid()')
    return rows[0].ssl
  },

  // The port that was connected to, as the server has it: this one takes TLS only.
  async redis(url) {
    // It would try for ever, and says why only to who listens.
    const client = require('redis').createClient({ url, socket: { reconnectStrategy: false } })
    const failed = new Promise((_, reject) => client.on('error', reject))
    const asked = client.connect().then(() => client.sendCommand(['CLIENT', 'INFO']))
    return / laddr=\S+:6380 /.test(await Promise.race([asked, failed]))
  },

  // The server does not tell; but this one refuses plaintext.
  async mongodb(url) {
    const { MongoClient } = require('mongodb')
    const client = await MongoClient.connect(url, { useUnifiedTopology: true, serverSelectionTimeoutMS: 10000 })
    return (await client.db('admin').command({ ping: 1 })).ok === 1
  },
}

const [engine, url] = process.argv.slice(2)
engines[engine](url).then(
  (encrypted) => {
    console.log(encrypted ? 't' : 'f')
    process.exit(0)
  },
  (error) => {
    console.error(String(error))
    process.exit(1)
  },
)
