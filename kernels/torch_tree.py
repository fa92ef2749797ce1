"""Tree attention in plain torch: each shared segment's keys and values are read once for all the rows that see it.

Softmax over a row's tokens splits into parts: with part p's own result out_p and l_p = log sum exp of its scores,

    l = log sum_p exp(l_p),   out = sum_p exp(l_p - l) out_p

A row's parts are the shared segments on its path and its own suffix. A segment is one product for all its rows; the
suffixes go together, padded. Where nothing is shared, and where the formula has more to it, this is `torch_attention`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from semantic_parrot.kernels import torch_attention
from semantic_parrot.kernels.forest import Forest, forest
from semantic_parrot.kernels.padded import Group, by_length, group
from semantic_parrot.kernels.paging import Gather, Plan, Segment
from semantic_parrot.kernels.torch_attention import TorchPlan

# SDPA's own kernel on a CPU; called by name because it tells l_p as well.
_attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def plan(
    segments: Sequence[Segment],
    rows: int,
    block_size: int,
    device: torch.device,
    *,
    worth: Callable[[int, int], bool],
) -> Plan:
    """`worth`: (rows, tokens) → whether reading so many tokens once for so many rows is worth a segment of its own."""
    decodes = [s for s in segments if s.rows == 1]
    trees = forest(decodes, block_size, lambda n, blocks: worth(n, blocks * block_size))
    if not trees.shared:
        return torch_attention.plan(segments, rows, block_size, device)
    return TreePlan(tuple(segments), trees, rows, block_size, device)


@dataclass(frozen=True)
class TreePlan:
    segments: tuple[Segment, ...]
    trees: Forest
    rows: int
    block_size: int
    device: torch.device

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_cache: Tensor,
        value_cache: Tensor,
        *,
        scale: float,
        window: int | None,
        softcap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        if softcap is not None or sinks is not None or (window is not None and window < self._longest):
            return self._plain.attend(
                query, key, value, key_cache, value_cache, scale=scale, window=window, softcap=softcap, sinks=sinks
            )
        out = self._chunks.attend(query, key, value, key_cache, value_cache, scale=scale, window=window)
        q = query[0].transpose(0, 1)[self._order].to(key_cache.dtype)
        # [rows in the forest's order, kv_heads, queries per KV head, dim]
        q = q.view(len(q), key.shape[1], -1, q.shape[2])
        found, weight = torch.empty_like(q), q.new_empty(q.shape[:3])
        for rows, own in self._own:
            # [sequences, kv_heads, …]: a sequence's suffix is its own
            read = own.read(key_cache), own.read(value_cache), own.mask(None, q.dtype)
            k, v, mask = (x.transpose(0, 1) for x in read)
            found[rows], weight[rows] = _attend(q[rows], k, v, attn_mask=mask, scale=scale)
        for segment in self._shared:
            here = slice(segment.first, segment.last)
            k, v = segment.read(key_cache), segment.read(value_cache)
            # [1, kv_heads, all rows' queries, dim]: one product for all
            together = q[here].transpose(0, 1).flatten(1, 2)[None]
            part, other = _attend(together, k, v, scale=scale)
            part, other = (x[0].view(len(k[0]), -1, q.shape[2], *x.shape[3:]).transpose(0, 1) for x in (part, other))
            _merge(found[here], weight[here], part, other)
        out[0, self._order] = found.flatten(1, 2).to(out.dtype)
        return out

    @cached_property
    def _longest(self) -> int:
        return max(s.context for s in self.trees.order)

    @cached_property
    def _plain(self) -> TorchPlan:
        return torch_attention.plan(self.segments, self.rows, self.block_size, self.device)

    @cached_property
    def _chunks(self) -> TorchPlan:
        """Stores what is new, and does the prefills."""
        return torch_attention.plan(self.segments, self.rows, self.block_size, self.device, decodes=False)

    @cached_property
    def _order(self) -> Tensor:
        return torch.tensor([s.start for s in self.trees.order], device=self.device)

    @cached_property
    def _shared(self) -> list[_Shared]:
        return [_Shared(s.first, s.last, torch.tensor(s.blocks, device=self.device)) for s in self.trees.shared]

    @cached_property
    def _own(self) -> list[tuple[Tensor, Group]]:
        """(which rows of the forest, their suffixes), those of similar length together."""
        cut = [
            (i, Segment(i, 1, s.context - n * self.block_size, s.blocks[n:]))
            for i, (s, n) in enumerate(zip(self.trees.order, self.trees.owned, strict=True))
        ]
        cut.sort(key=lambda pair: pair[1].context)
        found = []
        for some in by_length([s for _, s in cut], self.block_size, least=2):
            which = torch.tensor([s.start for s in some], device=self.device)
            found.append((which, group(some, self.block_size, self.device)))
        return found


def _merge(out: Tensor, weight: Tensor, part: Tensor, other: Tensor) -> None:
    """Take one more part into `out` [rows, kv_heads, queries, dim], whose l is `weight` [rows, kv_heads, queries]."""
    total = torch.logaddexp(weight, other)
    out.mul_((weight - total).exp_()[..., None]).add_(part * (other - total).exp_()[..., None])
    weight.copy_(total)


class _Shared:
    """The `blocks` that rows `first` to `last` of the forest all read."""

    def __init__(self, first: int, last: int, blocks: Tensor) -> None:
        self.first, self.last = first, last
        self._blocks = blocks
        self._gather = Gather()
        self._rows: dict[int, Tensor] = {}

    def read(self, cache: Tensor) -> Tensor:
        """Keys or values: [1, kv_heads, tokens, dim]."""
        heads = cache.shape[1]
        rows = self._rows.get(heads)
        if rows is None:
            head = torch.arange(heads, device=self._blocks.device)[:, None]
            rows = self._rows[heads] = (self._blocks * heads + head).flatten()
        return self._gather(cache, rows).view(1, heads, -1, cache.shape[3])
