"""Attention of chunks of prefill, each over what the cache holds before it and over itself, causal; a ragged batch.

    out[i] = softmax(scale * q[i] K[:p+1]^T) V[:p+1]        p: row i's position; K and V through the block table

A tile is some rows of one chunk with the query heads of a KV head (FlashAttention-2, Dao 2023). The reference is
`torch_attention`.
"""

from __future__ import annotations

from semantic_parrot.kernels.paging import Segment
from semantic_parrot.kernels.tile_attention import Tile, sized
from semantic_parrot.kernels.work import Work


def tile(group: int, head_dim: int, itemsize: int) -> Tile:
    return sized(Tile(m=128, n=64, warps=8, stages=3), group, head_dim, itemsize)


def add(work: Work, s: Segment, first: int, skipped: int, pairs: int) -> None:
    """The rows of `s`, of which the first is `work.rows[first]`, over all its blocks but the first `skipped`."""
    table = work.table(s.blocks[skipped:], skipped)
    work.add(__name__, pairs, range(first, first + s.rows), table, skipped * work.block_size, s.context)
