"""What a result file says of where it was measured."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

PACKAGES = ("torch", "transformers", "triton")


def about(packages: Sequence[str] = PACKAGES) -> dict[str, str | int]:
    """Date, commit (`+` behind it: with changes that are not in it), processor, cores and versions."""
    here = Path(__file__).parent
    commit = _git(here, "rev-parse", "--short", "HEAD")
    changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", "..", ":!results")
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "commit": commit + ("+" if changed else ""),
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
        **{name: version for name in packages if (version := _version(name))},
    }


def _git(where: Path, *command: str) -> str:
    found = subprocess.run(("git", "-C", str(where), *command), capture_output=True, text=True, check=False)
    return found.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """Name, family and model: some clouds' names ("AMD EPYC") say nothing of the generation."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    first = info.read_text().partition("\n\n")[0]
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    numbers = [f"{what} {said[what]}" for what in ("cpu family", "model") if what in said]
    return ", ".join((said.get("model name", platform.machine()), *numbers))
