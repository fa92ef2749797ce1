"""Sequences read together from the paged cache, padded to the longest of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from semantic_parrot.kernels.paging import SCRATCH, Gather, Segment


@dataclass(frozen=True, slots=True)
class Group:
    """`sequences` decode rows from `start` on, or one sequence's chunk of `rows`; `context`: the longest."""

    start: int
    sequences: int
    rows: int
    context: int
    blocks: Tensor  # [sequences, blocks of the longest]
    positions: Tensor  # [sequences, rows]
    block_size: int
    _gather: Gather = field(default_factory=Gather)
    _rows: dict[int, Tensor] = field(default_factory=dict)
    _masks: dict[tuple[int | None, torch.dtype], Tensor] = field(default_factory=dict)

    def read(self, cache: Tensor) -> Tensor:
        """Keys or values, padded: [kv_heads, sequences, tokens, dim]."""
        heads = cache.shape[1]
        rows = self._rows.get(heads)
        if rows is None:
            head = torch.arange(heads, device=self.blocks.device)[:, None, None]
            rows = self._rows[heads] = (self.blocks * heads + head).flatten()
        return self._gather(cache, rows).view(heads, self.sequences, -1, cache.shape[3])

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """What each row may not see, as -inf: [1, sequences, rows, tokens]."""
        if window is not None and window >= self.context:
            window = None
        found = self._masks.get((window, dtype))
        if found is None:
            token = torch.arange(self.blocks.shape[1] * self.block_size, device=self.blocks.device)
            position = self.positions[:, :, None]
            hidden = token > position
            if window is not None:
                hidden |= token <= position - window
            found = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)[None]
            self._masks[window, dtype] = found
        return found


def by_length(segments: Sequence[Segment], block_size: int, *, least: int) -> Iterator[list[Segment]]:
    """Consecutive decode rows while their lengths round to one power of two of blocks, `least` at least: order them by
    length, and padding at most doubles what is read. A chunk of prefill stands alone."""
    batch: list[Segment] = []
    bucket = 0
    for s in segments:
        size = 0 if s.rows > 1 else max(least, 1 << (-(-s.context // block_size) - 1).bit_length())
        if batch and (size == 0 or size != bucket):
            yield batch
            batch = []
        bucket = size
        batch.append(s)
    if batch:
        yield batch


def group(batch: list[Segment], block_size: int, device: torch.device) -> Group:
    """`batch`: one of those that `by_length` gives."""
    context = max(s.context for s in batch)
    width = -(-context // block_size)
    table = [[*s.blocks[:width], *[SCRATCH] * (width - len(s.blocks))] for s in batch]
    first = torch.tensor([[s.context - s.rows] for s in batch])
    positions = first + torch.arange(batch[0].rows)
    return Group(
        start=batch[0].start,
        sequences=len(batch),
        rows=batch[0].rows,
        context=context,
        blocks=torch.tensor(table).to(device),
        positions=positions.to(device),
        block_size=block_size,
    )
