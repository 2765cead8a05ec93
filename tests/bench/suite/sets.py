"""What is measured: sets of rows. A row is a scenario file of this folder (or a scenario's name) and flags for `sundew bench`."""

import dataclasses
import os
import resource
import time

PEERS = ["ceiling", "sundew", "mosquitto", "rumqttd", "rmqttd", "nats"]
# What they do not do. The ceiling keeps nothing and knows no `+`. rumqttd: 100,000 filters do not end, of retained messages 200 come.
# NATS: no MQTT 5, no shared groups; 100,000 subscriptions take a minute.
NOT_THE_CEILINGS = ("wildcard", "filters", "retained")
NOT_OF = {
    "rumqttd": ("wildcard", "filters", "retained", "pairs-v5"),
    "nats": ("wildcard", "filters", "shared", "pairs-v5"),
    "ceiling": NOT_THE_CEILINGS,
}


@dataclasses.dataclass
class Row:
    name: str
    scenario: str
    flags: list = dataclasses.field(default_factory=list)
    # Which figures it is about: "traffic", "latency", "quiet", "durable", "connect", "idle", "retained" or "wildcard".
    kind: str = "traffic"
    transport: str = "tcp"
    # Where it stands in a plot.
    x: float = None
    # What `sundew bench` does to the same broker meanwhile, over TLS or not, and seconds until that is under way.
    beside: list = None
    beside_over: str = "tcp"
    beside_wait: float = 1
    # What is measured of the machine beside it, given a folder.
    probe: object = None
    seconds_max: int = 180

    @property
    def skip(self):
        return {broker for broker, prefixes in NOT_OF.items() if self.name.startswith(prefixes)}


@dataclasses.dataclass
class Set:
    about: str
    brokers: list
    rows_of: object

    def rows(self, only=None):
        rows = self.rows_of()
        return [row for row in rows if not only or row.name.startswith(tuple(only))]


def file(scenario, **more):
    kinds = {"latency": "latency", "connect": "connect", "idle": "idle", "retained": "retained", "wildcard": "wildcard", "always": "durable"}
    kind = next((kind for prefix, kind in kinds.items() if scenario.startswith(prefix)), "traffic")
    return Row(more.pop("name", scenario), scenario, kind=kind, **more)


def peers():
    return [file(name) for name in (
        "pairs-q0", "pairs-q1", "pairs-q2", "fan-in-q0", "fan-in-q1", "fan-out-50-q0", "fan-out-50-q1", "fan-out-1000-q0", "shared-q0", "shared-q1",
        "pairs-v5-q0", "pairs-v5-q1", "pairs-1k-q0", "pairs-1k-q1", "pairs-1k-q2", "unbatched-q0", "unbatched-q1", "storm-q2",
        "latency-5k-q0", "latency-5k-q1", "latency-50k-q0", "connect-10k", "idle-10k", "wildcard-100k", "retained-100k",
    )]


def short():
    return [file(name) for name in (
        "pairs-q0", "pairs-q1", "pairs-q2", "fan-in-q1", "fan-out-50-q0", "unbatched-q0", "latency-5k-q1", "connect-10k", "wildcard-100k", "retained-100k",
    )]


def over(transport, *names):
    return [file(name, transport=transport, name=f"{name} {transport}") for name in names]


def tls():
    return over("tls", "pairs-q0", "pairs-q1", "unbatched-q0", "connect-10k", "idle-10k")


def websocket():
    return over("ws", "pairs-q0", "pairs-q1", "unbatched-q0")


def kept():
    return [file("pairs-kept-q1"), file("pairs-kept-q2"), file("always-1", probe=fdatasync), file("always-64"), file("retained-100k")]


def fdatasync(folder):
    """A sync of 200 bytes appended, a hundred a second, as `always-1` has it: in the form of a report."""
    times = []
    with open(folder / "fdatasync", "wb", buffering=0) as log:
        for _ in range(200):
            began = time.perf_counter()
            log.write(b"x" * 200)
            os.fdatasync(log.fileno())
            times.append((time.perf_counter() - began) * 1e6)
            time.sleep(0.01)
    times.sort()
    return {"acknowledged_us": {"p50": times[100], "p99": times[198], "p999": times[199]}}


