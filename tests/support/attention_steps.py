"""Steps of paged attention to test kernels with, and what should come of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from semantic_parrot.kernels.paging import Scores, Segment

SIZE = 4
# A tree of sequences: (rows, tokens) is one with so many tokens of its own, the last `rows` of them new; (tokens,
# [children]) is a shared segment.
Leaf = tuple[int, int]
Tree = Leaf | tuple[int, list["Tree"]]


def grown(trees: Sequence[Tree], seed: int = 0) -> list[Segment]:
    """Segments for `trees`, in shuffled blocks."""
    found: list[Segment] = []
    taken = 0

    def blocks(tokens: int) -> list[int]:
        nonlocal taken
        first, taken = taken, taken + -(-tokens // SIZE)
        return list(range(first, taken))

    def walk(tree: Tree, above: list[int]) -> None:
        count, rest = tree
        if isinstance(rest, int):
            start = sum(s.rows for s in found)
            found.append(Segment(start, count, len(above) * SIZE + rest, above + blocks(rest)))
            return
        assert count % SIZE == 0
        mine = above + blocks(count)
        for child in rest:
            walk(child, mine)

    for tree in trees:
        walk(tree, [])
    order = (torch.randperm(taken, generator=torch.Generator().manual_seed(seed)) + 1).tolist()
    return [Segment(s.start, s.rows, s.context, [order[b] for b in s.blocks]) for s in found]


@dataclass
class Inputs:
    """Random, but for what no sequence has: that is NaN, scratch included."""

    query: torch.Tensor
    new: list[torch.Tensor]
    caches: list[torch.Tensor]
    scale: float

    @classmethod
    def draw(cls, segments: Sequence[Segment], rows: int, heads: tuple[int, int, int], dtype, device) -> Inputs:
        query_heads, kv_heads, dim = heads
        g = torch.Generator().manual_seed(query_heads)
        caches = [torch.full((max_block(segments) + 1, kv_heads, SIZE, dim), torch.nan) for _ in range(2)]
        new = [torch.full((1, kv_heads, rows, dim), torch.nan) for _ in range(2)]
        for cache, fresh in zip(caches, new, strict=True):
            for s in segments:
                for t in range(s.context - s.rows):
                    spot = cache[s.blocks[t // SIZE], :, t % SIZE]
                    if spot.isnan().any():  # else it is another's too
                        spot.copy_(torch.randn(kv_heads, dim, generator=g))
                fresh[0, :, s.start : s.start + s.rows] = torch.randn(kv_heads, s.rows, dim, generator=g)
        # As a model hands them over: a row's heads stand together.
        query = torch.randn(1, rows, query_heads, dim, generator=g).transpose(1, 2)
        return cls(query.to(device, dtype), [n.to(device, dtype) for n in new],
                   [c.to(device, dtype) for c in caches], dim**-0.5)  # fmt: skip

    def run(self, plan, **how) -> torch.Tensor:
        """The caches hold the new keys and values after this."""
        return plan.attend(self.query, *self.new, *self.caches, Scores(self.scale, **how))

    def expected(self, segments: Sequence[Segment], window=None, softcap=None, sinks=None) -> torch.Tensor:
        """In fp64, from the numbers that the kernel was given."""
        _, heads, rows, dim = self.query.shape
        kv_heads = self.new[0].shape[1]
        out = torch.zeros(1, rows, heads, dim, dtype=torch.float64)
        for s in segments:
            k, v = (self._whole(s, which) for which in range(2))
            for i in range(s.rows):
                p = s.context - s.rows + i
                low = 0 if window is None else max(0, p - window + 1)
                q = self.query[0, :, s.start + i].double().cpu().view(kv_heads, heads // kv_heads, dim)
                score = q @ k[:, low : p + 1].transpose(1, 2) * self.scale
                if softcap is not None:
                    score = softcap * (score / softcap).tanh()
                if sinks is not None:
                    score = torch.cat([score, sinks.double().cpu().view(kv_heads, -1, 1)], -1)
                weight = score.softmax(-1)[..., : p + 1 - low]
                out[0, s.start + i] = (weight @ v[:, low : p + 1]).flatten(0, 1)
        return out

    def _whole(self, s: Segment, which: int) -> torch.Tensor:
        """A sequence's keys (0) or values (1): [kv_heads, context, dim]."""
        cached = [self.caches[which][s.blocks[t // SIZE], :, t % SIZE] for t in range(s.context - s.rows)]
        fresh = [self.new[which][0, :, s.start + i] for i in range(s.rows)]
        return torch.stack([*cached, *fresh], 1).double().cpu()


def max_block(segments: Sequence[Segment]) -> int:
    return max((block for s in segments for block in s.blocks), default=0)
