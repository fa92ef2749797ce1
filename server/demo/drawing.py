"""Where things stand in the report's two pictures: the program as a DAG, the runs as a timeline. Numbers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NODE_WIDTH, NODE_HEIGHT = 116, 30
_COLUMN, _ROW, _MARGIN = 168, 44, 12


@dataclass(frozen=True, slots=True)
class Box:
    """A call (or an input) in the DAG; pixels."""

    name: str
    kind: str
    title: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Picture:
    boxes: tuple[Box, ...]
    edges: tuple[str, ...]
    width: float
    height: float


def dag(reads: Mapping[str, Sequence[str]], titles: Mapping[str, str]) -> Picture:
    """`reads`: for each call, in an order of execution, the calls it reads. A call stands one column right of the
    last call it reads, so a column is what may run at once."""
    column: dict[str, int] = {}
    rows: dict[int, int] = {}
    boxes: dict[str, Box] = {}
    for name, sources in reads.items():
        at = 1 + max((column[source] for source in sources), default=-1)
        row = rows.get(at, 0)
        column[name], rows[at] = at, row + 1
        x, y = _MARGIN + at * _COLUMN, _MARGIN + row * _ROW
        boxes[name] = Box(name, "call", titles.get(name, name), x, y)
    tallest = max(rows.values(), default=1)
    boxes = {name: _centred(box, rows[column[name]], tallest) for name, box in boxes.items()}
    edges = tuple(_curve(boxes[source], boxes[name]) for name, sources in reads.items() for source in sources)
    width = 2 * _MARGIN + max(column.values(), default=0) * _COLUMN + NODE_WIDTH
    return Picture(tuple(boxes.values()), edges, width, 2 * _MARGIN + tallest * _ROW)


def _centred(box: Box, rows: int, tallest: int) -> Box:
    return Box(box.name, box.kind, box.title, box.x, box.y + (tallest - rows) * _ROW / 2)


def _curve(source: Box, target: Box) -> str:
    """An SVG path from the right edge of one box to the left edge of the other."""
    x0, y0 = source.x + NODE_WIDTH, source.y + NODE_HEIGHT / 2
    x1, y1 = target.x, target.y + NODE_HEIGHT / 2
    bend = (x1 - x0) / 2
    return f"M{x0:g},{y0:g} C{x0 + bend:g},{y0:g} {x1 - bend:g},{y1:g} {x1:g},{y1:g}"


@dataclass(frozen=True, slots=True)
class Span:
    """One call in time: seconds since the app called its chain. `parts`: (phase, seconds), in order."""

    name: str
    start: float
    parts: tuple[tuple[str, float], ...]

    @property
    def end(self) -> float:
        return self.start + sum(seconds for _, seconds in self.parts)


def ticks(longest: float) -> list[float]:
    """Round times for the axis, about six of them."""
    for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600):
        if longest / step <= 7:
            break
    return [round(i * step, 2) for i in range(int(longest / step) + 1)]
