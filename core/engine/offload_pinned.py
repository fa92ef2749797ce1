"""The slots of the second tier on a GPU: pinned memory of the host, copied to and from beside what the device computes.

All copies over the bus are made in one stream of their own, in order, so a slot is never read before it is written.
What leaves is gathered first, by the device's own stream, so that its blocks may be overwritten at once; what comes
back may be on its way while the step before still runs, and its own step waits for it on the device, not on the host.
On CPU tensors it is the same, without streams: for tests. Not run on a GPU yet.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from semantic_parrot.core.engine.kv import BlockCopy, PagedCache, past
from semantic_parrot.kernels.transfer import Side, upload

logger = logging.getLogger(__name__)

EXTENT = 64 << 20  # bytes: how the memory grows


class PinnedStore:
    """As `offload_store.OffloadStore`, of `slots` at most. `per_step`: blocks that may be copied in each direction."""

    def __init__(self, cache: PagedCache, slots: int, per_step: int) -> None:
        self.per_step = per_step
        self._sizes = [tensor[0].numel() for tensor in cache.tensors]
        self._dtype, self._device = cache.keys[0].dtype, cache.keys[0].device
        self._side = Side(self._device)
        self._left = slots
        self._rows: list[Tensor] = []  # of each slot, keys and values of all layers

    def extend(self) -> range:
        """See `offload.Storage`. Memory that can't be had is said in the log, once."""
        first = len(self._rows)
        elements = sum(self._sizes)
        count = min(max(EXTENT // (elements * self._dtype.itemsize), 1), self._left)
        if not count:
            return range(0)
        try:
            extent = torch.empty(count, elements, dtype=self._dtype, pin_memory=self._device.type != "cpu")
        except RuntimeError as error:
            logger.warning("the memory for evicted KV stays at %d blocks: %s", first, error)
            self._left = 0
            return range(0)
        self._left -= count
        self._rows += extent.unbind()
        return range(first, first + count)

    def write(self, cache: PagedCache, copies: Sequence[BlockCopy]) -> None:
        """From blocks to slots."""
        if not copies:
            return
        blocks = upload([copy.source for copy in copies], self._device)
        gathered = torch.cat([tensor[blocks].flatten(1) for tensor in cache.tensors], 1)
        with self._side.after(gathered):
            for copy, row in zip(copies, gathered, strict=True):
                self._rows[copy.target].copy_(row, non_blocking=True)

    def read(self, cache: PagedCache, copies: Sequence[BlockCopy]) -> None:
        """From slots to blocks. What is not copied of a block is zero, as in `PagedCache.copy`."""
        if not copies:
            return
        with self._side.before():
            come = torch.empty(len(copies), sum(self._sizes), dtype=self._dtype, device=self._device)
            for copy, row in zip(copies, come, strict=True):
                row.copy_(self._rows[copy.source], non_blocking=True)
        self._side.join(come)
        _, target, tokens = upload(list(zip(*copies, strict=True)), self._device)
        for tensor, part in zip(cache.tensors, torch.split(come, self._sizes, 1), strict=True):
            tensor.index_copy_(0, target, part.view(-1, *tensor.shape[1:]).masked_fill(past(tokens), 0))
