"""The command line. What a command needs is imported when it runs, so that --help answers at once."""

from __future__ import annotations

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
        announce=announce,
        exit_with_parent=exit_with_parent,
    )
    raise typer.Exit(run(options))


def main() -> None:
    app()


if __name__ == "__main__":
    main()
