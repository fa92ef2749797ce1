"""Attention of decode rows by the kernel in C, where it takes a layer; where it does not, by torch's.

Nothing is padded, and a row alone has a piece of work for each KV head, like any other. Rows that begin with the same
blocks go together, so that these are read once for several of them; no row's result is other for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from semantic_parrot.kernels import torch_rows
from semantic_parrot.kernels.c_library import CKernels
from semantic_parrot.kernels.forest import alike
from semantic_parrot.kernels.paging import SCRATCH, Scores, Segment, Slots

#: Query heads that read a KV head together, at most: the scores of more leave the processor's cache no room for keys.
MOST = 12


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
        self._order = sorted(range(len(segments)), key=lambda row: tuple(segments[row].blocks))
        self._alike = alike([segments[row] for row in self._order], block_size)
        self._runs: dict[int, tuple[Tensor, Tensor]] = {}

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
        cuts = scores.window is not None and scores.window < self._longest
        threads, (rows, heads, _), kv_heads = torch.get_num_threads(), query.shape, keys.shape[1]
        # Two pieces of work for each thread, or one waits for the other in the end.
        most = min(MOST * kv_heads // heads, rows * kv_heads // (2 * threads))
        together = self._together(1 if cuts else max(1, most))
        return self._kernels.attend(
            query, new, (keys, values), self._blocks, self._contexts, self._longest, *together, **scores._asdict()
        )

    def _together(self, most: int) -> tuple[Tensor, Tensor]:
        if most not in self._runs:
            table = torch.tensor(runs(self._alike, most), dtype=torch.int32)
            self._runs[most] = torch.tensor(self._order, dtype=torch.int32), table
        return self._runs[most]

    @cached_property
    def _other(self) -> torch_rows.Rows:
        return torch_rows.Rows(*self._given)


def runs(alike: Sequence[int], most: int) -> list[tuple[int, int, int]]:
    """(first, last, common): rows that go together, `most` at most; `alike` as `forest.alike` gives it."""
    found: list[tuple[int, int, int]] = []
    for row, same in enumerate(alike):
        first, last, common = found[-1] if found else (0, 0, 0)
        least = min(same, common or same)
        # A row that has little in common with a run is a burden to it: what the others share would be read by each.
        if row > first and last - first < most and same > 0 and 2 * least >= common:
            found[-1] = first, row + 1, least
        else:
            found.append((row, row + 1, 0))
    return found
