"""`parrot explain`: a run of a server, or the plan of a program in a file; which of them, its form tells."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from rich.console import Console

from semantic_parrot.core.errors import ParrotError
from semantic_parrot.core.plan import plan
from semantic_parrot.core.program import parse_program
from semantic_parrot.server.body import parse_json
from semantic_parrot.server.explain.mermaid import mermaid
from semantic_parrot.server.explain.page import page
from semantic_parrot.server.explain.plan_text import lines
from semantic_parrot.server.explain.terminal import printable, show

#: Columns where standard output is no terminal.
COLUMNS = 120

_CHAIN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class ExplainOptions:
    """The command's arguments. `what` None: the latest run."""

    what: str | None = None
    url: str = "http://127.0.0.1:8765"
    as_json: bool = False
    as_mermaid: bool = False
    html: Path | None = None


class _Refused(Exception):
    """One line for the user."""


def explain(options: ExplainOptions) -> int:
    """The process's exit code; 2 with one line on standard error for what can't be explained."""
    what = options.what
    try:
        if options.as_json + options.as_mermaid + (options.html is not None) > 1:
            raise _Refused("give one of --json, --mermaid and --html")
        if what is None or what.startswith("run_"):
            _explain_run(options, "latest" if what is None else what)
        elif _CHAIN.fullmatch(what) and not Path(what).exists():
            raise _Refused(
                f"{what} looks like a chain; its lowering is explained by"
                " semantic_parrot.adapters.langchain.explain(chain, input)"
            )
        else:
            _explain_program(options, Path(what))
    except _Refused as error:
        print(f"parrot: {printable(str(error))}", file=sys.stderr)
        return 2
    return 0


def _explain_run(options: ExplainOptions, run: str) -> None:
    base = options.url.rstrip("/").removesuffix("/v1")
    report = _fetch(f"{base}/v1/runs/{quote(run, safe='')}/report")
    if options.html is not None:
        _write(options.html, page(report))
        return
    if _printed(options, report):
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else COLUMNS)
    show(report, console)


def _explain_program(options: ExplainOptions, path: Path) -> None:
    if options.html is not None:
        raise _Refused("--html shows a run; a program has no times yet: use --mermaid for its graph")
    try:
        body = parse_json(path.read_bytes())
    except OSError as error:
        raise _Refused(f"{path}: {error.strerror or error}") from None
    except ParrotError as error:
        raise _Refused(f"{path}: {error.message.replace('the body', 'it')}") from None
    if not isinstance(body, dict):
        raise _Refused(f"{path}: a program is a JSON object")
    try:
        found = plan(parse_program(body))
    except ParrotError as error:
        raise _Refused(f"{path}: {error.message}") from None
    if not _printed(options, found):
        for line in lines(found):
            print(printable(line))


def _printed(options: ExplainOptions, report: dict[str, Any]) -> bool:
    """Whether it was for a machine, and is there."""
    if options.as_json:
        print(json.dumps(report))
    elif options.as_mermaid:
        print(mermaid(report))
    return options.as_json or options.as_mermaid


def _fetch(url: str) -> dict[str, Any]:
    try:
        response = httpx.get(url, headers={"Accept": "application/json"}, timeout=30)
        body = response.json()
    except httpx.InvalidURL as error:
        raise _Refused(f"{url}: {error}") from None
    except httpx.HTTPError as error:
        raise _Refused(f"{url}: {error or type(error).__name__}") from None
    except ValueError:
        raise _Refused(f"{url}: no JSON, so this is no Parrot server") from None
    if response.status_code != 200:
        fault = body.get("error") if isinstance(body, dict) else None
        message = fault.get("message") if isinstance(fault, dict) else None
        raise _Refused(f"{url}: {message or response.status_code}")
    if not isinstance(body, dict) or "critical_path" not in body:
        raise _Refused(f"{url}: not the report of a run")
    return body


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _Refused(f"{path}: {error.strerror or error}") from None
    print(f"wrote {path}", file=sys.stderr)
