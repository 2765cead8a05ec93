"""The brokers: where they are, and how each is started. Tuned as far as they go: no persistence where that is possible, no limits on
queues and windows, TCP_NODELAY on; Sundew as it is shipped."""

import contextlib
import dataclasses
import os
import re
import shutil
import socket
import subprocess
import time


class NotStarted(Exception):
    """With what the broker said."""


@dataclasses.dataclass
class Broker:
    """A broker and its settings. In words and files {port}, {folder} and {certificates} are replaced."""

    name: str
    command: list
    files: dict = dataclasses.field(default_factory=dict)
    environment: dict = dataclasses.field(default_factory=dict)
    # For each transport: what is different. The URL's path stands there, too.
    transports: dict = dataclasses.field(default_factory=lambda: {"tcp": {}})
    version_words: tuple = ("--version",)
    variant_of: str = ""
    program: str = ""
    version: str = ""
    missing: str = ""


MOSQUITTO = """\
listener {port} 127.0.0.1
%s
allow_anonymous true
persistence false
max_inflight_messages 0
max_queued_messages 0
set_tcp_nodelay true
log_type error
"""

MOSQUITTO_TLS = "certfile {certificates}/server.pem\nkeyfile {certificates}/server.key"

RUMQTTD = """\
id = 0
[router]
id = 0
max_connections = 20000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v4.1]
name = "v4-1"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 0
[v4.1.connections]
connection_timeout_ms = 60000
max_payload_size = 262144
max_inflight_count = 10000
dynamic_filters = true
"""

RMQTTD = """\
node.id = 1
node.busy.check_enable = false
rpc.server_addr = "127.0.0.1:{second}"
log.to = "console"
log.level = "error"
plugins.dir = "{folder}/plugins/"
plugins.default_startups = ["rmqtt-retainer", "rmqtt-shared-subscription"]
plugins.disabled_default_startups = ["rmqtt-acl", "rmqtt-http-api", "rmqtt-counter"]
listener.tcp.external.addr = "127.0.0.1:{port}"
listener.tcp.external.allow_anonymous = true
listener.tcp.external.nodelay = true
listener.tcp.external.max_handshaking_limit = 20000
listener.tcp.external.backlog = 4096
listener.tcp.external.max_inflight = 60000
listener.tcp.external.max_mqueue_len = 1000000
listener.tcp.external.mqueue_rate_limit = "4294967295,1s"
listener.tcp.external.max_awaiting_rel = 0
"""

NATS = """\
server_name: n1
listen: "127.0.0.1:-1"
jetstream { store_dir: "{folder}/js" }
max_pending: 1GB
%s
"""

# Without storage the figures are the same but for the memory of idle connections; with it, it is as shipped.
SUNDEW = {"SUNDEW__STORAGE__DIRECTORY": "{folder}/data"}


def all_of(sundew):
    """Every broker, and every way to start Sundew."""
    serve = [sundew, "--listen", "127.0.0.1:{port}"]
    tls = {"command": [sundew, "-c", "{folder}/sundew.toml"], "files": {"sundew.toml": SUNDEW_TLS}}
    both = {"command": tls["command"], "files": {"sundew.toml": '[[listeners]]\naddress = "127.0.0.1:{port}"\n' + SUNDEW_TLS.replace("{port}", "{second}")}}
    websocket = {"command": [sundew, "--listen", "ws://127.0.0.1:{port}"]}

    def variant(name, words=(), **environment):
        return Broker(name, [*serve, *words], environment={**SUNDEW, **environment}, variant_of="sundew")

    return [
        Broker("ceiling", [sundew, "bench", "--ceiling", "{port}"], variant_of="sundew"),
        Broker("sundew", serve, environment=SUNDEW, transports={"tcp": {}, "tls": tls, "both": both, "ws": websocket}),
        variant("no-store", SUNDEW__STORAGE__ENABLED="false"),
        variant("interval"),
        variant("always", SUNDEW__STORAGE__SYNC="always"),
        variant("one-worker", ["--workers", "1"]),
        variant("two-workers", ["--workers", "2"], SUNDEW__WORKERS__PLACEMENT="round_robin"),
        Broker(
            "mosquitto",
            ["mosquitto", "-c", "{folder}/m.conf"],
            files={"m.conf": MOSQUITTO % ""},
            transports={
                "tcp": {},
                "tls": {"files": {"m.conf": MOSQUITTO % MOSQUITTO_TLS}},
                "both": {"files": {"m.conf": MOSQUITTO % ("listener {second} 127.0.0.1\n" + MOSQUITTO_TLS)}},
                # Without another listener 2.0.11 ends: it counts those for WebSocket as none.
                "ws": {"files": {"m.conf": MOSQUITTO % "protocol websockets" + "listener {second} 127.0.0.1\n"}},
            },
            version_words=("-h",),
        ),
        Broker("rumqttd", ["rumqttd", "-q", "-c", "{folder}/r.toml"], files={"r.toml": RUMQTTD}),
        Broker(
            "rmqttd",
            ["rmqttd", "-f", "{folder}/rmqtt.toml"],
            files={"rmqtt.toml": RMQTTD, "plugins/rmqtt-retainer.toml": 'storage.type = "ram"\n', "plugins/rmqtt-shared-subscription.toml": ""},
            version_words=("-V",),
        ),
        Broker(
            "nats",
            ["nats-server", "-c", "{folder}/n.conf"],
            files={"n.conf": NATS % "mqtt { host: 127.0.0.1, port: {port}, max_ack_pending: 20000 }"},
            transports={
                "tcp": {},
                "tls": {"files": {"n.conf": NATS % NATS_TLS}},
                "ws": {"files": {"n.conf": NATS % NATS_WEBSOCKET}, "path": "/mqtt"},
            },
        ),
    ]


