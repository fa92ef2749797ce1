"""Attention by the kernels in C, where they take a layer; where they do not, by torch's.

Rows that decode have one kernel and chunks of prompts another. Keys and values are read where they lie, nothing is
padded, and no row's result depends on what else is in the step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from semantic_parrot.kernels import torch_attention
from semantic_parrot.kernels.c_layer import Layer
from semantic_parrot.kernels.c_library import CKernels
from semantic_parrot.kernels.c_rows import Rows, table
from semantic_parrot.kernels.paging import Plan, Planner, Scores, Segment


def plan(
    segments: Sequence[Segment],
    rows: int,
    block_size: int,
    device: torch.device,
    *,
    kernels: CKernels,
    other: Planner = torch_attention.plan,
) -> CPlan:
    """`other`: for layers that the kernels do not take."""
    decodes, chunks = ([s for s in segments if (s.rows > 1) == several] for several in (False, True))
    parts: list[Rows | Chunks] = []
    if decodes:
        parts.append(Rows(decodes, block_size, kernels=kernels))
    if chunks:
        parts.append(Chunks(chunks, block_size, kernels=kernels))
    covered = sum(s.rows for s in segments) == rows
    return CPlan(kernels, parts, covered, lambda: other(segments, rows, block_size, device))


class CPlan:
    def __init__(
        self, kernels: CKernels, parts: Sequence[Rows | Chunks], covered: bool, other: Callable[[], Plan]
    ) -> None:
        """`covered`: all rows belong to `parts`."""
        self._kernels, self.parts, self._covered, self._make = kernels, parts, covered, other

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, scores: Scores
    ) -> Tensor:
        if not self._kernels.attends(query, key, value, key_cache, value_cache):
            return self._other.attend(query, key, value, key_cache, value_cache, scores)
        _, heads, rows, dim = query.shape
        out = (query.new_empty if self._covered else query.new_zeros)((rows, heads, dim))
        layer = Layer(query, key, value, key_cache, value_cache, scores, out)
        for part in self.parts:
            part.attend(layer)
        return out[None]

    @cached_property
    def _other(self) -> Plan:
        return self._make()


class Chunks:
    """`segments`: of several rows each."""

    def __init__(self, segments: Sequence[Segment], block_size: int, *, kernels: CKernels) -> None:
        self._kernels, self._segments = kernels, segments
        self._blocks = table(segments, block_size)
        self._chunks = torch.tensor([(s.start, s.rows, s.context) for s in segments], dtype=torch.int32)
        self._parts: dict[int, Tensor] = {}

    def attend(self, layer: Layer) -> None:
        """Writes its rows of the layer's result."""
        group = layer.heads // layer.kv_heads
        if group not in self._parts:
            # Those at a chunk's end read most, so they come first: none of them is left for the end, alone.
            step = self._kernels.part_queries
            parts = [(n, at) for n, s in enumerate(self._segments) for at in reversed(range(0, s.rows * group, step))]
            self._parts[group] = torch.tensor(parts, dtype=torch.int32)
        self._kernels.attend_chunks(layer, self._blocks, self._chunks, self._parts[group])
