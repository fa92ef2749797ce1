"""Attention of rows that decode, by the kernel in C.

A row alone has a piece of work for each KV head, like any other. Rows that begin with the same blocks go together, so
that these are read once for several of them; no row's result is other for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from semantic_parrot.kernels.c_layer import Layer
from semantic_parrot.kernels.c_library import CKernels
from semantic_parrot.kernels.forest import alike
from semantic_parrot.kernels.paging import SCRATCH, Segment

#: Query heads that read a KV head together, at most: the scores of more leave the processor's cache no room for keys.
MOST = 12


class Rows:
    """`segments`: of one row each, of any length."""

    def __init__(self, segments: Sequence[Segment], block_size: int, *, kernels: CKernels) -> None:
        self._kernels = kernels
        self._longest = max(s.context for s in segments)
        self._starts, self._contexts = (
            torch.tensor([(s.start, s.context) for s in segments], dtype=torch.int32).t().contiguous()
        )
        self._blocks = table(segments, block_size)
        self._order = sorted(range(len(segments)), key=lambda row: tuple(segments[row].blocks))
        self._alike = alike([segments[row] for row in self._order], block_size)
        self._runs: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(self, layer: Layer) -> None:
        """Writes its rows of the layer's result."""
        cuts = layer.window is not None and layer.window < self._longest
        rows, threads = len(self._starts), torch.get_num_threads()
        # Two pieces of work for each thread, or one waits for the other in the end.
        most = min(MOST * layer.kv_heads // layer.heads, rows * layer.kv_heads // (2 * threads))
        together = self._together(1 if cuts else max(1, most))
        self._kernels.attend_rows(layer, self._starts, self._blocks, self._contexts, self._longest, *together)

    def _together(self, most: int) -> tuple[Tensor, Tensor]:
        if most not in self._runs:
            found = torch.tensor(runs(self._alike, most), dtype=torch.int32)
            self._runs[most] = torch.tensor(self._order, dtype=torch.int32), found
        return self._runs[most]


def table(segments: Sequence[Segment], block_size: int) -> Tensor:
    """Each sequence's blocks, [sequences, blocks of the longest], in int32."""
    width = max(-(-s.context // block_size) for s in segments)
    rows = [[*s.blocks[:width], *[SCRATCH] * (width - len(s.blocks))] for s in segments]
    return torch.tensor(rows, dtype=torch.int32)


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
