"""`parrot runs`: its commands and their flags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(no_args_is_help=True, help="The runs that a server knows.")

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The id of a run.")]
Url = Annotated[str, typer.Option(envvar="PARROT_URL", help="The server.")]
ApiKey = Annotated[str | None, typer.Option(envvar="PARROT_API_KEY", help="If the server asks for one.")]
LOCAL = "http://127.0.0.1:8765"


@app.command("ls")
def runs_ls(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The so many newest.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    url: Url = LOCAL,
    api_key: ApiKey = None,
) -> None:
    """List runs, the newest last."""
    from semantic_parrot.server.runs_cli import client, command

    raise typer.Exit(command.ls(client.Server(url, api_key), limit, as_json=json))


@app.command("show")
def runs_show(
    run: RunId,
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    url: Url = LOCAL,
    api_key: ApiKey = None,
) -> None:
    """Show what a run has come to."""
    from semantic_parrot.server.runs_cli import client, command

    raise typer.Exit(command.show(client.Server(url, api_key), run, as_json=json))


@app.command("cancel")
def runs_cancel(run: RunId, url: Url = LOCAL, api_key: ApiKey = None) -> None:
    """Cancel what is left of a run."""
    from semantic_parrot.server.runs_cli import client, command

    raise typer.Exit(command.cancel(client.Server(url, api_key), run))


@app.command("export")
def runs_export(
    run: RunId,
    form: Annotated[
        Literal["json", "events", "perfetto"],
        typer.Option("--format", help="Its result, its events (JSON lines, to its end), or a trace for Perfetto."),
    ] = "json",
    out: Annotated[Path | None, typer.Option(help="A file; standard output if left out.")] = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
) -> None:
    """Write down a run."""
    from semantic_parrot.server.runs_cli import client, command

    raise typer.Exit(command.export(client.Server(url, api_key), run, form, out))
