"""Draws the pictures of docs/phases.md from include/model/phases.def (`make pictures`).

Time goes from left to right; client, gateway and app are three lines; messages are arrows between
them; a phase is a box on the gateway's line, wide enough to be seen and not to scale.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "pictures"
BY = "make pictures"
WIDTH, LEFT, BOX_H = 920, 78, 26
#: The page's colours (dashboard/style.css).
COLOURS = {
    **{"head": "#9aa5ad", "admit": "#8d99a6", "queue": "#b3261e", "retry": "#d0574f"},
    **{"connect": "#8659a8", "dispatch": "#7a8793", "send": "#4f8f8b", "wait": "#3b77a8"},
    **{"reply_head": "#98a3ab", "reply": "#7d8a95", "stream": "#5f9e5a", "drain": "#c29a2c"},
    **{"app_queue": "#b3261e", "app": "#c4620a", "app_out": "#7a8793"},
    **{"app_stream": "#5f9e5a", "app_tail": "#9aa5ad"},
    **{"run": "#c4620a", "ready": "#c23a7a", "thread_queue": "#8659a8", "thread_run": "#5f9e5a"},
}
PALE = "#e4e7ea"
#: How wide a phase is drawn, in shares; others have 1.
WIDE = {"wait": 2.6, "send": 1.5, "stream": 1.7, "drain": 1.5, "queue": 1.3, "reply_head": 1.3}
#: phase: what passes between whom at its end; `c` client, `g` gateway, `a` app.
ARROWS = {
    "head": ("c", "g", "request head is whole"),
    "connect": ("g", "a", "connection"),
    "dispatch": ("g", "a", "first byte"),
    "send": ("g", "a", "last byte"),
    "wait": ("a", "g", "first byte of the answer"),
    "reply": ("g", "c", "first byte"),
    "stream": ("a", "g", "last byte"),
    "drain": ("g", "c", "last byte"),
}
#: The mark that ends a phase (docs/internals.md, section 3).
MARKS = {"head": "t1", "admit": "t2", "queue": "t3", "retry": "t3'", "connect": "t4"}
MARKS |= {"dispatch": "t5", "send": "m6", "wait": "t7", "reply_head": "t8", "reply": "t9"}
MARKS |= {"stream": "m10", "drain": "t11"}
ROWS = {"c": 62, "g": 132, "a": 214}


def phases() -> list[tuple[str, str]]:
    """Name and text of each phase, in order."""
    text = (ROOT / "include/model/phases.def").read_text()
    return re.findall(r'^PHASE\(\w+, "(\w+)", "([^"]+)"\)', text, re.M)


@dataclass
class Picture:
    """An SVG under way."""

    height: int
    title: str
    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, words: str, size: int = 12, **more: str) -> None:
        """Words; keywords are attributes, `_` for `-`."""
        attributes = "".join(f' {k.replace("_", "-")}="{v}"' for k, v in more.items())
        self.parts.append(
            f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}"{attributes}>{escape(words)}</text>'
        )

    def box(self, x: float, y: float, width: float, fill: str, words: str = "") -> None:
        """A box with words in its middle; dark words on a pale one."""
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BOX_H}" fill="{fill}" '
            'stroke="#fff"/>'
        )
        ink = "#5d666e" if fill == PALE else "#fff"
        size = 12 if len(words) * 6.6 < width else 10
        if words:
            self.text(x + width / 2, y + 17, words, size, fill=ink, text_anchor="middle")

    def line(self, x1: float, y1: float, x2: float, y2: float, arrow: bool = False) -> None:
        """A line, perhaps with a head."""
        end = ' marker-end="url(#head)"' if arrow else ""
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#5d666e"{end}/>'
        )

    def svg(self) -> str:
        """The whole file."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" '
            f'width="{WIDTH}" height="{self.height}" font-family="system-ui,sans-serif" role="img" '
            f'aria-label="{escape(self.title)}">\n<title>{escape(self.title)}</title>\n'
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#5d666e"/></marker>'
            "</defs>\n"
            '<rect width="100%" height="100%" fill="#fbfbfa"/>\n'
        )
        return head + "\n".join(self.parts) + "\n</svg>\n"


