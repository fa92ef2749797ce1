"""How much memory the KV cache may take."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_SHARE = 0.25  # of a machine's free memory, which other processes need too
_GPU_SHARE = 0.8
_CAP = 2 << 30


def kv_budget(device: torch.device) -> int:
    """Bytes for keys and values."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * _GPU_SHARE)
    return min(int(free_memory() * _SHARE), _CAP)


def free_memory() -> int:
    """Bytes that could be had without swapping, on the machine and in our control group."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    try:
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return free if limit == "max" else max(min(free, int(limit) - int(used)), 0)
    except OSError:
        return free
