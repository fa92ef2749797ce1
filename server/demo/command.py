"""`parrot demo`: a map-reduce and a chain over a text, eager and lowered, against one server that it starts itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import openai
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from semantic_parrot.adapters.embedded import EmbeddedOptions, EmbeddedServer
from semantic_parrot.adapters.langchain import ChatParrot
from semantic_parrot.core.demo_model import world
from semantic_parrot.core.errors import ParrotError
from semantic_parrot.examples import harbour_log
from semantic_parrot.server.demo import report
from semantic_parrot.server.demo.delay import delayed
from semantic_parrot.server.demo.measure import WAYS, Comparison, Server, Workload, compare, run_once


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The flags of `parrot demo`. `file` None: a day of the demo model's world. `rtt` in milliseconds."""

    file: Path | None = None
    model: str | None = None
    rtt: float = 0.0
    repeats: int = 3
    max_tokens: int = 200
    as_json: bool = False
    report: Path = Path("report.html")


class DemoError(Exception):
    """The demo can't go on. The message is one line for the user."""


def _text(file: Path | None) -> str:
    if file is None:
        return world.day(seed=7, n=12)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DemoError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from None
    if not text.strip():
        raise DemoError(f"{file} is empty")
    return text


def workloads(llm: ChatParrot, entries: list[str]) -> list[Workload]:
    count = len(entries)
    reduce = harbour_log.map_reduce(llm)
    refine = harbour_log.refine(llm, count)
    return [
        Workload("map_reduce", f"Map-reduce over {count} entries", reduce, {"entries": entries}),
        Workload("chain", f"Chain of {count} steps", refine, harbour_log.refine_input(entries)),
    ]


def measure(options: DemoOptions, advance: Callable[[str], None]) -> list[Comparison]:
    """Start the server, run everything. `advance` is told what was done. Raises DemoError."""
    entries = harbour_log.split(_text(options.file))
    try:
        server = EmbeddedServer(EmbeddedOptions(options.model, flags=("--deterministic", "--dev")))
    except ParrotError as error:
        raise DemoError(error.message.rpartition("parrot: ")[2]) from None  # the server's own line, if it had one
    counters = Server(server.url.removesuffix("/v1"))
    rtt = options.rtt / 1000
    try:
        advance("server")
        with delayed(server.url, rtt) as url:
            llm = ChatParrot(base_url=url, temperature=0, max_tokens=options.max_tokens)
            works = workloads(llm, entries)
            for way in WAYS:  # connections, imports, caches of the framework: not what is measured
                run_once(works[0], way, counters, rtt)
            advance("warm-up")
            return [compare(work, counters, rtt, options.repeats, partial(advance, work.title)) for work in works]
    except openai.APIStatusError as error:
        raise DemoError(error.message) from None
    finally:
        counters.close()
        server.close()


def steps(options: DemoOptions) -> int:
    """How often `measure` advances."""
    return 2 + 2 * len(WAYS) * options.repeats


@contextmanager
def _progress(options: DemoOptions) -> Any:
    columns = (TextColumn("{task.description:32}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=options.as_json) as progress:
        task = progress.add_task("starting a server", total=steps(options))

        def advance(done: str) -> None:
            progress.update(task, advance=1, description={"server": "warming up"}.get(done, done))

        yield advance


def as_json(comparisons: list[Comparison]) -> dict[str, Any]:
    """Sums over the workloads, and each workload by itself."""

    def sides(found: list[Comparison]) -> dict[str, Any]:
        both = {way: [getattr(c, way) for c in found] for way in WAYS}
        return {
            "same_text": all(c.same_text for c in found),
            **{
                way: {
                    "seconds": round(sum(side.seconds for side in each), 4),
                    "round_trips": sum(side.round_trips for side in each),
                    "prompt_tokens_computed": sum(side.computed for side in each),
                    "prompt_tokens_reused": sum(side.reused for side in each),
                }
                for way, each in both.items()
            },
        }

    return {**sides(comparisons), "workloads": {c.key: sides([c]) for c in comparisons}}


def _tree(c: Comparison) -> Tree:
    """The program, from what it ends in back to what that reads; a call read twice is shown once."""
    shown: set[str] = set()
    root = Tree(f"[bold]{c.title}[/], as the server gets it in one request")

    def add(parent: Tree, name: str) -> None:
        prompt = c.prompts[name].replace("\n", " ")
        node = parent.add(Text.assemble((name, "green"), ("  " + prompt, "dim"), no_wrap=True, overflow="ellipsis"))
        if name not in shown:
            shown.add(name)
            for source in c.reads[name]:
                add(node, source)

    for name in set(c.reads).difference(*c.reads.values()):
        add(root, name)
    return root


def _show(comparisons: list[Comparison], options: DemoOptions) -> None:
    console = Console()
    for c in comparisons:
        console.print()
        console.print(_tree(c))
    table = Table(title=f"\nMedian of {options.repeats}, network round trip {options.rtt:g} ms", title_justify="left")
    table.add_column("")
    table.add_column("")
    for column in ("time", "round\ntrips", "prompt tokens\ncomputed", "\nreused", "speed-up"):
        table.add_column(column, justify="right")
    for c in comparisons:
        for way in WAYS:
            side = getattr(c, way)
            row = [f"{side.seconds:.3f} s", str(side.round_trips), str(side.computed), str(side.reused)]
            ratio = "" if way == "eager" else f"{c.eager.seconds / c.lowered.seconds:.2f} ×"
            table.add_row(c.title if way == "eager" else "", way, *row, ratio, end_section=way == "lowered")
    console.print(table)
    for c in comparisons:
        same = "[green]same text both ways[/]" if c.same_text else "[red]the texts differ[/]"
        console.print(f"{c.title}: {same}\n  {c.lowered.text}")
    console.print(f"\nThe DAG and a timeline of both: {options.report.resolve()}", soft_wrap=True)
    if not options.rtt:
        console.print("A client is seldom on the server's own machine: try --rtt 250")


def demo(options: DemoOptions) -> int:
    """Run the demo; the process's exit code: 0, 1 if a text differed, 2 if it could not run."""
    try:
        with _progress(options) as advance:
            comparisons = measure(options, advance)
        model = "parrot-demo" if options.model is None else Path(options.model).name
        report.write(options.report, comparisons, model=model, rtt_ms=options.rtt, repeats=options.repeats)
    except DemoError as error:
        print(f"parrot: {error}", file=sys.stderr)
        return 2
    if options.as_json:
        print(json.dumps(as_json(comparisons)))
    else:
        _show(comparisons, options)
    return 0 if all(c.same_text for c in comparisons) else 1
