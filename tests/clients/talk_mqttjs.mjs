// Talks to a broker with MQTT.js: node talk_mqttjs.mjs FOLDER_OF_MQTT_JS WEBSOCKET_PORT TCP_PORT
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'

const [folder, websocketPort, tcpPort] = process.argv.slice(2)
const mqtt = createRequire(import.meta.url)(folder)

const VERSIONS = [
  { name: '3.1', protocolId: 'MQIsdp', protocolVersion: 3 },
  { name: '3.1.1', protocolId: 'MQTT', protocolVersion: 4 },
  { name: '5.0', protocolId: 'MQTT', protocolVersion: 5 },
]
const WAYS = [`ws://localhost:${websocketPort}/mqtt`, `ws://localhost:${websocketPort}/`, `mqtt://localhost:${tcpPort}`]
const PATIENCE = 20_000

const within = (promise, what) =>
  Promise.race([
    promise,
    new Promise((_, reject) => setTimeout(() => reject(new Error(`no ${what} in time`)), PATIENCE).unref()),
  ])

async function connect(url, version, options = {}) {
  const { protocolId, protocolVersion } = version
  const client = await within(
    mqtt.connectAsync(url, { protocolId, protocolVersion, reconnectPeriod: 0, ...options }, false),
    `connection to ${url}`,
  )
  client.arrived = []
  client.waiting = []
  client.on('message', (topic, payload, packet) => {
    const take = client.waiting.shift()
    if (take) take({ topic, payload, packet })
    else client.arrived.push({ topic, payload, packet })
  })
  return client
}

const next = (client) =>
  client.arrived.length
    ? Promise.resolve(client.arrived.shift())
    : within(new Promise((take) => client.waiting.push(take)), 'message')

async function expect(client, topic, payload) {
  const message = await next(client)
  assert.equal(message.topic, topic)
  assert.deepEqual(message.payload, Buffer.from(payload))
  return message.packet
}

async function exchange(url, version) {
  const client = await connect(url, version, { clientId: 'exchange' })
  await client.subscribeAsync({ 'a/#': { qos: 2 }, will: { qos: 1 } })
  for (const qos of [0, 1, 2]) {
    for (const size of [0, 10, 300_000]) {
      await client.publishAsync(`a/${qos}`, Buffer.alloc(size, 'x'), { qos })
      const packet = await expect(client, `a/${qos}`, Buffer.alloc(size, 'x'))
      assert.equal(packet.qos, qos)
    }
  }
  await client.publishAsync('a/kept', 'kept', { qos: 1, retain: true })
  await expect(client, 'a/kept', 'kept')
  const late = await connect(url, version, { clientId: 'late' })
  await late.subscribeAsync('a/+')
  assert.equal((await expect(late, 'a/kept', 'kept')).retain, true)
  await late.endAsync()
  await client.publishAsync('a/kept', '', { qos: 1, retain: true })
  await expect(client, 'a/kept', '')
  const mortal = await connect(url, version, { clientId: 'mortal', will: { topic: 'will', payload: 'gone', qos: 1 } })
  mortal.stream.destroy()
  await expect(client, 'will', 'gone')
  await client.unsubscribeAsync('a/#')
  await client.endAsync()
  console.log(`exchange ${version.name} over ${url.split(':')[0]}`)
}

async function lastingSession(url, version) {
  const lasting = { clientId: 'lasting', clean: false, properties: { sessionExpiryInterval: 1000 } }
  if (version.protocolVersion !== 5) delete lasting.properties
  const first = await connect(url, version, lasting)
  await first.subscribeAsync('queue', { qos: 2 })
  await first.endAsync()
  const publisher = await connect(url, version)
  for (let number = 0; number < 20; number++) {
    await publisher.publishAsync('queue', String(number), { qos: 1 })
  }
  const { protocolId, protocolVersion } = version
  // Messages come with the CONNACK: the listener must be there before.
  const again = mqtt.connect(url, { protocolId, protocolVersion, reconnectPeriod: 0, ...lasting })
  const seen = []
  await within(
    new Promise((done) => again.on('message', (_, payload) => seen.push(String(payload)) === 20 && done())),
    'twenty messages',
  )
  assert.deepEqual(seen, Array.from({ length: 20 }, (_, number) => String(number)))
  await again.endAsync()
  await (await connect(url, version, { clientId: 'lasting', clean: true })).endAsync()
  await publisher.endAsync()
  console.log(`lasting session ${version.name}`)
}

async function properties(url) {
  const client = await connect(url, VERSIONS[2], { clientId: 'properties', properties: { topicAliasMaximum: 5 } })
  await client.subscribeAsync('p/#', { qos: 1, properties: { subscriptionIdentifier: 7 } })
  const sent = {
    userProperties: { a: ['1', '2'] },
    contentType: 'text/plain',
    responseTopic: 'answers',
    correlationData: Buffer.from([0, 255]),
    payloadFormatIndicator: true,
  }
  for (let round = 0; round < 3; round++) {
    await client.publishAsync('p/x', 'x', { qos: 1, properties: sent })
    const { properties: got } = await expect(client, 'p/x', 'x')
    assert.deepEqual(got.userProperties.a, ['1', '2'])
    assert.equal(got.contentType, 'text/plain')
    assert.equal(got.responseTopic, 'answers')
    assert.deepEqual(got.correlationData, Buffer.from([0, 255]))
    assert.equal(got.subscriptionIdentifier, 7)
  }
  await client.endAsync()
  console.log('properties')
}

for (const version of VERSIONS) {
  for (const url of WAYS) await exchange(url, version)
  await lastingSession(WAYS[0], version)
}
await properties(WAYS[0])
console.log('all good')
process.exit(0)
