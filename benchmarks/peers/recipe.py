"""How a peer is set up: commands, each with what it makes, so that a second call does only what is missing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


class Failed(Exception):
    """A step did not do what it should. The message is for the user."""


@dataclass(frozen=True, slots=True)
class Step:
    """`what`: said before it runs. `done`: whether it need not be run. `after`: what comes once it has run."""

    what: str
    argv: Sequence[str | Path]
    where: Path
    done: Callable[[], bool] = lambda: False
    after: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Recipe:
    """`version`: of what is installed; another one is installed anew. `steps`: for the peer's folder."""

    version: str
    steps: Callable[[Path], Sequence[Step]]


def python(folder: Path) -> Path:
    """Of the environment that `environment` makes."""
    return folder / "venv" / "bin" / "python"


def environment(folder: Path) -> Step:
    made = python(folder)
    return Step("making an environment", [sys.executable, "-m", "venv", folder / "venv"], folder, done=made.exists)


def without(folder: Path, *packages: str, after: Callable[[], None] = lambda: None) -> Step:
    """For what comes along and can't be loaded beside torch for CPUs."""
    command = [python(folder), "-m", "pip", "uninstall", "--quiet", "--yes", *packages]
    return Step(f"removing {', '.join(packages)} (for CUDA)", command, folder, after=after)


def pip(folder: Path, what: str, *packages: str) -> Step:
    """`what`: how large, how long."""
    command = [python(folder), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    return Step(f"installing {packages[0]} ({what})", command, folder)