def spans(names: list[str], lit: set[str]) -> dict[str, tuple[float, float]]:
    """Begin and end of each phase in pixels; those that are lit get more room."""
    shares = {name: WIDE.get(name, 1.0) * (1.6 if name in lit else 0.7) for name in names}
    scale = (WIDTH - LEFT - 16) / sum(shares.values())
    found, x = {}, float(LEFT)
    for name in names:
        found[name] = (x, x + shares[name] * scale)
        x = found[name][1]
    return found


def exchange(title: str, lit: set[str], app: bool = False) -> Picture:
    """The twelve phases, some of them lit, and the messages that end them."""
    names = [name for name, _ in phases()]
    picture = Picture(270, title)
    place = spans(names, lit)
    for who, row in (("client", ROWS["c"]), ("gateway", ROWS["g"]), ("app", ROWS["a"])):
        picture.text(8, row + 4, who, 13, font_weight="bold", fill="#1c2024")
        picture.line(LEFT, row, WIDTH - 10, row)
    picture.text(LEFT, 24, title, 14, font_weight="bold", fill="#1c2024")
    for name in names:
        begin, end = place[name]
        fill = COLOURS[name] if name in lit else PALE
        picture.box(begin, ROWS["g"] - BOX_H / 2, end - begin, fill, name if name in lit else "")
        if name in lit:
            picture.text(
                end - 3, ROWS["g"] + 28, MARKS[name], 10, fill="#5d666e", text_anchor="end"
            )
        if name in ARROWS:
            source, target, words = ARROWS[name]
            if name in lit:
                picture.line(end, edge(source, target), end, edge(target, source), arrow=True)
                low = "a" in (source, target)
                y = ROWS["a"] + 27 if low else ROWS["c"] - 10
                turn = "end" if end > WIDTH - 90 else "middle"
                picture.text(end, y, words, 10, fill="#1c2024", text_anchor=turn)
    if app:
        inside(picture, place["send"][0], place["wait"][1])
    return picture


def edge(here: str, there: str) -> float:
    """Where an arrow leaves a line: the gateway's boxes are in the way."""
    if here != "g":
        return float(ROWS[here])
    return ROWS["g"] + (BOX_H / 2 if there == "a" else -BOX_H / 2)


def inside(picture: Picture, begin: float, end: float) -> None:
    """The app's track under send and wait, and what follows."""
    width = end - begin
    x = begin
    for name, share in (("app_queue", 0.2), ("app", 0.6), ("app_out", 0.2)):
        picture.box(x, ROWS["a"] - BOX_H / 2, width * share, COLOURS[name], name)
        x += width * share
    rest = WIDTH - 16 - end
    picture.box(end, ROWS["a"] - BOX_H / 2, rest * 0.6, COLOURS["app_stream"], "app_stream")
    picture.box(end + rest * 0.6, ROWS["a"] - BOX_H / 2, rest * 0.4, PALE, "app_tail")
    picture.text(begin, ROWS["a"] + 48, "send + wait = app_queue + app + app_out, exactly", 12)


Lane = tuple[str, list[tuple[str, float, str]]]


def lanes(
    title: str, rows: list[Lane], notes: list[str], wakes: list[tuple[int, int, float]]
) -> str:
    """Lanes of kinds; `wakes` are (from lane, to lane, at): who woke whom."""
    step, top = 46, 48
    picture = Picture(top + step * len(rows) + 20 * len(notes) + 14, title)
    picture.text(16, 24, title, 14, font_weight="bold", fill="#1c2024")
    left, scale = 150, (WIDTH - 170) / max(sum(w for _, w, _ in row[1]) for row in rows)
    for index, (name, parts) in enumerate(rows):
        y, x = top + step * index, float(left)
        picture.text(16, y + 17, name, 12, fill="#1c2024")
        for kind, width, words in parts:
            if kind:
                fill = COLOURS.get(kind, PALE) if words else PALE
                picture.box(x, y, width * scale, fill, words)
            x += width * scale
    for source, target, at in wakes:
        x = left + at * scale
        down = target > source
        picture.line(
            x,
            top + step * source + (BOX_H if down else 0),
            x,
            top + step * target + (0 if down else BOX_H),
            arrow=True,
        )
    for index, note in enumerate(notes):
        picture.text(16, top + step * len(rows) + 14 + 20 * index, note, 12, fill="#5d666e")
    return picture.svg()


