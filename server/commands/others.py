"""The commands beside a server: doctor, demo, explain, simulate, bench; their flags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semantic_parrot.server.commands.configured import read


def doctor(
    config: Annotated[Path | None, typer.Option(help="The file that the server is to read.")] = None,
    model: Annotated[str | None, typer.Option(help="Model directory; the built-in demo model if left out.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="8765.")] = None,
    host: Annotated[str | None, typer.Option(help="127.0.0.1.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Look at the packages, the machine, the model and the address, and say what to do about what is missing."""
    from semantic_parrot.server.doctor.command import doctor as run
    from semantic_parrot.server.options import merge

    raise typer.Exit(run(merge(read(config), {"model": model, "port": port, "host": host}, set(), set()), as_json=json))


def demo(
    file: Annotated[Path | None, typer.Argument(help="A text; a day of the demo model's world if left out.")] = None,
    model: Annotated[str | None, typer.Option(help="Model directory; the built-in demo model if left out.")] = None,
    rtt: Annotated[float, typer.Option(min=0, help="Network round trip to put in between, in milliseconds.")] = 0.0,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each way; the median is shown.")] = 3,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer at most.")] = 200,
    report: Annotated[Path, typer.Option(help="Where the HTML report goes.")] = Path("report.html"),
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON and nothing else.")] = False,
) -> None:
    """Run a LangChain map-reduce and a chain over a text, eagerly and lowered, and show what each took."""
    try:
        from semantic_parrot.server.demo.command import DemoOptions
        from semantic_parrot.server.demo.command import demo as run
    except ModuleNotFoundError as error:
        typer.echo(f"parrot: the demo needs {error.name}: pip install 'semantic-parrot[all]'", err=True)
        raise typer.Exit(2) from None

    options = DemoOptions(
        file=file, model=model, rtt=rtt, repeats=repeats, max_tokens=max_tokens, report=report, as_json=json
    )
    raise typer.Exit(run(options))


def explain(
    what: Annotated[
        str | None,
        typer.Argument(
            help="A run's id, a file with a program, or a LangChain chain as module:name; else the latest run."
        ),
    ] = None,
    input: Annotated[str | None, typer.Option("--input", help="What the chain is given, as JSON; {}.")] = None,
    url: Annotated[str, typer.Option(help="The server that knows the run.")] = "http://127.0.0.1:8765",
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print the graph as a Mermaid flowchart.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write the report of a run, or of a chain, to this file.")] = None,
) -> None:
    """Say what a run did and why, what the server would make of a program, or what planning makes of a chain."""
    from semantic_parrot.server.explain.command import ExplainOptions
    from semantic_parrot.server.explain.command import explain as run

    raise typer.Exit(run(ExplainOptions(what=what, input=input, url=url, as_json=json, as_mermaid=mermaid, html=html)))


def simulate(
    workload: Annotated[str, typer.Option(help="W1 to W7, tenants, or a file of programs (JSON lines).")] = "W2",
    engines: Annotated[int, typer.Option(min=1, help="Modelled engines.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the generated workload.")] = 0,
    calls: Annotated[int, typer.Option(min=1, help="Calls that arrive, at least; their programs are finished.")] = 1000,
    rate: Annotated[float, typer.Option(min=1e-6, help="Arrivals, as a multiple of the workload's own.")] = 1.0,
    load: Annotated[float | None, typer.Option(min=1e-6, help="Or as a part of what the engines can do.")] = None,
    costs: Annotated[str, typer.Option(help="What engines take: default, gpu, cpu, or a JSON file.")] = "default",
    cache: Annotated[int | None, typer.Option(min=0, help="Prompt tokens that stay in an engine after use.")] = None,
    tpot: Annotated[float | None, typer.Option(min=0, help="Milliseconds per token that latency calls keep.")] = None,
    disable: Annotated[list[str] | None, typer.Option(help="An optimisation to do without; may be repeated.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON and nothing else.")] = False,
) -> None:
    """Run the analysis and the scheduler against modelled engines, on a virtual clock."""
    from semantic_parrot.core.simulator import simulate as run
    from semantic_parrot.core.simulator.report import as_text

    try:
        found = run(
            workload,
            engines=engines,
            seed=seed,
            calls=calls,
            rate=rate,
            at_load=load,
            costs=costs,
            cache=cache,
            tpot=None if tpot is None else tpot / 1e3,
            disable=frozenset(disable or ()),
        )
    except ValueError as error:
        typer.echo(f"parrot: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(as_text(found, machine=json))


def bench(context: typer.Context) -> None:
    """Run the project's workloads beside other servers (`parrot bench --help`); in a checkout of the repository."""
    import os
    import sys

    # Not in the wheel: they are a user's to read and to change, and need what a server does not.
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "bench.py"
    if not script.exists():
        typer.echo(
            "parrot: the benchmarks are in the repository: clone it, `make setup`, .venv/bin/parrot bench", err=True
        )
        raise typer.Exit(2)
    os.execv(sys.executable, [sys.executable, str(script), *context.args])
