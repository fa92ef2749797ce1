"""A compiled library of the kernels in C (`kernels/c/`), for this processor, by the compiler that the machine has.

Compiling takes a second; the result stands in the user's cache directory, by a name that says from what, with what and
for what it was made.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).parent / "c"
COMPILERS: Final = ("cc", "gcc", "clang")
#: What is no number has to stay none, so nothing that assumes finite numbers; `simd`: sums that say so, in any order.
FLAGS: Final = ("-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")


class NotCompiled(Exception):
    """There are no kernels in C here; the message says why."""


def library(cache: Path | None, compilers: Sequence[str]) -> Path:
    """Where it stands; compiled, if `cache` (the user's cache directory) does not have it yet. Raises NotCompiled, and
    OSError where the cache can't be used."""
    if (compiler := next(filter(None, map(shutil.which, compilers)), None)) is None:
        raise NotCompiled(f"there is no C compiler ({', '.join(compilers)})")
    sources = sorted(SOURCES.glob("*.[ch]"))
    made_of = hashlib.sha256()
    for part in (compiler, *FLAGS, _processor(), *(source.read_text() for source in sources)):
        made_of.update(part.encode() + b"\0")
    folder = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parrot" / "kernels"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder / f"{made_of.hexdigest()[:24]}.so"
    if not (found.exists() and found.stat().st_uid == os.getuid()):
        _compile(compiler, [str(source) for source in sources if source.suffix == ".c"], found)
    return found


def _compile(compiler: str, sources: Sequence[str], library: Path) -> None:
    """Raises NotCompiled."""
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / library.name  # whole before it has its name: others may be looking for it
        command = [compiler, *FLAGS, *sources, "-o", str(made), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise NotCompiled(f"{compiler} fails: {' '.join(done.stderr.split())[:300]}")
        made.replace(library)


def _processor() -> str:
    """What -march=native goes by."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.platform() + platform.processor()
    return platform.machine() + "".join(
        sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    )