def kinds() -> str:
    """The five kinds, on a task and a worker thread."""
    task = [("run", 1.0, "run"), ("wait", 3.0, "wait"), ("ready", 1.6, "ready")]
    task += [("run", 1.0, "run"), ("wait", 4.6, "wait (for the thread)")]
    task += [("ready", 1.0, "ready"), ("run", 1.0, "run")]
    job = [("", 6.6, ""), ("thread_queue", 1.6, "thread_queue"), ("thread_run", 3.0, "thread_run")]
    path = [("run", 1.0, "run"), ("wait", 3.0, "wait"), ("ready", 1.6, "ready")]
    path += [("run", 1.0, "run"), ("thread_queue", 1.6, "thread_queue")]
    path += [("thread_run", 3.0, "thread_run"), ("ready", 1.0, "ready"), ("run", 1.0, "run")]
    return lanes(
        "The kinds: a task that waits, stands in line, and asks a thread",
        [("task", task), ("worker thread", job), ("the path", path)],
        ["wait: nothing to do yet. ready: due, but the loop is busy with somebody else.",
         "The path takes the thread's times instead of the wait for it, and adds up to `app`."],
        [(0, 1, 6.6), (1, 0, 11.2)],
    )  # fmt: skip


def gather() -> str:
    """The critical path through three tasks."""
    route = [("run", 0.4, "run"), ("wait", 6.0, ""), ("ready", 0.5, "ready"), ("run", 0.5, "run")]
    rows: list[Lane] = [
        ("route", route),
        ("first_child", [("", 0.4, ""), ("wait", 2.0, "")]),
        ("slowest_child", [("", 0.4, ""), ("wait", 6.0, "wait 300 ms")]),
        ("third_child", [("", 0.4, ""), ("wait", 1.4, "")]),
        ("the path", [("run", 0.4, "run"), ("wait", 6.0, "wait in slowest_child, 300 ms"),
                      ("ready", 0.5, "ready"), ("run", 0.5, "run")]),
    ]  # fmt: skip
    notes = [
        "Grey waits decided nothing: whoever wakes a task of the same request hands it his path."
    ]
    return lanes(
        "gather(100 ms, 300 ms, 70 ms): only the slowest decides", rows, notes, [(2, 0, 6.4)]
    )


def pictures() -> dict[str, str]:
    """All of them, by file name."""
    names = {name for name, _ in phases()}
    groups = {
        "phases": ("The twelve phases of an exchange", names),
        "request": ("The request comes in: head, admit", {"head", "admit"}),
        "server": (
            "The way to a server: queue, retry, connect, dispatch",
            {"queue", "retry", "connect", "dispatch"},
        ),
        "reply": (
            "The answer goes out: reply_head, reply, stream, drain",
            {"reply_head", "reply", "stream", "drain"},
        ),
    }
    found = {f"{name}.svg": exchange(title, lit).svg() for name, (title, lit) in groups.items()}
    track = exchange("The app's part: inside of send and wait", {"send", "wait"}, app=True)
    return found | {"app.svg": track.svg(), "kinds.svg": kinds(), "gather.svg": gather()}


def main() -> int:
    """Write all pictures and note who made them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, svg in pictures().items():
        path = FOLDER / name
        path.write_text(svg, encoding="utf-8")
        command = [sys.executable, "scripts/check_docs.py", "--by", BY, "--made"]
        subprocess.run([*command, str(path.relative_to(ROOT))], check=True, cwd=ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
