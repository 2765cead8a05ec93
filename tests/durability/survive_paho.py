"""A publisher and a subscriber of paho-mqtt that outlive their broker: python survive_paho.py PORT COUNT

Prints `subscribed`, `got NUMBER` for each message and `all acknowledged` at the end of publishing; leaves when it reads a line."""

import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PORT, COUNT = int(sys.argv[1]), int(sys.argv[2])
lock = threading.Lock()


def say(text):
    with lock:
        print(text, flush=True)


def client(client_id, version):
    options = {} if version == mqtt.MQTTv5 else {"clean_session": False}
    made = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=version, **options)
    made.reconnect_delay_set(1, 1)
    made.max_inflight_messages_set(20)
    return made


def connect(made):
    if made.protocol == mqtt.MQTTv5:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 1000
        made.connect("127.0.0.1", PORT, clean_start=False, properties=properties)
    else:
        made.connect("127.0.0.1", PORT)
    made.loop_start()


subscriber = client("paho-subscriber", mqtt.MQTTv311)
is_subscribed = threading.Event()
subscriber.on_connect = lambda c, u, flags, code, p: c.subscribe("real/#", 2) if not is_subscribed.is_set() else None
subscriber.on_subscribe = lambda c, u, mid, codes, p: (is_subscribed.set(), say("subscribed"))
subscriber.on_message = lambda c, u, message: say(f"got {message.payload.decode()}")
connect(subscriber)
is_subscribed.wait()

publisher = client("paho-publisher", mqtt.MQTTv5)
acknowledged = set()
changed = threading.Condition()


def on_publish(c, u, mid, code, p):
    with changed:
        acknowledged.add(mid)
        changed.notify()


publisher.on_publish = on_publish
connect(publisher)
sys.stdin.readline()
pause = threading.Event()
sent = set()
for number in range(COUNT):
    qos = 1 + number % 2
    # Without a connection it says so, and keeps the message for the next one.
    sent.add(publisher.publish("real/paho", f"paho-{qos}-{number}", qos=qos).mid)
    pause.wait(0.004)
with changed:
    assert changed.wait_for(lambda: sent <= acknowledged, 60), len(sent - acknowledged)
say("all acknowledged")
sys.stdin.readline()
