"""How many threads an engine's process computes with, where nobody says."""

from __future__ import annotations

import os

#: So many cores are all used. The server's process takes some 2 ms of a core for each step of eight sequences, which an
#: engine that uses every core waits for; one that leaves a core free is without it all the time. On two cores all are
#: 1.5, 1.3 and 1.4 times as fast at 1, 8 and 32 sequences; from some five on, one core less is the smaller loss.
_ALL = 4


def default_threads(engines: int = 1) -> int:
    """For each of `engines` on this machine: as OMP_NUM_THREADS says, or by the cores that this process may use."""
    said = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if said.isdecimal() and int(said) > 0:
        return int(said)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, (cores if cores <= _ALL else cores - 1) // engines)