def workers():
    """Subscribers connect first, then publishers, each in turn to the other worker: of 9 pairs every publisher and its subscriber are
    on different workers, of 8 on the same one."""
    return [file(name) for name in ("pairs-apart-q0", "pairs-apart-q1", "unbatched-apart-q0")] + [
        Row(f"{name} of {pairs} pairs", name, ["--publishers", str(pairs), "--at-once", "1"])
        for name in ("pairs-q0", "pairs-q1") for pairs in (8, 16, 64)
    ]


def sweep(series, scenario, key, values, flags=(), kind="traffic", seconds=2):
    flags = [*flags, "--warm-up", "0.5", "-d", str(seconds)]
    return [Row(f"{series}={value}", scenario, [*flags, f"--{key}", str(value)], kind=kind, x=value) for value in values]


def growth():
    tens = [1_000, 10_000, 100_000, 1_000_000]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    connections = [count for count in (1_000, 5_000, 10_000, 18_000, 50_000, 100_000) if count < most - 1_000]
    rows = sweep("subscribers", "fan-out", "subscribers", [1, 10, 100, 1_000], ["--in-flight", "100"])
    for kind in ("exact", "plus", "hash"):
        rows += sweep(f"filters-{kind}", "wildcard", "filters", tens, ["--filter-kind", kind], kind="wildcard")
    rows += sweep("retained", "retained", "messages", tens, ["-q", "1"], kind="retained")
    rows += sweep("connections", "idle", "connections", connections, ["--sources", "8"], kind="idle", seconds=15)
    rows += sweep("levels", "pairs", "levels", [0, 1, 5, 10, 20])
    rows += sweep("payload", "pairs", "payload", [64, 256, 1_024, 4_096, 16_384, 65_536, 204_800], ["--in-flight", "50"])
    return rows + churn() + [file("wildcard-1m")]


def quiet():
    """One pair, a hundred messages a second, while others are loud."""

    def row(name, **more):
        flags = ["--publishers", "1", "--rate", "100", "-q", "0", "--warm-up", "0.5", "-d", "4"]
        return Row(name, "latency", flags, kind="quiet", transport="both", **more)

    return [
        row("alone"),
        row("beside a flood", beside=["pairs", "--publishers", "1", "--in-flight", "0", "-d", "60"]),
        row("beside 8 pairs, QoS 1", beside=["pairs", "-q", "1", "-d", "60"]),
        row("beside connections", beside=["connect", "--connections", "17000"], beside_wait=0),
        row("beside TLS handshakes", beside=["connect", "--connections", "15000"], beside_over="tls"),
        row("beside 20 replays of a million", beside=["retained", "--messages", "1000000", "--subscribers", "20"], beside_wait=5),
    ]


def churn():
    """SUBSCRIBE and UNSUBSCRIBE a second, beside pairs."""
    return sweep("churn", "pairs", "churn", [0, 1_000, 10_000])


SETS = {
    "peers": Set("every throughput, latency and memory figure, beside the peers; 10 minutes a round", PEERS, peers),
    "short": Set("the rows of the table of the README, and connections, wildcards, retained messages; 4 minutes a round", PEERS, short),
    "growth": Set(
        "subscribers, subscriptions, retained messages, connections, levels, payloads, churn; 12 minutes a round", ["ceiling", "sundew", "mosquitto"], growth
    ),
    "churn": Set("publishing while subscriptions come and go; 1 minute a round", ["ceiling", "sundew", "mosquitto"], churn),
    "tls": Set("pairs, handshakes and idle connections over TLS; 2 minutes a round", ["sundew", "mosquitto", "nats"], tls),
    "websocket": Set("pairs over WebSocket; 1 minute a round", ["sundew", "mosquitto", "nats"], websocket),
    "kept": Set("sessions and retained messages on disk, and one sync of the device; 1 minute a round", ["no-store", "interval", "always"], kept),
    "quiet": Set("the latency of a quiet pair while others are loud; 2 minutes a round", ["sundew", "mosquitto"], quiet),
    "workers": Set("pairs on one worker and on two; 1 minute a round", ["one-worker", "two-workers"], workers),
}


def listed():
    lines = []
    for name, chosen in SETS.items():
        lines.append(f"{name}: {chosen.about}")
        lines.append(f"    brokers: {', '.join(chosen.brokers)}")
        lines.append(f"    rows: {', '.join(row.name for row in chosen.rows())}")
    return "\n".join(lines)
