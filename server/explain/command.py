"""`parrot explain`: a run of a server, the plan of a program in a file, or the lowering of a chain; which of them, its
form tells."""

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
from rich.text import Text

from semantic_parrot.adapters.explanation.tree import STYLES
from semantic_parrot.core.errors import ParrotError
from semantic_parrot.core.plan import plan
from semantic_parrot.core.program import parse_program
from semantic_parrot.server.body import parse_json
from semantic_parrot.server.explain.chain import Refused, explain_chain
from semantic_parrot.server.explain.mermaid import mermaid
from semantic_parrot.server.explain.page import page
from semantic_parrot.server.explain.plan_text import lines
from semantic_parrot.server.explain.terminal import printable, show

#: Columns where standard output is no terminal.
COLUMNS = 120

#: What the id of a run begins with, and those of calls that came alone.
IDS = ("run_", "chatcmpl-", "cmpl-", "resp_")

_CHAIN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class ExplainOptions:
    """The command's arguments. `what` None: the latest run. `input`: of a chain, as JSON."""

    what: str | None = None
    input: str | None = None
    url: str = "http://127.0.0.1:8765"
    as_json: bool = False
    as_mermaid: bool = False
    html: Path | None = None


def explain(options: ExplainOptions) -> int:
    """The process's exit code; 2 with one line on standard error for what can't be explained."""
    what = options.what
    try:
        if options.as_json + options.as_mermaid + (options.html is not None) > 1:
            raise Refused("give one of --json, --mermaid and --html")
        chain = what is not None and _CHAIN.fullmatch(what) is not None and not Path(what).exists()
        if options.input is not None and not chain:
            raise Refused("--input is for a chain, module:name")
        if what is None or what.startswith(IDS):
            _explain_run(options, "latest" if what is None else what)
        elif chain:
            _explain_chain(options, what)
        else:
            _explain_program(options, Path(what))
    except Refused as error:
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


def _explain_chain(options: ExplainOptions, name: str) -> None:
    if options.as_json:
        raise Refused("--json is for runs and programs; a chain has --mermaid and --html")
    found = explain_chain(name, "{}" if options.input is None else options.input)
    if options.html is not None:
        _write(options.html, found.to_html())
    elif options.as_mermaid:
        print(found.to_mermaid())
    else:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else COLUMNS)
        for kind, line in found.lines():
            console.print(Text(printable(line), style=STYLES[kind]), soft_wrap=True)


def _explain_program(options: ExplainOptions, path: Path) -> None:
    if options.html is not None:
        raise Refused("--html shows a run; a program has no times yet: use --mermaid for its graph")
    try:
        body = parse_json(path.read_bytes())
    except OSError as error:
        raise Refused(f"{path}: {error.strerror or error}") from None
    except ParrotError as error:
        raise Refused(f"{path}: {error.message.replace('the body', 'it')}") from None
    if not isinstance(body, dict):
        raise Refused(f"{path}: a program is a JSON object")
    try:
        found = plan(parse_program(body))
    except ParrotError as error:
        raise Refused(f"{path}: {error.message}") from None
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
        raise Refused(f"{url}: {error}") from None
    except httpx.HTTPError as error:
        raise Refused(f"{url}: {str(error) or type(error).__name__}") from None
    except ValueError:
        raise Refused(f"{url}: no JSON, so this is no Parrot server") from None
    if response.status_code != 200:
        fault = body.get("error") if isinstance(body, dict) else None
        message = fault.get("message") if isinstance(fault, dict) else None
        raise Refused(f"{url}: {message or response.status_code}")
    if not isinstance(body, dict) or "critical_path" not in body:
        raise Refused(f"{url}: not the report of a run")
    return body


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Refused(f"{path}: {error.strerror or error}") from None
    print(f"wrote {path}", file=sys.stderr)
