"""Decode attention over the paged cache, each sequence for itself (PagedAttention, Kwon et al. 2023).

    out[i] = softmax(scale * q[i] K^T) V        K and V: the sequence's own tokens, read through its block table

A tile is one row with the query heads of a KV head. A long sequence is cut into ranges, so that few sequences fill the
device (split-K, Flash-Decoding). The reference is `torch_attention`.
"""

from __future__ import annotations

from semantic_parrot.kernels.paging import Segment
from semantic_parrot.kernels.tile_attention import Tile, sized
from semantic_parrot.kernels.work import Work


def tile(group: int, head_dim: int, itemsize: int) -> Tile:
    return sized(Tile(m=16, n=64, warps=4, stages=3), group, head_dim, itemsize)


def add(work: Work, s: Segment, first: int, skipped: int) -> None:
    """The row of `s`, which is `work.rows[first]`, over all its blocks but the first `skipped`."""
    table = work.table(s.blocks[skipped:], skipped)
    work.add(__name__, work.group, range(first, first + 1), table, skipped * work.block_size, s.context)
