"""How long functions take, in turns: on a GPU by its own clock, on a CPU by the thread's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

Run = Callable[[], object]


def medians(functions: Sequence[Run], device: torch.device, repeats: int) -> list[float]:
    """Median seconds of each, after two rounds that do not count. On a CPU: of one thread, whoever else runs."""
    took: list[list[float]] = [[] for _ in functions]
    for repeat in range(repeats + 2):
        for function, own in zip(functions, took, strict=True):
            seconds = _on_gpu(function) if device.type == "cuda" else _on_cpu(function)
            if repeat >= 2:
                own.append(seconds)
    return [statistics.median(own) for own in took]


def _on_cpu(function: Run) -> float:
    begun = time.thread_time()
    function()
    return time.thread_time() - begun


def _on_gpu(function: Run) -> float:
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    # Enough ahead of it that launches are not what is measured.
    torch.cuda._sleep(2_000_000)
    first.record()
    function()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3


def copy_bandwidth(device: torch.device, repeats: int) -> float:
    """Bytes read and written a second, of a large copy."""
    size = (1 << 30) if device.type == "cuda" else (1 << 26)
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    (took,) = medians([lambda: target.copy_(source)], device, repeats)
    return 2 * size / took
