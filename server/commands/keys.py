"""`parrot keys`: its commands and their flags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semantic_parrot.server.commands.configured import read

app = typer.Typer(no_args_is_help=True, help="API keys: who may use the server. A server that runs notices at once.")

DataDir = Annotated[
    Path | None,
    typer.Option(envvar="PARROT_SERVE_DATA_DIR", help="The server's; ~/.local/share/parrot, or what --config says."),
]
ConfigFile = Annotated[Path | None, typer.Option(envvar="PARROT_SERVE_CONFIG", help="The file that the server reads.")]


def _data(data_dir: Path | None, config: Path | None) -> Path:
    from semantic_parrot.server.options import merge

    return merge(read(config), {"data_dir": data_dir and str(data_dir)}, set(), set()).data


@app.command("add")
def keys_add(
    tenant: Annotated[str, typer.Argument(metavar="NAME", help="The tenant; it may have several keys.")],
    operator: Annotated[
        bool, typer.Option("--operator", help="A key for /metrics and the engines' page, and no tenant's.")
    ] = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Make a key and print it, this once: what is kept is its hash."""
    from semantic_parrot.server.tenants import command

    raise typer.Exit(command.add(_data(data_dir, config), tenant, operator=operator))


@app.command("ls")
def keys_ls(
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """List the keys, by their ids."""
    from semantic_parrot.server.tenants import command

    raise typer.Exit(command.ls(_data(data_dir, config), as_json=json))


@app.command("revoke")
def keys_revoke(
    name: Annotated[str, typer.Argument(help="The id of a key, or a tenant: all of its keys.")],
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Let a key open nothing any more."""
    from semantic_parrot.server.tenants import command

    raise typer.Exit(command.revoke(_data(data_dir, config), name))
