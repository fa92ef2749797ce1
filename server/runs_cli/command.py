"""`parrot runs`: the runs that a server knows. Each command gives the process's exit code: 2, with one line on standard
error, for what can't be done."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from rich.console import Console

from semantic_parrot.server.explain.terminal import printable
from semantic_parrot.server.runs_cli import tables
from semantic_parrot.server.runs_cli.client import Refused, Server

Form = Literal["json", "events", "perfetto"]

#: Columns where standard output is no terminal.
COLUMNS = 120


def ls(server: Server, most: int, *, as_json: bool) -> int:
    def work() -> None:
        rows = server.listing(most)
        if as_json:
            print(json.dumps(rows))
        else:
            _console().print(tables.runs(rows))

    return _done(work)


def show(server: Server, run: str, *, as_json: bool) -> int:
    def work() -> None:
        found = server.run(run)
        if as_json:
            print(json.dumps(found))
        else:
            for part in tables.run(found):
                _console().print(part, soft_wrap=isinstance(part, str))

    return _done(work)


def cancel(server: Server, run: str) -> int:
    def work() -> None:
        print(printable(f"{run} {server.cancel(run)['status']}"))

    return _done(work)


def export(server: Server, run: str, form: Form, out: Path | None) -> int:
    """`out` None: to standard output."""
    forms: dict[Form, Callable[[], str]] = {
        "json": lambda: json.dumps(server.run(run)) + "\n",
        "events": lambda: "".join(f"{event}\n" for event in server.events(run)),
        "perfetto": lambda: json.dumps(server.trace(run)) + "\n",
    }

    def work() -> None:
        text = forms[form]()
        if out is None:
            sys.stdout.write(text)
            return
        try:
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            raise Refused(f"{out}: {error.strerror or error}") from None
        print(f"wrote {out}", file=sys.stderr)

    return _done(work)


def _console() -> Console:
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else COLUMNS)


def _done(work: Callable[[], None]) -> int:
    try:
        with suppress(BrokenPipeError):  # whoever reads has read enough
            work()
    except Refused as error:
        print(f"parrot: {printable(str(error))}", file=sys.stderr)
        return 2
    return 0