SUNDEW_TLS = """\
[[listeners]]
address = "127.0.0.1:{port}"
[listeners.tls]
certificate = "{certificates}/server.pem"
key = "{certificates}/server.key"
"""
NATS_TLS = """\
mqtt { host: 127.0.0.1, port: {port}, max_ack_pending: 20000
  tls { cert_file: "{certificates}/server.pem", key_file: "{certificates}/server.key" } }
"""
NATS_WEBSOCKET = """\
mqtt { host: 127.0.0.1, port: {second}, max_ack_pending: 20000 }
websocket { host: 127.0.0.1, port: {port}, no_tls: true }
"""


def find(sundew, folder):
    """All brokers by name; one without a program is not installed."""
    path = os.pathsep.join([str(folder / "bin"), str(folder / "v/bin"), os.environ["PATH"], "/usr/sbin"])
    found = {}
    for broker in all_of(str(sundew)):
        broker.program = shutil.which(broker.command[0], path=path) or ""
        if broker.program:
            broker.version = version(broker)
        else:
            broker.missing = f"no {broker.command[0]} in {folder} or PATH; tests/bench/run --install"
        found[broker.name] = broker
    return found


def version(broker):
    said = subprocess.run([broker.program, *broker.version_words], capture_output=True, text=True, timeout=20)
    number = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
    return number.group() if number else "?"


def certificates(sundew, scratch):
    """Certificates for 127.0.0.1, for every broker the same."""
    folder = scratch / "certificates"
    subprocess.run([sundew, "certs", "--name", "127.0.0.1", str(folder)], check=True, capture_output=True)
    for file in [folder, *folder.iterdir()]:
        file.chmod(0o755)  # mosquitto reads them as its own user
    return folder


@contextlib.contextmanager
def started(broker, transport, folder, certificates):
    """The broker's process and its URLs by transport; it is ended at the end."""
    difference = broker.transports.get(transport)
    if difference is None:
        raise NotStarted(f"{broker.name} is not measured over {transport}")
    port, second = free_ports(2)

    def replaced(text):
        for word, value in {"port": port, "second": second, "folder": folder, "certificates": certificates}.items():
            text = text.replace("{%s}" % word, str(value))
        return text

    for name, text in difference.get("files", broker.files).items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(replaced(text))
    program, *words = difference.get("command", broker.command)
    environment = {**os.environ, **{key: replaced(value) for key, value in broker.environment.items()}}
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [broker.program, *map(replaced, words)], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        wait_for(process, port, folder)
        scheme = {"tcp": "mqtt", "both": "mqtt", "tls": "mqtts", "ws": "ws"}[transport]
        url = f"{scheme}://127.0.0.1:{port}{difference.get('path', '')}"
        yield process, {"tcp": url, "tls": f"mqtts://127.0.0.1:{second}"} if transport == "both" else {transport: url}
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(process, port, folder):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            time.sleep(0.3)  # what a start still has to do is no part of the figures
            return
        time.sleep(0.05)
    raise NotStarted(f"did not start: {last_words(folder)}")


def last_words(folder):
    with contextlib.suppress(OSError):
        return (folder / "log").read_text(errors="replace").strip()[-300:]
    return ""
