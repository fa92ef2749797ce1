"""Where things stand in the picture of a run's graph: a column a step, from left to right. Numbers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Pixels: of a call's box, and between boxes.
WIDTH, HEIGHT, ACROSS, DOWN, MARGIN = 168, 40, 64, 16, 12

#: Calls that are drawn, and lines into one of them.
MOST, LINES = 200, 24

#: Letters, each with a colour of its own, for the prefixes that most calls share.
LETTERS = "ABCDEF"


@dataclass(frozen=True, slots=True)
class Box:
    """`number`: of the call in the report. `letter`: of the longest shared prefix that has one."""

    number: int
    x: int
    y: int
    letter: str


@dataclass(frozen=True, slots=True)
class Stub:
    """A call of another run, whose value is read here: `cut` is the line to who reads it."""

    run: str
    call: str
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Line:
    """`kind`: "needs"; "critical"; "broken", from what has no value; "cut", from another run."""

    kind: str
    path: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """`groups`: (id, x, y, width, height). `letters`: (letter, characters, calls of this run, calls in all)."""

    boxes: Sequence[Box]
    stubs: Sequence[Stub]
    lines: Sequence[Line]
    groups: Sequence[tuple[int, int, int, int, int]]
    letters: Sequence[tuple[str, int, int, int]]
    width: int
    height: int
    more: int


def draw(report: Mapping[str, Any]) -> Drawing:
    calls = report["calls"][:MOST]
    number = {call["id"]: i for i, call in enumerate(calls)}
    needs = [[number[name] for name in call["needs"][:LINES] if name in number] for call in calls]
    columns = _columns(calls, needs)
    place: dict[int, tuple[int, int]] = {}
    abroad = list(dict.fromkeys((there["run"], there["call"]) for call in calls for there in call["outside"]))
    left = MARGIN + (WIDTH + ACROSS if abroad else 0)
    tallest = max([len(column) for column in columns] + [len(abroad), 1])
    for x, column in enumerate(columns):
        top = MARGIN + (tallest - len(column)) * (HEIGHT + DOWN) // 2
        for y, i in enumerate(column):
            place[i] = left + x * (WIDTH + ACROSS), top + y * (HEIGHT + DOWN)
    stubs = [Stub(run, call, MARGIN, MARGIN + y * (HEIGHT + DOWN)) for y, (run, call) in enumerate(abroad)]
    letters = _letters(calls)
    boxes = [Box(i, *place[i], _letter(calls[i], letters)) for i in sorted(place)]
    return Drawing(
        boxes=boxes,
        stubs=stubs,
        lines=[*_lines(calls, needs, place), *_cuts(calls, stubs, place)],
        groups=_groups(calls, place),
        letters=[(letter, *about) for letter, about in letters.values()],
        width=left + len(columns) * (WIDTH + ACROSS) - ACROSS + MARGIN,
        height=2 * MARGIN + tallest * (HEIGHT + DOWN) - DOWN,
        more=len(report["calls"]) - len(calls),
    )


def _columns(calls: Sequence[Mapping[str, Any]], needs: Sequence[Sequence[int]]) -> list[list[int]]:
    """Each call right of all that it needs; in a column, task groups together, then near what they need."""
    depth: dict[int, int] = {}
    for root in range(len(calls)):
        todo = [root]
        while todo:
            i = todo[-1]
            missing = [j for j in needs[i] if j not in depth]
            if missing:
                todo += missing
            else:
                depth[i] = 1 + max((depth[j] for j in needs[i]), default=-1)
                todo.pop()
    columns: list[list[int]] = [[] for _ in range(1 + max(depth.values(), default=-1))]
    at: dict[int, float] = {}
    for level, column in enumerate(columns):
        column += [i for i in range(len(calls)) if depth[i] == level]
        near = {i: sum(at[j] for j in needs[i]) / len(needs[i]) if needs[i] else float(i) for i in column}
        group = {i: calls[i]["task_group"]["id"] if calls[i]["task_group"] else -1 - i for i in column}
        first: dict[int, float] = {}
        for i in column:
            first[group[i]] = min(first.get(group[i], near[i]), near[i])
        column.sort(key=lambda i: (first[group[i]], group[i], near[i], i))
        at |= {i: y - len(column) / 2 for y, i in enumerate(column)}
    return columns


def _lines(
    calls: Sequence[Mapping[str, Any]], needs: Sequence[Sequence[int]], place: Mapping[int, tuple[int, int]]
) -> list[Line]:
    found = []
    for i, sources in enumerate(needs):
        for j in sources:
            kind = "needs"
            if calls[j]["state"] in ("failed", "aborted"):
                kind = "broken"
            elif calls[i]["critical"] and calls[j]["critical"] and calls[i]["waited_for"] == calls[j]["id"]:
                kind = "critical"
            found.append(Line(kind, _path(place[j], place[i])))
    return sorted(found, key=lambda line: line.kind != "needs")  # the others above them


def _cuts(
    calls: Sequence[Mapping[str, Any]], stubs: Sequence[Stub], place: Mapping[int, tuple[int, int]]
) -> list[Line]:
    at = {(stub.run, stub.call): (stub.x, stub.y) for stub in stubs}
    return [
        Line("cut", _path(at[there["run"], there["call"]], place[i]))
        for i, call in enumerate(calls)
        for there in call["outside"]
    ]


def _path(source: tuple[int, int], target: tuple[int, int]) -> str:
    x0, y0 = source[0] + WIDTH, source[1] + HEIGHT // 2
    x1, y1 = target[0], target[1] + HEIGHT // 2
    bend = max(ACROSS // 2, (x1 - x0) // 2)
    return f"M{x0},{y0} C{x0 + bend},{y0} {x1 - bend},{y1} {x1},{y1}"


def _groups(
    calls: Sequence[Mapping[str, Any]], place: Mapping[int, tuple[int, int]]
) -> list[tuple[int, int, int, int, int]]:
    """An outline around each column of a group's calls, where no other call stands between them."""
    members: dict[tuple[int, int], list[int]] = {}
    for i, (x, y) in place.items():
        if calls[i]["task_group"] is not None:
            members.setdefault((calls[i]["task_group"]["id"], x), []).append(y)
    found = []
    for (group, x), rows in members.items():
        high = max(rows) - min(rows) + HEIGHT
        if len(rows) > 1 and high == len(rows) * (HEIGHT + DOWN) - DOWN:
            found.append((group, x - 6, min(rows) - 6, WIDTH + 12, high + 12))
    return found


def _letters(calls: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, tuple[int, int, int]]]:
    """By prefix: its letter, and (characters, calls of this run, calls in all). Those whom most calls here share."""
    shared: dict[str, Mapping[str, Any]] = {}
    for call in calls:
        for prefix in call["prefixes"]:
            shared.setdefault(prefix["id"], prefix)
    most = sorted(shared.values(), key=lambda prefix: (-prefix["own"], -prefix["characters"], prefix["id"]))
    chosen = zip(LETTERS, most, strict=False)
    return {p["id"]: (letter, (p["characters"], p["own"], p["count"])) for letter, p in chosen}


def _letter(call: Mapping[str, Any], letters: Mapping[str, tuple[str, tuple[int, int, int]]]) -> str:
    return next((letters[prefix["id"]][0] for prefix in call["prefixes"] if prefix["id"] in letters), "")
