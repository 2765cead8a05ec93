"""Talks to a broker with paho-mqtt: python talk_paho.py PORT WEBSOCKET_PORT TLS_PORT CA_FILE"""

import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PATIENCE = 20
PLAIN, WEBSOCKET, TLS = (int(port) for port in sys.argv[1:4])
CA_FILE = sys.argv[4]
VERSIONS = {"3.1": mqtt.MQTTv31, "3.1.1": mqtt.MQTTv311, "5.0": mqtt.MQTTv5}


class Client:
    """A client whose events are waited for."""

    def __init__(self, client_id, version, transport="plain", lasting=False, will=None):
        kind = "websockets" if transport == "websocket" else "tcp"
        options = {} if version == mqtt.MQTTv5 else {"clean_session": not lasting}
        self.version = version
        self.messages = queue.Queue()
        self.events = queue.Queue()
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=version, transport=kind, **options
        )
        if transport == "tls":
            self.client.tls_set(CA_FILE)
        if will:
            self.client.will_set(will, "gone", qos=1)
        self.client.on_connect = lambda c, u, flags, code, p: self.events.put(("connect", flags.session_present, code))
        self.client.on_subscribe = lambda c, u, mid, codes, p: self.events.put(("subscribe", codes))
        self.client.on_message = lambda c, u, message: self.messages.put(message)
        port = {"plain": PLAIN, "websocket": WEBSOCKET, "tls": TLS}[transport]
        if version == mqtt.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            if lasting:
                properties.SessionExpiryInterval = 1000
            self.client.connect("localhost", port, clean_start=not lasting, properties=properties)
        else:
            self.client.connect("localhost", port)
        self.client.loop_start()
        event, self.session_present, code = self.events.get(timeout=PATIENCE)
        assert event == "connect" and not code.is_failure, code

    def subscribe(self, *filters, **options):
        self.client.subscribe(*filters, **options)
        event, codes = self.events.get(timeout=PATIENCE)
        assert event == "subscribe" and not any(code.is_failure for code in codes), codes

    def publish(self, *message, **options):
        self.client.publish(*message, **options).wait_for_publish(PATIENCE)

    def expect(self, topic, payload):
        message = self.messages.get(timeout=PATIENCE)
        assert (message.topic, message.payload) == (topic, payload), (message.topic, message.payload[:40])
        return message

    def leave(self):
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self):
        """The connection is gone without a DISCONNECT."""
        self.client.loop_stop()
        self.client.socket().close()


def exchange(name, version, transport):
    """Messages of every QoS, small and large, retained, and a will."""
    client = Client("exchange", version, transport)
    client.subscribe([("a/#", 2), ("will", 1)])
    for qos in range(3):
        for size in (0, 10, 200_000):
            client.publish(f"a/{qos}", b"x" * size, qos=qos)
            assert client.expect(f"a/{qos}", b"x" * size).qos == qos
    client.publish("a/kept", b"kept", qos=1, retain=True)
    assert not client.expect("a/kept", b"kept").retain
    late = Client("late", version, transport)
    late.subscribe("a/+", qos=1)
    assert late.expect("a/kept", b"kept").retain
    late.leave()
    client.publish("a/kept", b"", qos=1, retain=True)
    client.expect("a/kept", b"")
    Client("mortal", version, transport, will="will").vanish()
    client.expect("will", b"gone")
    client.leave()
    print(f"exchange {name} over {transport}")


def lasting_session(name, version):
    """What comes while a client is away waits for it."""
    client = Client("lasting", version, lasting=True)
    client.subscribe("queue", qos=2)
    client.leave()
    publisher = Client("publisher", version)
    for number in range(30):
        publisher.publish("queue", str(number), qos=1)
    client = Client("lasting", version, lasting=True)
    assert client.session_present or version == mqtt.MQTTv31
    for number in range(30):
        client.expect("queue", str(number).encode())
    client.leave()
    publisher.leave()
    Client("lasting", version).leave()
    print(f"lasting session {name}")


def properties():
    """MQTT 5: properties, no local, retain as published, subscription identifiers, topic aliases."""
    client = Client("properties", mqtt.MQTTv5)
    identifier = Properties(PacketTypes.SUBSCRIBE)
    identifier.SubscriptionIdentifier = 77
    client.subscribe("p/+", options=SubscribeOptions(qos=1, retainAsPublished=True), properties=identifier)
    client.subscribe("own", options=SubscribeOptions(qos=1, noLocal=True))
    sent = Properties(PacketTypes.PUBLISH)
    sent.UserProperty = [("b", "1"), ("a", "2")]
    sent.ContentType = "text/plain"
    sent.ResponseTopic = "answers"
    sent.CorrelationData = b"\x00\xff"
    sent.MessageExpiryInterval = 100
    client.publish("own", "not heard", qos=1)
    client.publish("p/1", "x", qos=1, retain=True, properties=sent)
    message = client.expect("p/1", b"x")
    got = message.properties
    assert message.retain and got.SubscriptionIdentifier == [77]
    assert got.UserProperty == [("b", "1"), ("a", "2")] and got.ContentType == "text/plain"
    assert got.ResponseTopic == "answers" and got.CorrelationData == b"\x00\xff"
    assert got.MessageExpiryInterval in (99, 100)
    client.publish("p/1", b"", qos=1, retain=True)
    client.expect("p/1", b"")
    for topic, payload in (("p/aliased", "named"), ("", "by alias")):
        alias = Properties(PacketTypes.PUBLISH)
        alias.TopicAlias = 3
        client.publish(topic, payload, qos=1, properties=alias)
        client.expect("p/aliased", payload.encode())
    client.leave()
    print("properties")


def many():
    """A thousand messages handed over at once."""
    client = Client("many", mqtt.MQTTv311)
    client.subscribe("many", qos=2)
    sent = [client.client.publish("many", str(number), qos=number % 3) for number in range(1000)]
    for message in sent:
        message.wait_for_publish(PATIENCE)
    seen = sorted(int(client.messages.get(timeout=PATIENCE).payload) for _ in range(1000))
    assert seen == list(range(1000))
    client.leave()
    print("many")


for version_name, version_number in VERSIONS.items():
    for way in ("plain", "tls", "websocket"):
        exchange(version_name, version_number, way)
    lasting_session(version_name, version_number)
properties()
many()
print("all good")
