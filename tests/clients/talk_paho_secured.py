"""Comes in with paho-mqtt by each way there is: python talk_paho_secured.py PORTS CERTS TOKEN EXPIRED

PORTS: NAME=PORT,…; CERTS: the folder that `sundew certs` made; two tokens of alice.
"""

import queue
import sys

import paho.mqtt.client as mqtt

PATIENCE = 20
PORTS = {name: int(port) for name, port in (pair.split("=") for pair in sys.argv[1].split(","))}
CERTS, TOKEN, EXPIRED = sys.argv[2:5]
CA_FILE, CERTIFICATE, KEY = (f"{CERTS}/{name}" for name in ("ca.pem", "client.pem", "client.key"))
VERSIONS = {"3.1.1": mqtt.MQTTv311, "5.0": mqtt.MQTTv5}
# Reason codes of MQTT 5 that paho gives for the codes of MQTT 3.1.1, too.
NOT_AUTHORIZED, BAD_USER_NAME_OR_PASSWORD = 0x87, 0x86


class Client:
    def __init__(self, listener, version, user=None, password=None, certified=False, ca_file=CA_FILE):
        self.events, self.messages = queue.Queue(), queue.Queue()
        transport = "websockets" if listener == "wss" else "tcp"
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=version, transport=transport)
        self.client.tls_set(ca_file, *((CERTIFICATE, KEY) if certified else ()))
        if user:
            self.client.username_pw_set(user, password)
        self.client.on_connect = lambda c, u, flags, code, p: self.events.put(code)
        self.client.on_subscribe = lambda c, u, mid, codes, p: self.events.put(codes[0])
        self.client.on_message = lambda c, u, message: self.messages.put(message)
        self.client.connect("localhost", PORTS[listener])
        self.client.loop_start()
        self.code = self.events.get(timeout=PATIENCE)

    def subscribe(self, topic_filter):
        self.client.subscribe(topic_filter, 1)
        return self.events.get(timeout=PATIENCE)

    def says(self, topic, payload):
        self.client.publish(topic, payload, qos=1).wait_for_publish(PATIENCE)

    def hears(self, topic, payload):
        message = self.messages.get(timeout=PATIENCE)
        assert (message.topic, message.payload) == (topic, payload), (message.topic, message.payload)

    def leave(self):
        self.client.disconnect()
        self.client.loop_stop()


def comes_in(what, own, other, listener, version, **options):
    """Its own topics are its own, and no others."""
    client = Client(listener, version, **options)
    assert not client.code.is_failure, (what, client.code)
    assert not client.subscribe(f"{own}/#").is_failure and client.subscribe(f"{other}/#").is_failure, what
    client.says(f"{other}/a", "not heard")
    client.says(f"{own}/a", "heard")
    client.hears(f"{own}/a", b"heard")
    client.leave()


def is_refused(what, expected, listener, version, **options):
    client = Client(listener, version, **options)
    client.client.loop_stop()
    assert client.code.is_failure and client.code.value in expected, (what, client.code)


for name, version in VERSIONS.items():
    wrong = {BAD_USER_NAME_OR_PASSWORD, NOT_AUTHORIZED} if version == mqtt.MQTTv5 else {NOT_AUTHORIZED}
    for way in ("passwords", "wss"):
        comes_in("a password", "alice", "bob", way, version, user="alice", password="secret")
        is_refused("a wrong password", wrong, way, version, user="alice", password="guess")
        is_refused("no such user", wrong, way, version, user="nobody", password="secret")
        is_refused("nobody at all", {NOT_AUTHORIZED}, way, version)
    comes_in("a token", "alice", "bob", "tokens", version, user="alice", password=TOKEN)
    is_refused("a token that has ended", wrong, "tokens", version, user="alice", password=EXPIRED)
    is_refused("a changed token", wrong, "tokens", version, user="alice", password=TOKEN[:-4] + "AAAA")
    comes_in("a certificate", "client", "alice", "certificates", version, certified=True)
    try:
        Client("passwords", version, user="alice", password="secret", ca_file=CERTIFICATE)
        raise AssertionError("another authority")
    except OSError:
        pass
    print(f"secured {name}")
print("all good")
