"""How much memory the KV cache may take, and how much of a disk its second tier."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

_SHARE = 0.25  # of a machine's free memory, which other processes need too
_GPU_SHARE = 0.8
_CAP = 2 << 30
_DISK_SHARE = 0.1


def kv_budget(device: torch.device) -> int:
    """Bytes for keys and values."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * _GPU_SHARE)
    return min(int(free_memory() * _SHARE), _CAP)


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that could be had without swapping, on the machine and in each of the control groups that we are in."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return max(min([free, *_left_in_groups(root)]), 0)


def offload_budget(directory: Path, root: Path = Path("/")) -> int:
    """Bytes for evicted keys and values in a file there: a share of what is free; 0 if its files stand in memory."""
    if _kind(directory.resolve(), root) in ("tmpfs", "ramfs"):
        return 0
    return int(shutil.disk_usage(directory).free * _DISK_SHARE)


def _kind(directory: Path, root: Path) -> str:
    """Of the file system that `directory` is in; "" if that isn't known."""
    try:
        mounts = [line.split() for line in (root / "proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    # Of several at one place, the last one counts.
    above = [(len(at), n, kind) for n, (_, at, kind, *_) in enumerate(mounts) if directory.is_relative_to(at)]
    return max(above)[2] if above else ""


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each control group with a limit has left; its cached files count as free, for it gives them up."""
    try:
        entries = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in entries:
        if controllers == "":
            mount, names = "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mount, names = (
                "sys/fs/cgroup/memory",
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            )
        else:
            continue
        limit, used, cached = names
        inner = Path(path.lstrip("/"))
        for group in (inner, *inner.parents):  # a container may see its own group as the root, whatever its path
            try:
                here = root / mount / group
                most = (here / limit).read_text().strip()
                if most == "max":
                    continue
                stat = dict(line.split() for line in (here / "memory.stat").read_text().splitlines())
                yield int(most) - int((here / used).read_text()) + int(stat.get(cached, 0))
            except OSError:
                continue
