"""Tree attention in plain torch: each shared segment's keys and values are read once for all the rows that see it.

Softmax over a row's tokens splits into parts: with part p's own result out_p and l_p = log sum exp of its scores,

    l = log sum_p exp(l_p),   out = sum_p exp(l_p - l) out_p

A row's parts are the shared segments on its path and its own suffix (all of it, where nothing is shared). A segment is
one product for all its rows; the suffixes go together, as `torch_rows` reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from semantic_parrot.kernels import torch_attention, torch_rows
from semantic_parrot.kernels.forest import Forest, forest
from semantic_parrot.kernels.padded import by_length
from semantic_parrot.kernels.paging import Gather, Plan, Scores, Segment, Slots
from semantic_parrot.kernels.torch_attention import LEAST, TorchPlan

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
    if len(decodes) < 2:  # one row alone is as fast there
        return torch_attention.plan(segments, rows, block_size, device)
    trees = forest(decodes, block_size, lambda n, blocks: worth(n, blocks * block_size))
    return TreePlan(tuple(segments), trees if trees.shared else _unshared(decodes), rows, block_size, device)


def _unshared(decodes: Iterable[Segment]) -> Forest:
    order = tuple(decodes)
    return Forest(order, (), (0,) * len(order))


@dataclass(frozen=True)
class TreePlan:
    segments: tuple[Segment, ...]
    trees: Forest
    rows: int
    block_size: int
    device: torch.device

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, scores: Scores
    ) -> Tensor:
        cuts = scores.window is not None and scores.window < self._longest
        if self.trees.shared and (cuts or not scores.plain):
            return self._plain.attend(query, key, value, key_cache, value_cache, scores)
        if not self.trees.shared and self._alone:
            # Nothing to put in another order, to merge or to add to.
            self._slots.store(key, value, key_cache, value_cache)
            rows = query[0].transpose(0, 1).to(key_cache.dtype)
            return self._own[0][1].attend(rows, key_cache, value_cache, scores)[0].to(query.dtype)[None]
        out = self._chunks.attend(query, key, value, key_cache, value_cache, scores)
        q = query[0].transpose(0, 1)[self._order].to(key_cache.dtype)
        found, weight = torch.empty_like(q), q.new_empty(q.shape[:2])
        for which, own in self._own:
            part, other = own.attend(q[which], key_cache, value_cache, scores, weighed=bool(self._shared))
            found[which] = part
            if other is not None:
                weight[which] = other
        for segment in self._shared:
            here = slice(segment.first, segment.last)
            _merge(found[here], weight[here], *segment.attend(q[here], key_cache, value_cache, scores.scale))
        out[0, self._order] = found.to(out.dtype)
        return out

    @cached_property
    def _longest(self) -> int:
        return max(s.context for s in self.trees.order)

    @cached_property
    def _plain(self) -> TreePlan:
        return replace(self, trees=_unshared(s for s in self.segments if s.rows == 1))

    @cached_property
    def _alone(self) -> bool:
        """All rows decode, and go together as they stand."""
        first, *others = self._own
        return not others and self._order[first[0]].tolist() == list(range(self.rows))

    @cached_property
    def _slots(self) -> Slots:
        return Slots(self.segments, self.rows, self.block_size, self.device)

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
    def _own(self) -> list[tuple[Tensor, torch_rows.Rows]]:
        """(which rows of the forest, their suffixes), those of similar length together."""
        cut = [
            Segment(i, 1, s.context - n * self.block_size, s.blocks[n:])
            for i, (s, n) in enumerate(zip(self.trees.order, self.trees.owned, strict=True))
        ]
        cut.sort(key=lambda s: s.context)
        return [
            (
                torch.tensor([s.start for s in some], device=self.device),
                torch_rows.Rows(some, self.block_size, self.device),
            )
            for some in by_length(cut, self.block_size, least=LEAST)
        ]


def _merge(out: Tensor, weight: Tensor, part: Tensor, other: Tensor) -> None:
    """Take one more part into `out` [rows, heads, dim], whose l is `weight` [rows, heads]."""
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

    def attend(self, query: Tensor, key_cache: Tensor, value_cache: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """`query` [rows, heads, dim]. Returns the same of what they read, and the log-sum-exps, [rows, heads]."""
        (rows, heads, dim), kv_heads = query.shape, key_cache.shape[1]
        k, v = self._read(key_cache), self._read(value_cache)
        # [1, kv_heads, all rows' queries, dim]: one product for all
        together = query.view(rows, kv_heads, -1, dim).transpose(0, 1).reshape(1, kv_heads, -1, dim)
        part, other = _attend(together, k, v, scale=scale)
        part = part.view(kv_heads, rows, -1, dim).transpose(0, 1).reshape(rows, heads, dim)
        return part, other.view(kv_heads, rows, -1).transpose(0, 1).reshape(rows, heads)

    def _read(self, cache: Tensor) -> Tensor:
        """Keys or values: [1, kv_heads, tokens, dim]."""
        heads = cache.shape[1]
        rows = self._rows.get(heads)
        if rows is None:
            head = torch.arange(heads, device=self._blocks.device)[:, None]
            rows = self._rows[heads] = (self._blocks * heads + head).flatten()
        return self._gather(cache, rows).view(1, heads, -1, cache.shape[3])
