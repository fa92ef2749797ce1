"""Attention of decode rows by the kernel in C, where it takes a layer; where it does not, by torch's.

Nothing is padded, and a row alone has a piece of work for each KV head, like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from semantic_parrot.kernels import torch_rows
from semantic_parrot.kernels.c_library import CKernels
from semantic_parrot.kernels.paging import SCRATCH, Scores, Segment, Slots


class Rows:
    """`segments`: of one row each, of any length."""

    def __init__(
        self, segments: Sequence[Segment], block_size: int, device: torch.device, *, kernels: CKernels
    ) -> None:
        self._kernels = kernels
        self._given = segments, block_size, device
        self._longest = max(s.context for s in segments)
        width = -(-self._longest // block_size)
        table = [[*s.blocks[:width], *[SCRATCH] * (width - len(s.blocks))] for s in segments]
        self._blocks = torch.tensor(table, dtype=torch.int32)
        self._contexts = torch.tensor([s.context for s in segments], dtype=torch.int32)

    def attend(
        self, query: Tensor, key_cache: Tensor, value_cache: Tensor, scores: Scores, *, weighed: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """As `torch_rows.Rows.attend`."""
        if not self._kernels.attends(query, key_cache):
            return self._other.attend(query, key_cache, value_cache, scores, weighed=weighed)
        return self._attend(query, None, key_cache, value_cache, scores)

    def step(
        self, query: Tensor, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, scores: Scores,
        slots: Callable[[], Slots],
    ) -> Tensor:  # fmt: skip
        """As `torch_rows.Rows.step`: the keys and values are stored on the way."""
        rows = query[0].transpose(0, 1)
        if not self._kernels.attends(rows, key_cache) or key.stride(3) != 1 or value.stride(3) != 1:
            return self._other.step(query, key, value, key_cache, value_cache, scores, slots)
        new = key[0].transpose(0, 1), value[0].transpose(0, 1)
        return self._attend(rows, new, key_cache, value_cache, scores)[0][None]

    def _attend(
        self, query: Tensor, new: tuple[Tensor, Tensor] | None, keys: Tensor, values: Tensor, scores: Scores
    ) -> tuple[Tensor, Tensor]:
        return self._kernels.attend(
            query, new, (keys, values), self._blocks, self._contexts, self._longest, **scores._asdict()
        )

    @cached_property
    def _other(self) -> torch_rows.Rows:
        return torch_rows.Rows(*self._given)
