// Proves a password to a broker with MQTT.js and the cryptography of Node: node talk_scram.mjs FOLDER_OF_MQTT_JS TCP_PORT
import assert from 'node:assert/strict'
import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto'
import { createRequire } from 'node:module'

const [folder, port] = process.argv.slice(2)
const mqtt = createRequire(import.meta.url)(folder)
const PATIENCE = 20_000

const within = (promise, what) =>
  Promise.race([
    promise,
    new Promise((_, reject) => setTimeout(() => reject(new Error(`no ${what} in time`)), PATIENCE).unref()),
  ])

/// One exchange of RFC 5802, written from its text.
function exchange(hash, user, password) {
  const nonce = randomBytes(18).toString('base64')
  const bare = `n=${user},r=${nonce}`
  const hmac = (key, text) => createHmac(hash, key).update(text).digest()
  let signature
  return {
    first: Buffer.from(`n,,${bare}`),
    prove(asked) {
      const { r, s, i } = Object.fromEntries(`${asked}`.split(',').map((part) => [part[0], part.slice(2)]))
      assert(r.startsWith(nonce) && r.length > nonce.length)
      const bytes = createHash(hash).digest().length
      const salted = pbkdf2Sync(password, Buffer.from(s, 'base64'), Number(i), bytes, hash)
      const clientKey = hmac(salted, 'Client Key')
      const last = `c=biws,r=${r}`
      const proved = `${bare},${asked},${last}`
      const mask = hmac(createHash(hash).update(clientKey).digest(), proved)
      signature = hmac(hmac(salted, 'Server Key'), proved).toString('base64')
      return Buffer.from(`${last},p=${clientKey.map((byte, at) => byte ^ mask[at]).toString('base64')}`)
    },
    verify: (data) => assert.equal(`${data}`, `v=${signature}`),
  }
}

function connect(method, password) {
  const hash = method.slice('SCRAM-'.length).replace('-', '').toLowerCase()
  const properties = (authenticationData) => ({ authenticationMethod: method, authenticationData })
  let current = exchange(hash, 'user', password)
  const client = mqtt.connect(`mqtt://localhost:${port}`, {
    protocolVersion: 5,
    reconnectPeriod: 0,
    properties: properties(current.first),
  })
  client.handleAuth = (packet, answer) => {
    assert.equal(packet.properties.authenticationMethod, method)
    if (packet.reasonCode === 0x18) {
      const proof = current.prove(packet.properties.authenticationData)
      answer(null, { cmd: 'auth', reasonCode: 0x18, properties: properties(proof) })
    } else {
      client.emit('proved-again', packet) // the library has no other word for it
    }
  }
  client.again = (name, word) => {
    current = exchange(hash, name, word)
    client._sendPacket({ cmd: 'auth', reasonCode: 0x19, properties: properties(current.first) })
  }
  client.verify = (packet) => current.verify(packet.properties.authenticationData)
  return client
}

const event = (client, name) => within(new Promise((take) => client.once(name, take)), name)

for (const method of ['SCRAM-SHA-256', 'SCRAM-SHA-512']) {
  const client = connect(method, 'pencil')
  const connack = await event(client, 'connect')
  assert.equal(connack.properties.authenticationMethod, method)
  client.verify(connack)
  await client.subscribeAsync('a', { qos: 1 })
  // Again, with messages under way before, in between and after.
  const topics = []
  client.on('message', (_, payload) => topics.push(`${payload}`))
  const sent = ['1', '2', '3'].map((payload) => client.publishAsync('a', payload, { qos: 1 }))
  client.again('user', 'pencil')
  sent.push(client.publishAsync('a', '4', { qos: 1 }))
  client.verify(await event(client, 'proved-again'))
  sent.push(client.publishAsync('a', '5', { qos: 1 }))
  await within(Promise.all(sent), 'acknowledgement')
  while (topics.length < 5) await event(client, 'message')
  assert.deepEqual(topics, ['1', '2', '3', '4', '5'])
  // With a password that is wrong it goes, and does not come in.
  client.on('error', () => {})
  const told = event(client, 'disconnect')
  client.again('user', 'Pencil')
  assert.equal((await told).reasonCode, 0x87)
  const refused = await event(connect(method, 'Pencil'), 'error')
  assert.equal(refused.code, 0x86)
}
console.log('all good')
process.exit(0)
