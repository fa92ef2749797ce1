"""What every paged-attention kernel is given, and what it gives back.

Cache layout, keys and values apart, one pair a layer: `[blocks, kv_heads, block_size, head_dim]`. Block 0 is scratch:
padding reads and writes there, so that no kernel needs a branch for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

SCRATCH = 0


@dataclass(frozen=True, slots=True)
class Segment:
    """One sequence's rows in a step.

    The `rows` query rows from `start` on are the last ones of a sequence of `context` tokens (these included),
    whose keys and values stand in `blocks`, `block_size` tokens in each, in order.
    """

    start: int
    rows: int
    context: int
    blocks: Sequence[int]


class Scores(NamedTuple):
    """How a layer scores. `window`: how many of the latest tokens, its own included, a token sees (None: all).
    `softcap`: scores become softcap * tanh(score / softcap), before any is hidden. `sinks` [heads]: a further score of
    each head that takes its share of the softmax and has no value."""

    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None

    @property
    def plain(self) -> bool:
        return self.softcap is None and self.sinks is None


class Plan(Protocol):
    """The attention of one step, prepared once and used by each layer."""

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, scores: Scores
    ) -> Tensor:
        """Store the step's keys and values, then attend causally to each sequence's own.

        `query` [1, heads, rows, head_dim], `key` and `value` [1, kv_heads, rows, head_dim]. Mutates the caches.
        Returns [1, rows, heads, head_dim] in the query's dtype; rows that belong to no segment are zero.
        """
        ...


Planner = Callable[[Sequence[Segment], int, int, torch.device], Plan]
"""(segments, rows of the step, block size, device) → the plan."""


class Slots:
    """Where the step's new keys and values go, by number of KV heads (layers of one model may differ in it)."""

    def __init__(self, segments: Sequence[Segment], rows: int, block_size: int, device: torch.device) -> None:
        block = [SCRATCH] * rows
        offset = [0] * rows
        for s in segments:
            for row, position in zip(
                range(s.start, s.start + s.rows), range(s.context - s.rows, s.context), strict=True
            ):
                block[row] = s.blocks[position // block_size]
                offset[row] = position % block_size
        self._block, self._offset = torch.tensor([block, offset]).to(device)
        self._size = block_size
        self._rows: dict[int, Tensor] = {}

    def store(self, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor) -> None:
        heads, dim = key.shape[1], key.shape[3]
        rows = self._rows.get(heads)
        if rows is None:
            head = torch.arange(heads, device=self._block.device)[:, None]
            rows = self._rows[heads] = ((self._block * heads + head) * self._size + self._offset).flatten()
        for new, cache in ((key, key_cache), (value, value_cache)):
            cache.view(-1, dim).index_copy_(0, rows, new.reshape(-1, dim).to(cache.dtype))


class Gather:
    """Copies `(block, head)` rows of a cache, at each layer into the same memory.

    Fresh memory would cost more than the copy: the system zeroes large pieces each time they are asked for. So the
    tensor of the call before last is overwritten: good for one key and one value at a time.
    """

    def __init__(self) -> None:
        self._buffers: list[Tensor] = []

    def __call__(self, cache: Tensor, rows: Tensor) -> Tensor:
        """[len(rows), block_size * head_dim]"""
        blocks, heads, size, dim = cache.shape
        shape = (len(rows), size * dim)
        buffer = self._buffers.pop(0) if len(self._buffers) == 2 else cache.new_empty(shape)
        if buffer.shape != shape or buffer.dtype != cache.dtype:
            buffer = cache.new_empty(shape)
        self._buffers.append(buffer)
        return torch.index_select(cache.view(blocks * heads, size * dim), 0, rows, out=buffer)
