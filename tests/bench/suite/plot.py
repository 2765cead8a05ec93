"""Plots as SVG, powers of ten apart: brokers differ by so much."""

import math

COLOURS = ["#7f8c8d", "#c0392b", "#2471a3", "#1e8449", "#9a7d0a", "#6c3483", "#0e6655"]
STYLE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n'


def bars(title, rows, brokers, panels, value_of):
    """A group of bars for each row, in each panel; what is not there has no bar."""
    group = 10 * len(brokers) + 12
    names, width = 150, 330
    height = 60 + group * len(rows) + 20
    total = names + (width + 40) * len(panels)
    svg = [STYLE.format(total, height), text(10, 18, title, size=15), legend(brokers, brokers, 10, 36)]
    for index, row in enumerate(rows):
        svg.append(text(names - 8, 60 + group * index + group / 2, row, anchor="end"))
    for number, (words, figure) in enumerate(panels):
        left = names + (width + 40) * number
        found = {(row, broker): value_of(row, broker, figure) for row in rows for broker in brokers}
        axis = Axis([value for value in found.values() if value and value > 0], left, left + width)
        svg.append(text(left, 54, words))
        svg += [line(at, 58, at, height - 14, "#ddd") + text(at, height - 3, label, anchor="middle") for at, label in axis.ticks()]
        for index, row in enumerate(rows):
            for place, broker in enumerate(brokers):
                value = found[row, broker]
                if value and value > 0:
                    top = 62 + group * index + 10 * place
                    at = axis.at(value)
                    svg.append(f'<rect x="{left}" y="{top}" width="{max(at - left, 1):.1f}" height="8" fill="{colour(brokers, broker)}"/>\n')
                    svg.append(text(at + 3, top + 8, short(value), size=8))
    return "".join(svg) + "</svg>\n"


def lines(title, panels, brokers):
    """A line for each broker; panels beside each other."""
    width, height, margin = 340, 300, 60
    svg = [STYLE.format((width + margin) * len(panels) + 20, height + 110), text(10, 18, title, size=15)]
    there = [broker for broker in brokers if any(broker in found for _, found in panels)]
    svg.append(legend(there, brokers, 10, 36))
    for number, (words, found) in enumerate(panels):
        left = margin + (width + margin) * number
        points = [point for line_points in found.values() for point in line_points]
        across = Axis([x for x, _ in points], left, left + width - 20, is_tight=True)
        up = Axis([y for _, y in points], 60 + height, 70)
        svg.append(text(left, 54, words))
        svg += [line(left, at, left + width - 10, at, "#ddd") + text(left - 5, at + 4, label, anchor="end") for at, label in up.ticks()]
        for x in sorted({x for x, _ in points}):
            svg.append(text(across.at(x), height + 80, short(x), anchor="middle"))
        for broker, line_points in found.items():
            places = [(across.at(x), up.at(y)) for x, y in line_points]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            svg.append(f'<polyline points="{path}" fill="none" stroke="{colour(brokers, broker)}" stroke-width="2"/>\n')
            svg += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour(brokers, broker)}"/>\n' for x, y in places]
            svg += [text(x, y - 6, short(value), size=8, anchor="middle") for (x, y), (_, value) in zip(places, line_points)]
    return "".join(svg) + "</svg>\n"


class Axis:
    """Powers of ten between two places; 0 stands one step before the first."""

    def __init__(self, values, start, end, is_tight=False):
        above = [value for value in values if value > 0] or [1]
        self.least = min(above)
        low, high = math.log10(self.least), math.log10(max(above))
        if any(value == 0 for value in values):
            low -= 1
        self.low, self.high = (low, high) if is_tight else (math.floor(low), math.ceil(high))
        if self.low == self.high:
            self.high += 1
        self.start, self.end = start, end

    def at(self, value):
        place = math.log10(value) if value > 0 else self.low
        return self.start + (place - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self):
        return [(self.at(10.0**power), short(10.0**power)) for power in range(math.ceil(self.low), math.floor(self.high) + 1)]


def short(value):
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def colour(brokers, broker):
    return COLOURS[brokers.index(broker) % len(COLOURS)]


def legend(there, brokers, x, y):
    return "".join(text(x + 100 * place, y, f"■ {broker}", fill=colour(brokers, broker)) for place, broker in enumerate(there))


def line(x1, y1, x2, y2, stroke):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"/>\n'


def text(x, y, words, size=11, anchor="start", fill="#222"):
    words = words.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}">{words}</text>\n'
