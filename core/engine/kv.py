"""KV blocks: who holds which, and the tensors that they index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from semantic_parrot.kernels.transfer import upload

BLOCK_SIZE = 16  # tokens


class BlockPool:
    """Counts the holders of each block; owned by the engine's loop.

    A block is held by live sequences (counted), resident in the prefix tree (or not), or free. Block 0 is the
    kernels' scratch and never handed out. `idle`: resident blocks that lost their last sequence, for the tree to
    take note of.
    """

    def __init__(self, blocks: int) -> None:
        self.total = blocks
        self.used = 0
        self.cached = 0
        self.idle: set[int] = set()
        self._doubtful: set[int] = set()
        self._to_clear: list[int] = []
        self._free = list(range(blocks, 0, -1))
        self._holders = [0] * (blocks + 1)
        self._resident = [False] * (blocks + 1)

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def available(self) -> int:
        """Blocks that sequences could get, once the prefix tree evicts what nobody holds."""
        return len(self._free) + self.cached

    def held(self, block: int) -> bool:
        return self._holders[block] > 0

    def holders(self, block: int) -> int:
        """How many sequences hold it."""
        return self._holders[block]

    def take(self, count: int) -> list[int]:
        """`count` free blocks, each held once."""
        assert count <= len(self._free)
        taken = [self._free.pop() for _ in range(count)]
        for block in taken:
            self._holders[block] = 1
        if not self._doubtful.isdisjoint(taken):
            self._to_clear += self._doubtful.intersection(taken)
            self._doubtful.difference_update(taken)
        self.used += count
        return taken

    def doubt(self, blocks: Iterable[int]) -> None:
        """Nothing shows that what stands in `blocks` are numbers: they are cleared before another sequence fills them.
        Attention gives what lies past a sequence's end a weight of zero, and zero times NaN is NaN."""
        self._doubtful.update(blocks)

    def to_clear(self) -> list[int]:
        """The doubtful blocks that were taken since this was last asked."""
        found, self._to_clear = self._to_clear, []
        return found

    def hold(self, block: int) -> None:
        """One more sequence on a block that is held or resident."""
        assert self._holders[block] or self._resident[block]
        if not self._holders[block]:
            self.used += 1
            self.cached -= 1
        self._holders[block] += 1

    def drop(self, blocks: Iterable[int]) -> None:
        """One sequence less on each block; what nobody holds any more is free, unless it is resident."""
        for block in blocks:
            assert self._holders[block] > 0
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            self.used -= 1
            if self._resident[block]:
                self.cached += 1
                self.idle.add(block)
            else:
                self._free.append(block)

    def keep(self, block: int) -> None:
        """A held block becomes resident in the tree."""
        assert self._holders[block]
        assert not self._resident[block]
        self._resident[block] = True

    def forget(self, block: int) -> None:
        """A resident block leaves the tree."""
        assert self._resident[block]
        self._resident[block] = False
        self.idle.discard(block)
        if not self._holders[block]:
            self.cached -= 1
            self._free.append(block)


class LayerShape(NamedTuple):
    kv_heads: int
    head_dim: int


class BlockCopy(NamedTuple):
    """Copy the first `tokens` of block `source` over block `target`, in every layer, before the step runs."""

    source: int
    target: int
    tokens: int


@dataclass(frozen=True, slots=True)
class PagedCache:
    """Per layer, keys and values: [blocks + 1, kv_heads, BLOCK_SIZE, head_dim]."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @classmethod
    def allocate(
        cls, shapes: Sequence[LayerShape], blocks: int, dtype: torch.dtype, device: torch.device
    ) -> PagedCache:
        def tensors() -> tuple[Tensor, ...]:
            sizes = ((blocks + 1, s.kv_heads, BLOCK_SIZE, s.head_dim) for s in shapes)
            return tuple(torch.zeros(size, dtype=dtype, device=device) for size in sizes)

        return cls(tensors(), tensors())

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (*self.keys, *self.values)

    @property
    def block_bytes(self) -> int:
        """Of all layers."""
        return sum(tensor[0].nbytes for tensor in self.tensors)

    def copy(self, copies: Sequence[BlockCopy]) -> None:
        """All sources are read before any target is written. What is not copied of a block is zero: it belongs to
        others, and need not be numbers."""
        if not copies:
            return
        device = self.keys[0].device
        source, target, tokens = upload(list(zip(*copies, strict=True)), device)
        for cache in self.tensors:
            cache[target] = cache[source].masked_fill_(past(tokens), 0)

    def clear(self, blocks: Sequence[int]) -> None:
        if blocks:
            index = upload(blocks, self.keys[0].device)
            for cache in self.tensors:
                cache.index_fill_(0, index, 0)


def past(tokens: Tensor) -> Tensor:
    """Of blocks that hold so many `tokens` each, which places are past those; to be broadcast with a layer's."""
    return (torch.arange(BLOCK_SIZE, device=tokens.device) >= tokens[:, None])[:, None, :, None]


def bytes_per_token(shapes: Sequence[LayerShape], dtype: torch.dtype) -> int:
    return sum(2 * s.kv_heads * s.head_dim for s in shapes) * dtype.itemsize
