"""Joins the parts of a row's attention: each token range's own result, weighed by how much of the softmax it holds.

    l = log2 sum_p 2^(l_p)   (with a sink one part more, that has no value),   out = sum_p 2^(l_p - l) out_p

In the order in which the row lists its parts, so that the same parts give the same bits.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from semantic_parrot.kernels.tile_attention import Parts

#: Integers that describe a row with parts: where it is in the output, its first part in the list, how many it has.
#: None: nothing to do.
MERGE = 3


def merge_parts(parts: Parts, out: Tensor, merges: Tensor, slots: Tensor, kv_heads: int, sinks: Tensor | None) -> None:
    """`out` [rows, heads, head_dim]; `merges` [n, MERGE]; `slots`: the list of parts; int32. Writes the rows of
    `out` that have parts."""
    _, heads, dim = out.shape
    group = heads // kv_heads
    _kernel[(len(merges), kv_heads)](
        parts.out, parts.weight, out, merges, slots, sinks, out.stride(0),
        HEADS=heads, GROUP=group, H=triton.next_power_of_2(group), DIM=dim, D=triton.next_power_of_2(dim),
        SINKS=sinks is not None, num_warps=4,
    )  # fmt: skip


@triton.jit
def _kernel(
    part, weight, out, merges, slots, sinks, out_row,
    HEADS: tl.constexpr, GROUP: tl.constexpr, H: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, SINKS: tl.constexpr,
):  # fmt: skip
    entry = merges + tl.program_id(0) * 3
    count = tl.load(entry + 2)
    if count == 0:
        return
    row, first = tl.load(entry), tl.load(entry + 1)
    lane, d = tl.arange(0, H), tl.arange(0, D)[None, :]
    head = tl.program_id(1) * GROUP + lane
    valid = lane < GROUP
    top = tl.full([H], float("-inf"), tl.float32)
    total = tl.zeros([H], tl.float32)
    if SINKS:
        top = tl.load(sinks + head, mask=valid, other=0.0).to(tl.float32) * 1.4426950408889634
        total += 1.0
    acc = tl.zeros([H, D], tl.float32)
    for i in tl.range(first, first + count):
        spot = tl.load(slots + i).to(tl.int64) * HEADS + head
        weighs = tl.load(weight + spot, mask=valid, other=0.0)
        seen = weighs != float("-inf")
        found = tl.load(part + spot[:, None] * DIM + d, mask=(valid & seen)[:, None] & (d < DIM), other=0.0)
        above = tl.maximum(top, weighs)
        base = tl.where(above == float("-inf"), 0.0, above)
        shrink, share = tl.exp2(top - base), tl.exp2(weighs - base)
        total = total * shrink + share
        acc = acc * shrink[:, None] + found * share[:, None]
        top = above
    # A row sees itself: once all parts are in, none but an unused lane has a total of 0.
    target = out + row.to(tl.int64) * out_row + head[:, None] * DIM + d
    tl.store(target, (acc / total[:, None]).to(out.dtype.element_ty), mask=valid[:, None] & (d < DIM))
