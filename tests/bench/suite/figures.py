"""Tables and plots of what was measured: medians over the rounds, ratios within each round with their spread."""

import json
import re
import statistics
from pathlib import Path

import plot

# Of each kind of row: the figures of its cell, in words and in order.
CELLS = {
    "traffic": [("rate", "{}/s"), ("cpu", "{}"), ("churned", "{} changes/s")],
    "wildcard": [("rate", "{}/s"), ("cpu", "{}"), ("bytes", "{} B each"), ("setup", "{} s to subscribe")],
    "latency": [("p50", "{}"), ("p99", "{}"), ("p999", "{} µs"), ("cpu", "{}")],
    "quiet": [("p50", "{}"), ("p99", "{}"), ("p999", "{} µs")],
    "durable": [("ack50", "PUBACK {}"), ("ack99", "{} µs"), ("rate", "{}/s")],
    "connect": [("rate", "{}/s"), ("cpu", "{}")],
    "idle": [("bytes", "{} B each"), ("cpu", "{}")],
    "retained": [("stored", "{} stored/s"), ("rate", "{}/s"), ("cpu", "{}"), ("bytes", "{} B each")],
}
# What is compared within a round, and what a plot shows.
RATIOS = {
    "traffic": ["cpu", "rate"], "wildcard": ["cpu", "rate"], "latency": ["p50", "p99", "cpu"], "quiet": ["p50", "p99"], "durable": ["ack50", "rate"],
    "connect": ["cpu", "rate"], "idle": ["bytes", "cpu"], "retained": ["cpu", "rate", "bytes"],
}
PANELS = {"cpu": "CPU seconds of the broker for a million", "rate": "a second", "bytes": "bytes each"}
LEGEND = """\
Cells: deliveries (or connections) a second / CPU seconds of the broker for a million of them (the same number: microseconds for one);
latency: p50 / p99 / p99.9 / CPU. Medians over the rounds, each with a freshly started broker. `!`: see below.
"""


def publish(out):
    """Prints the tables of a folder's results, and writes them and the plots beside them."""
    lines = [json.loads(line) for line in open(out / "results.jsonl")]
    about, lines = lines[0]["about"], lines[1:]
    text = [heading(about), LEGEND]
    for chosen in dict.fromkeys(line["set"] for line in lines):
        data = Data([line for line in lines if line["set"] == chosen])
        text += [f"## {chosen}\n", data.table(), data.beside(), data.growth(), data.wrong()]
        for name, svg in data.plots(chosen):
            (out / f"{name}.svg").write_text(svg)
            text.append(f"Plot: {name}.svg\n")
    text = "\n".join(part for part in text if part)
    (out / "table.md").write_text(text)
    print(text)
    print(f"All of it is in {out}")
    return 0


def heading(about):
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    missing = "".join(f"Left out: {name} ({why}).\n" for name, why in about["missing"].items())
    return (
        f"{about['date']}, {about['machine']}; {versions}; commit {about['commit']}; {about['rounds']} rounds; "
        f"load average at the start {about['load']:.1f}.\n`{about['command']}`\n{missing}"
    )


def values(report):
    """The figures of a run."""
    found = {}
    traffic, retained, connections = report.get("traffic"), report.get("retained"), report.get("connections")
    process, latency, acknowledged = report.get("broker_process"), report.get("latency_us"), report.get("acknowledged_us")
    if traffic:
        found["rate"] = traffic["delivered_per_second"]
        if "churned_per_second" in traffic:
            found["churned"] = traffic["churned_per_second"]
    if retained:
        found |= {"rate": retained["delivered_per_second"], "stored": retained["stored_per_second"]}
    if connections:
        found["rate"] = connections["per_second"]
    if process:
        found["cpu"] = process["cpu_seconds_per_million"]
        if "resident_each" in process:
            found["bytes"] = process["resident_each"] - process.get("resident_text", 0)
        if report.get("scenario") == "wildcard":
            found["setup"] = process["other_cpu_seconds"]
    for prefix, percentiles in (("p", latency), ("ack", acknowledged)):
        if percentiles and percentiles.get("count", 1):
            found |= {f"{prefix}{name[1:]}": percentiles[name] for name in ("p50", "p99", "p999")}
    return found


def short(line):
    """A run in a few words."""
    if "error" in line:
        return f"FAILED: {line['error']}"
    found = values(line["report"])
    words = ", ".join(words.format(number(found[name])) for name, words in CELLS[line["kind"]] if name in found)
    return words + "".join(f"; WRONG: {fault}" for fault in line["report"].get("faults", []))


