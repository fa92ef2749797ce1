"""The configuration that several commands read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from semantic_parrot.core.config import Config


def read(config: Path | None) -> Config:
    """The configuration file, if there is one; its first mistake ends the command."""
    from semantic_parrot.core.config import Config, ConfigError, read_config

    try:
        return Config() if config is None else read_config(config)
    except ConfigError as error:
        typer.echo(f"parrot: {error}", err=True)
        raise typer.Exit(2) from None
