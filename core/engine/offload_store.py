"""The slots of the second tier: blocks of keys and values in the host's memory, mapped from a file without a name."""

from __future__ import annotations

import logging
import mmap
import os
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from semantic_parrot.core.engine.kv import BLOCK_SIZE, BlockCopy, PagedCache
from semantic_parrot.core.engine.memory import offload_budget
from semantic_parrot.core.engine.offload_pinned import PinnedStore

logger = logging.getLogger(__name__)

_EXTENT = 64 << 20  # bytes: how the file grows
_STEP = 32 << 20  # bytes that may be copied in a step in each direction: at 2 GB/s, 16 ms
_LEAST = 16  # blocks, however large: more than sequences that decode take in a step


class OffloadStore:
    """Blocks in `memory`: [slots, elements of a block], of the cache's type; a slot has keys and values of all layers.

    Copies are bit for bit, and made when they are asked for. For a cache on a CPU; `offload_pinned` is for a GPU's.
    """

    def __init__(self, cache: PagedCache, file: MappedFile) -> None:
        self.per_step = per_step(cache)
        self._file = file
        memory = file.tensor(cache.keys[0].dtype)
        self._parts: list[Tensor] = []
        start = 0
        for tensor in cache.tensors:
            size = tensor[0].numel()
            self._parts.append(memory[:, start : start + size].view(-1, *tensor.shape[1:]))
            start += size

    def extend(self) -> range:
        """See `offload.Storage`."""
        return self._file.extend()

    def write(self, cache: PagedCache, copies: Sequence[BlockCopy]) -> None:
        """From blocks to slots."""
        for part, tensor in zip(self._parts, cache.tensors, strict=True):
            for copy in copies:
                part[copy.target].copy_(tensor[copy.source])

    def read(self, cache: PagedCache, copies: Sequence[BlockCopy]) -> None:
        """From slots to blocks. What is not copied of a block is zero, as in `PagedCache.copy`."""
        for part, tensor in zip(self._parts, cache.tensors, strict=True):
            for copy in copies:
                block = tensor[copy.target].copy_(part[copy.source])
                if copy.tokens < BLOCK_SIZE:
                    block[:, copy.tokens :] = 0


def per_step(cache: PagedCache) -> int:
    """Blocks that may be copied in a step in each direction."""
    return max(_STEP // cache.block_bytes, _LEAST)


class MappedFile:
    """A file in the directory for temporary files (TMPDIR) that is gone with the process, mapped: what is in use of it
    stays in memory for as long as the system has some to spare. It takes room on the disk as it grows, before that is
    written to: on a full disk, writing through the map would kill the process. Raises OSError."""

    def __init__(self, block_bytes: int, slots: int) -> None:
        self._block_bytes = block_bytes
        self._slots = slots
        self._reserved = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open for as long as the engine lives
        weakref.finalize(self, self._file.close)
        self._file.truncate(block_bytes * slots)
        self._map = mmap.mmap(self._file.fileno(), block_bytes * slots)

    def tensor(self, dtype: torch.dtype) -> Tensor:
        """[slots, elements of a block]; good for the slots that `extend` has given."""
        return torch.frombuffer(self._map, dtype=dtype).view(self._slots, -1)

    def extend(self) -> range:
        """More slots; none once all are given, or the disk is full: that is said in the log once."""
        first = self._reserved
        last = min(first + max(_EXTENT // self._block_bytes, 1), self._slots)
        if first == last:
            return range(0)
        try:
            _reserve(self._file.fileno(), first * self._block_bytes, (last - first) * self._block_bytes)
        except OSError as error:
            size = first * self._block_bytes >> 20
            logger.warning("the file for evicted KV stays at %d MiB: %s", size, error.strerror)
            self._slots = first
            return range(0)
        self._reserved = last
        return range(first, last)


def open_store(cache: PagedCache, tokens: int | None) -> OffloadStore | PinnedStore | None:
    """The second tier for so many tokens; None: the size of the cache, if the disk has plenty of room, and on a CPU
    only. Returns None for none, and where there can't be one, which is said in the log."""
    if cache.keys[0].device.type != "cpu":
        slots = (tokens or 0) // BLOCK_SIZE
        return PinnedStore(cache, slots, per_step(cache)) if slots else None
    directory = Path(tempfile.gettempdir())
    try:
        if tokens is None:
            slots = min(len(cache.keys[0]) - 1, offload_budget(directory) // cache.block_bytes)
        else:
            slots = tokens // BLOCK_SIZE
        return OffloadStore(cache, MappedFile(cache.block_bytes, slots)) if slots else None
    except (OSError, ValueError, OverflowError) as error:
        logger.warning("evicted KV is not kept: no file for it in %s: %s", directory, error)
        return None


def _reserve(file: int, start: int, count: int) -> None:
    """Room on the disk for these bytes. Raises OSError."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, start, count)
        return
    end = start + count
    while start < end:
        start += os.pwrite(file, bytes(min(end - start, 1 << 20)), start)
