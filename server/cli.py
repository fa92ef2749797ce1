"""The command line. What a command needs is imported when it runs, so that --help answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(name="parrot", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def root() -> None:
    """Parrot serves LLM applications: programs of calls joined by Semantic Variables."""


@app.command()
def serve(
    model: Annotated[str | None, typer.Option(help="Model directory; the built-in demo model if left out.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    engines: Annotated[int, typer.Option(min=1, help="Engine processes.")] = 1,
    deterministic: Annotated[bool, typer.Option("--deterministic", help="Logits independent of the batch.")] = False,
    kv_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of KV cache in each engine.")] = None,
    prefix_cache: Annotated[bool, typer.Option(help="Share the KV of common prefixes.")] = True,
    prefill_ahead: Annotated[
        bool, typer.Option(help="Fill prompts that wait for a variable as far as they are known.")
    ] = True,
    dev: Annotated[bool, typer.Option("--dev", help="Serve POST /reset_prefix_cache, for measurements.")] = False,
    announce: Annotated[bool, typer.Option("--announce", help="Print one JSON line on stdout when ready.")] = False,
    exit_with_parent: Annotated[
        bool, typer.Option("--exit-with-parent", help="Stop when standard input ends.")
    ] = False,
) -> None:
    """Serve a model: programs on /v1/runs, OpenAI's routes beside it."""
    from semantic_parrot.server.serve import ServeOptions
    from semantic_parrot.server.serve import serve as run

    options = ServeOptions(
        model=model,
        host=host,
        port=port,
        engines=engines,
        deterministic=deterministic,
        kv_tokens=kv_tokens,
        prefix_cache=prefix_cache,
        prefill_ahead=prefill_ahead,
        dev=dev,
        announce=announce,
        exit_with_parent=exit_with_parent,
    )
    raise typer.Exit(run(options))


@app.command()
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


def main() -> None:
    app()


if __name__ == "__main__":
    main()