def number(value):
    """Three digits that matter."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= 10 * size or (unit == "M" and abs(value) >= size):
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


class Data:
    """One set: of each row and broker its runs, by round."""

    def __init__(self, lines):
        self.lines = lines
        self.kinds = {line["row"]: line["kind"] for line in lines}
        self.brokers = list(dict.fromkeys(line["broker"] for line in lines))
        self.places = {line["row"]: line["x"] for line in lines if line.get("x") is not None}
        self.runs = {}
        for line in lines:
            if "report" in line:
                self.runs.setdefault((line["row"], line["broker"]), {})[line["round"]] = values(line["report"])

    def median(self, row, broker, figure):
        found = [run[figure] for run in self.runs.get((row, broker), {}).values() if figure in run]
        return statistics.median(found) if found else None

    def table(self):
        text = header(["", *self.brokers])
        for row, kind in self.kinds.items():
            text += cells([title(row), *(self.cell(row, kind, broker) for broker in self.brokers)])
        return text

    def cell(self, row, kind, broker):
        found = [(words, self.median(row, broker, figure)) for figure, words in CELLS[kind]]
        words = " / ".join(words.format(number(value)) for words, value in found if value is not None)
        mark = " !" if any(complaints(line) for line in self.of(row, broker)) else ""
        return (words or "-") + mark

    def of(self, row, broker):
        return [line for line in self.lines if line["row"] == row and line["broker"] == broker]

    def beside(self):
        """Ratios to the ceiling, or to the first broker where there is none."""
        reference = "ceiling" if "ceiling" in self.brokers else self.brokers[0]
        others = [broker for broker in self.brokers if broker not in (reference, "fdatasync")]
        rows = [row for row in self.kinds if row not in self.places and (row, reference) in self.runs]
        if not others or not rows:
            return ""
        text = f"Beside {reference}, in the same round: median (least–most).\n\n" + header(["", *others])
        for row in rows:
            text += cells([title(row), *(self.ratios(row, (row, broker), (row, reference)) for broker in others)])
        for row in rows:
            if (row, "fdatasync") in self.runs:
                found = [self.ratios(row, (row, broker), (row, "fdatasync")) for broker in others]
                text += cells([f"{row}, beside one fdatasync", *found])
        return text

    def growth(self):
        """Of each series its last row beside its first."""
        if not self.places:
            return ""
        text = "How it grows: the last of a series beside its first, in the same round: median (least–most).\n\n" + header(["", *self.brokers])
        for series, rows in self.series().items():
            words = []
            for broker in self.brokers:
                measured = [row for row in rows if (row, broker) in self.runs]
                words.append(self.ratios(rows[0], (measured[-1], broker), (measured[0], broker)) if len(measured) > 1 else "-")
            text += cells([f"{series}, {number(self.places[rows[0]])} to {number(self.places[rows[-1]])}", *words])
        return text

    def series(self):
        found = {}
        for row in self.places:
            found.setdefault(row.split("=")[0], []).append(row)
        return found

    def ratios(self, row, one, other):
        """Of the runs of `one`, row and broker, to those of `other` in the same round."""
        own, first = self.runs.get(one, {}), self.runs.get(other, {})
        words = []
        for figure in RATIOS[self.kinds[row]]:
            rounds = [number for number in own if first.get(number, {}).get(figure, 0) > 0 and figure in own[number]]
            found = [own[number][figure] / first[number][figure] for number in rounds]
            if found:
                spread = f" ({min(found):.3g}–{max(found):.3g})" if len(found) > 1 else ""
                words.append(f"{figure} {statistics.median(found):.3g}×{spread}")
        return ", ".join(words) or "-"

    def wrong(self):
        """What failed, or was not as the standard wants it; each once."""
        found = {}
        for line in self.lines:
            for complaint in complaints(line):
                found.setdefault((line["row"], line["broker"]), set()).add(re.sub(r"\d+", "N", complaint))
        return "".join(f"! {broker}, {row}: {'; '.join(sorted(what))}\n" for (row, broker), what in found.items())

    def plots(self, chosen):
        """Bars of rows, lines of series."""
        bars = [row for row in self.kinds if row not in self.places]
        if bars:
            panels = [(PANELS["cpu"], "cpu"), (PANELS["rate"], "rate"), ("p99 in µs, by the clock", "p99")]
            panels = [panel for panel in panels if any(self.bar(row, broker, panel[1]) for row in bars for broker in self.brokers)]
            yield chosen, plot.bars(chosen, bars, self.brokers, panels, self.bar)
        for name, rows in self.series().items():
            panels = []
            for figure, words in PANELS.items():
                lines = {broker: [(self.places[row], self.median(row, broker, figure)) for row in rows] for broker in self.brokers}
                lines = {broker: [point for point in points if point[1] and point[1] > 0] for broker, points in lines.items()}
                lines = {broker: points for broker, points in lines.items() if points}
                if lines:
                    panels.append((words, lines))
            if panels:
                yield f"{chosen}-{name}", plot.lines(name, panels, self.brokers)


    def bar(self, row, broker, figure):
        """In a closed loop latency is the loop's own; by the clock the rate is."""
        is_by_the_clock = self.kinds[row] in ("latency", "quiet")
        if figure == "cpu" and self.kinds[row] == "quiet":
            return None  # that of the others
        if figure == "p99" and not is_by_the_clock or figure == "rate" and is_by_the_clock:
            return None
        return self.median(row, broker, figure)


def complaints(line):
    if "error" in line:
        return [line["error"].splitlines()[-1] if line["error"] else "failed"]
    return line["report"].get("faults", [])


def title(row):
    """What a scenario file says of itself, where the row is that file as it is."""
    name, _, transport = row.partition(" ")
    file = Path(__file__).parent.parent / f"{name}.toml"
    if transport not in ("", "tls", "ws") or not file.exists():
        return row
    about = re.search(r'about = "(.*)"', file.read_text())
    return f"{row}: {about.group(1)}" if about else row


def header(names):
    return cells(names) + "|" + " --- |" * len(names) + "\n"


def cells(words):
    return "| " + " | ".join(word.replace("|", "\\|") for word in words) + " |\n"
