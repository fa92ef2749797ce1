"""The report of a run in a terminal: a row a call with its bar on one time axis, then what was planned and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import Any

from rich.console import Console
from rich.text import Text

from semantic_parrot.server.explain import words
from semantic_parrot.server.explain.timeline import in_order, spans, ticks

#: How a phase looks; all three also differ without colour.
SIGNS = {"queued": "·", "prefill": "▒", "decode": "█", "unknown": "░"}
COLOURS = {"latency": "blue", "deadline": "yellow", "throughput": "green", None: "default"}

#: Calls that are shown.
ROWS = 100

#: Columns of names, and of labels.
NAME, LABEL = 24, 14


def printable(text: str) -> str:
    """Nothing in it moves a cursor or changes a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def show(report: Mapping[str, Any], console: Console) -> None:
    for line in _lines(report, max(60, console.width)):
        line.rstrip()
        console.print(line, soft_wrap=True)


def _lines(report: Mapping[str, Any], width: int) -> Iterator[Text]:
    order = in_order(report["calls"])
    shown = [report["calls"][number] for number in order[:ROWS]]
    yield Text(printable(report["id"]), style="bold")
    for line in words.headline(report):
        yield from _wrapped("", line, width, 2)
    yield Text()
    yield from _timeline(report["seconds"], shown, width - NAME - 1)
    for call in shown:
        yield Text()
        yield from _details(call, width)
    if len(order) > ROWS:
        yield Text(f"… and {len(order) - ROWS} more calls; --json has them all")


def _timeline(longest: float, calls: list[Mapping[str, Any]], width: int) -> Iterator[Text]:
    scale = width / max(longest, 1e-9)
    yield Text("·queued ▒prefill █decode".ljust(NAME + 1) + _axis(longest, width, scale), style="dim")
    group = None
    for call in calls:
        own = call["task_group"]["id"] if call["task_group"] is not None else None
        mark = " " if own is None else "│" if own == group else "┌"
        group = own
        sign = " ◆" if call["critical"] else ""
        name = words.short(printable(call["id"]), NAME - 2 - len(sign)) + sign
        line = Text(f"{mark} {name.ljust(NAME - 2)} ", style="bold" if sign else "")
        yield line.append(_bar(call, width, scale))


def _axis(longest: float, width: int, scale: float) -> str:
    line = [" "] * width
    for second in ticks(longest):
        label, at = words.tick(second), int(second * scale)
        if at + len(label) <= width and not "".join(line[max(0, at - 1) : at + len(label)]).strip():
            line[at : at + len(label)] = label
    return "".join(line)


def _bar(call: Mapping[str, Any], width: int, scale: float) -> Text:
    found = spans(call)
    if not found:
        return Text(words.short(printable(words.state(call)), width), style="red" if call["reason"] else "dim")
    cells = [" "] * width
    for phase, begun, ended in found:
        first = min(width - 1, int(begun * scale))
        for at in range(first, max(first + (ended > begun), min(width, round(ended * scale)))):
            cells[at] = SIGNS[phase]
    return Text("".join(cells), style=COLOURS[call["objective"]])


def _details(call: Mapping[str, Any], width: int) -> Iterator[Text]:
    sign = " ◆ on the critical path" if call["critical"] else ""
    yield Text(printable(f"{call['id']} → {call['output']}{sign}"), style="bold")
    rows = [("state", words.state(call))]
    if call["waited_for"] is not None:
        rows.append(("waited for", call["waited_for"]))
    rows += [("values from" if i == 0 else "", line) for i, line in enumerate(words.outside(call))]
    rows += [("objective", words.objective(call)), ("task group", words.group(call))]
    rows += [("prefix" if i == 0 else "", line) for i, line in enumerate(words.prefixes(call))]
    rows += [("engine", words.engine(call)), ("times", words.times(call)), ("start", words.start(call))]
    rows.append(("predicted", words.plan(call)))
    for label, text in rows:
        yield from _wrapped(label, text, width, LABEL)


def _wrapped(label: str, text: str, width: int, indent: int) -> Iterator[Text]:
    for i, line in enumerate(wrap(printable(text), width - indent) or [""]):
        yield Text(f"  {label}".ljust(indent) if i == 0 else " " * indent, style="dim").append(line, style="not dim")
