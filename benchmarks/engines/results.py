"""What was measured, kept on disk as it comes: an interrupted run loses what was under way and nothing else."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from about import about


def machine(threads: int) -> dict[str, Any]:
    """What about() says, and what figures depend on besides: instructions, threads, memory, what else ran."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text().partition("flags")[2].partition("\n")[0].split() if info.exists() else []
    return {
        **about(),
        "threads": threads,
        "instructions": [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_at_start": os.getloadavg()[0],
    }


class Results:
    """`data` is what is written. `path` None: nowhere."""

    def __init__(self, path: Path | None, **about: Any) -> None:
        self._path = path
        self.data: dict[str, Any] = {
            "finished": False,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **about,
            "versions": {},  # of each engine
            "checks": {},  # engine → what its text was
            "failures": [],
            "runs": [],
        }

    def run(self, dtype: str, engine: str, work: str, repeat: int, value: float, seconds: float) -> None:
        row = {"dtype": dtype, "engine": engine, "workload": work, "repeat": repeat}
        self.data["runs"].append({**row, "value": value, "seconds": seconds})
        self.save()

    def failure(self, dtype: str, engine: str, work: str | None, why: str) -> None:
        """`work` None: the engine as a whole."""
        row = {"dtype": dtype, "engine": engine, "workload": work, "why": why}
        self.data["failures"].append(row)
        self.save()

    def save(self) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self._path.with_name(self._path.name + ".part")
            unfinished.write_text(json.dumps(self.data, indent=1) + "\n")
            unfinished.replace(self._path)
