"""What this machine can do at most, measured in the same run."""

from __future__ import annotations

import time

import torch


def memory_bandwidth(threads: int, *, mib: int = 768, tries: int = 9) -> float:
    """Bytes a second read from memory: the best of sums and of matrix-vector products over an array that no cache
    holds."""
    torch.set_num_threads(threads)
    rows = mib * 2**20 // 4 // 4096
    matrix, vector = torch.ones(rows, 4096), torch.ones(4096)
    flat, size = matrix.view(-1), matrix.numel() * 4
    best = 0.0
    with torch.inference_mode():
        for _ in range(tries):
            for read in (flat.sum, lambda: torch.mv(matrix, vector)):
                begun = time.perf_counter()
                read()
                best = max(best, size / (time.perf_counter() - begun))
    return best
