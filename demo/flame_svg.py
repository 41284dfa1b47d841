"""Draws the tree of a /flame answer as an SVG: what took the time, and what changed.

The width of a box is its mean time per request. With a baseline red grew, blue shrank, and magenta
is new; frames of libraries are passed by, as `tailrace flame` does.
"""

from __future__ import annotations

from html import escape
from typing import Any

WIDTH, ROW, LEFT = 960, 22, 10
TITLE = 52
LEAST = 0.004  # of the whole: thinner boxes are left out
CHAR = 6.6  # of the font, in pixels

Node = dict[str, Any]


def own(node: Node, library: str = "") -> list[Node]:
    """The children of a node that are the app's own frames or leaves; equal ones are one."""
    found: dict[tuple[str, str], Node] = {}
    for child in node["children"]:
        leaf = child["kind"] is not None
        if leaf or child["in_app"]:
            parts = [{**child, "library": library if leaf else ""}]
        else:
            parts = own(child, library or child["name"])
        for part in parts:
            key = (part["name"], part["kind"] or "")
            if key not in found:
                found[key] = {**part, "children": list(part["children"])}
                continue
            there = found[key]
            there["ns"] += part["ns"]
            there["baseline_ns"] = (there["baseline_ns"] or 0) + (part["baseline_ns"] or 0)
            there["children"] += part["children"]
    return sorted(found.values(), key=lambda one: -float(one["ns"]))


def duration(ns: float) -> str:
    """Nanoseconds for people."""
    if ns >= 1e9:
        return f"{ns / 1e9:.2f} s"
    return f"{ns / 1e6:.2f} ms" if ns >= 1e6 else f"{ns / 1e3:.0f} µs"


def color(node: Node, whole: float, compared: bool) -> str:
    """By how it changed against the baseline."""
    before, after = float(node["baseline_ns"] or 0), float(node["ns"])
    change = (after - before) / whole
    if not compared or abs(change) < 0.005:
        return "#cfd6dd" if node["kind"] else "#b8c7d9"
    if before == 0:
        return "#d884d0"
    strength = min(1.0, abs(change) * 2)
    weak = int(225 - 120 * strength)
    return f"#f0{weak:02x}{weak:02x}" if change > 0 else f"#{weak:02x}{weak:02x}f0"


def boxes(node: Node, depth: int, x: float, scale: float, whole: float, compared: bool) -> Any:
    """Every box below a node: (depth, x, width, color, label, note)."""
    for child in own(node):
        width = float(child["ns"]) * scale
        if float(child["ns"]) < LEAST * whole:
            continue
        kind = child["kind"]
        label = f"{kind} {child['name']}" if kind and kind != child["name"] else child["name"]
        before = child["baseline_ns"]
        note = f"{label}: {duration(child['ns'])} per request"
        if compared:
            note += f", before {duration(before or 0)}"
            label += change(float(before or 0), float(child["ns"]), whole)
        yield depth, x, width, color(child, whole, compared), label, note
        yield from boxes(child, depth + 1, x, scale, whole, compared)
        x += width


def change(before: float, after: float, whole: float) -> str:
    """How much more or less it is, where that is worth telling."""
    if abs(after - before) < 0.01 * whole:
        return ""
    return f"  {'+' if after > before else '−'}{duration(abs(after - before))}"


def draw(answer: dict[str, Any]) -> str:
    """The SVG of an answer of /api/v1/routes/{id}/flame."""
    tree, baseline = answer["tree"], answer["baseline"]
    compared = baseline is not None
    whole = max(float(tree["ns"]), float(tree["baseline_ns"] or 0))
    scale = (WIDTH - 2 * LEFT) / whole
    found = list(boxes(tree, 1, LEFT, scale, whole, compared))
    height = TITLE + ROW * (2 + max((box[0] for box in found), default=0)) - ROW + 10
    title = f"{answer['route']}: mean {duration(tree['ns'])} of {answer['requests']} requests"
    if compared:
        title += f"; before {duration(tree['baseline_ns'])} of {baseline['requests']}"
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="ui-monospace, monospace" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-size="13" fill="#1a1a1a">{escape(title)}</text>',
        f'<text x="{LEFT}" y="38" fill="#555">width: time per request; red: grew, blue: shrank, '
        "magenta: new</text>",
    ]
    whole_box = (0, LEFT, float(tree["ns"]) * scale, "#dfe5ea", answer["route"], title)
    for depth, x, width, fill, label, note in [whole_box, *found]:
        y = TITLE + depth * ROW
        room = int((width - 8) / CHAR)
        shown = label if len(label) <= room else label[: max(0, room - 1)] + "…"
        out.append(
            f'<g><title>{escape(note)}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" '
            f'height="{ROW - 2}" fill="{fill}" stroke="#fff"/>'
            + (
                f'<text x="{x + 4:.1f}" y="{y + 14}" fill="#1a1a1a">{escape(shown)}</text>'
                if room > 2
                else ""
            )
            + "</g>"
        )
    return "\n".join([*out, "</svg>"]) + "\n"
