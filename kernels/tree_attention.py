"""Attention over a forest: each shared segment's keys and values are read once for all the rows that see it.

    l = log2 sum_p 2^(l_p),   out = sum_p 2^(l_p - l) out_p       p: the shared segments on a row's path, and its suffix

(Parrot, Lin et al. 2024, section 7; several levels as in FlashInfer's cascade, Ye et al. 2025.) The rows of a segment
stand together in tiles, whatever sequences they belong to, and a segment's tokens are cut into ranges as a suffix is.
What no segment covers is left to `paged_attention` and `prefill_attention`. The reference is `torch_attention`.
"""

from __future__ import annotations

from collections.abc import Sequence

from semantic_parrot.kernels.forest import Forest
from semantic_parrot.kernels.tile_attention import Tile, sized
from semantic_parrot.kernels.work import Work


def tile(group: int, head_dim: int, itemsize: int) -> Tile:
    return sized(Tile(m=64, n=64, warps=4, stages=3), group, head_dim, itemsize)


def add(work: Work, trees: Forest, firsts: Sequence[int], pairs: int) -> None:
    """`firsts`: where in `work.rows` the rows of each of `trees.order` begin, and where the last one's end."""
    for node in trees.shared:
        begin = node.begin * work.block_size
        end = begin + len(node.blocks) * work.block_size
        table = work.table(node.blocks, node.begin)
        work.add(__name__, pairs, range(firsts[node.first], firsts[node.last]), table, begin, end)
