"""What this machine can do at most, measured in the same run."""

from __future__ import annotations

import time

import torch


def memory_bandwidth(threads: int, *, mib: int = 768, tries: int = 9) -> float:
    """Bytes a second read from memory: the best of sums and maxima over arrays that no cache holds. Which of them waits
    for the memory only depends on the machine."""
    torch.set_num_threads(threads)
    floats, integers = torch.ones(mib * 2**20 // 4), torch.ones(mib * 2**20 // 8, dtype=torch.int64)
    best = 0.0
    with torch.inference_mode():
        for _ in range(tries):
            for read in (floats.sum, floats.amax, integers.sum):
                begun = time.perf_counter()
                read()
                best = max(best, floats.nbytes / (time.perf_counter() - begun))
    return best
