"""Runs as tables for a terminal. What a model or a client wrote moves no cursor: `printable`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from semantic_parrot.server.explain.terminal import printable

STYLES = {"finished": "green", "failed": "red", "cancelled": "yellow", "running": "cyan", "queued": "cyan"}

#: Characters of an answer that are shown.
SHOWN = 60


def runs(rows: Iterable[Mapping[str, Any]]) -> Table:
    table = _table("run", "status", "began", "took")
    for row in rows:
        began = datetime.fromtimestamp(row["created"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        took = "" if row["ended"] is None else f"{row['ended'] - row['created']:.1f} s"
        table.add_row(_plain(row["id"]), _status(row["status"]), began, took)
    return table


def run(found: Mapping[str, Any]) -> Iterator[Table | Text]:
    """A head, its calls, its outputs and errors."""
    usage = found["usage"]
    head = Text.assemble(_plain(found["id"]), "  ", _status(found["status"]))
    tokens = f"{usage['prompt_tokens']} prompt, {usage['completion_tokens']} completion tokens"
    cost = "" if not usage["cost"] else f", a cost of {usage['cost']:g}"
    yield head.append(f"  {usage['calls']} calls, {tokens}{cost}")
    if found["calls"]:
        table = _table("call", "tokens", "took", "answer")
        for name, call in found["calls"].items():
            table.add_row(_plain(name), *_call(call))
        yield table
    for name, value in found["outputs"].items():
        yield Text.assemble((printable(name), "bold"), " = ", _beginning(value, 1000))
    for name, error in found["errors"].items():
        yield Text.assemble((printable(name), "bold red"), ": ", _plain(f"{error['code']}: {error['message']}"))


def _call(call: Mapping[str, Any]) -> tuple[str, str, Text]:
    if "response" not in call:
        return "", "", Text(printable(call["body"]["error"]["message"])[:SHOWN], style="red")
    choice, times = call["response"]["choices"][0], call["timings"]
    answer = choice["message"]["content"] if "message" in choice else choice["text"]
    seconds = times["queued"] + times["prefill"] + times["decode"]
    tokens = str(call["response"]["usage"]["completion_tokens"])
    return tokens, f"{seconds:.2f} s", _beginning(answer or "", SHOWN)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in ("took", "tokens") else "left", overflow="fold")
    return table


def _status(status: str) -> Text:
    return Text(printable(status), style=STYLES.get(status, ""))


def _plain(text: str) -> Text:
    return Text(printable(text))


def _beginning(value: Any, most: int) -> Text:
    text = value if isinstance(value, str) else str(value)
    return Text(printable(text[:most]) + ("…" if len(text) > most else ""))
