"""The Triton kernel under all our attention: tiles of query rows, each over a range of tokens of the paged cache.

    s = scale * q K^T   (soft-capped: softcap * tanh(s / softcap)),   l = log2 sum 2^s,   out = 2^(s - l) V

over the tokens of the range that the row sees: none past its position, none before its window. A tile holds rows that
read one block table, each with all the query heads of one KV head, so that what is loaded of the cache serves them all.
Where a range is all that its rows see, the result goes to its place; else it is a part, for `merge_parts` to join.

Online softmax in fp32 over blocks of tokens counted from the range's beginning (Milakov and Gimelshein 2018, Dao 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from semantic_parrot.kernels.paging import Scores

#: Integers that describe an item: its first row, how many, where its block table begins, the first token, the end of
#: its tokens, and the slot of its first row's part, or -1 for none. A row count of 0: nothing to do.
ITEM = 6
#: Integers that describe a row: where it is in the query, and its position in its sequence.
ROW = 2
_LOG2E = math.log2(math.e)


@dataclass(frozen=True, slots=True)
class Tile:
    """`m`: (row, query head) pairs of a tile; `n`: tokens at a time. Powers of two, at least 16."""

    m: int
    n: int
    warps: int
    stages: int


def sized(tile: Tile, group: int, head_dim: int, itemsize: int) -> Tile:
    """`tile`, which is for 16-bit heads of 64 and 128, as other heads need it: at least `group` pairs, and no more than
    the registers and shared memory hold. fp32 products go without tensor cores, so their tiles are small."""
    if itemsize == 4:
        tile = Tile(m=16, n=32 if head_dim <= 64 else 16, warps=4, stages=2)
    elif head_dim > 128:
        tile = replace(tile, n=32, stages=2)
    return replace(tile, m=max(tile.m, triton.next_power_of_2(group)))


@dataclass(frozen=True, slots=True)
class Parts:
    """`out` [slots, heads, head_dim] and `weight` [slots, heads] (l), fp32."""

    out: Tensor
    weight: Tensor

    @classmethod
    def allocate(cls, slots: int, heads: int, dim: int, device: torch.device) -> Parts:
        def new(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=torch.float32, device=device)

        return cls(new(slots, heads, dim), new(slots, heads))


def attend(
    query: Tensor, key_cache: Tensor, value_cache: Tensor, out: Tensor, parts: Parts,
    items: Tensor, rows: Tensor, tables: Tensor, scores: Scores, tile: Tile,
) -> None:  # fmt: skip
    """`query` [heads, rows, head_dim], `out` [rows, heads, head_dim]; `items` [n, ITEM], `rows` [n, ROW] and `tables`
    (blocks' numbers) of int32. Writes `out` and `parts`, nothing else; asks the device nothing."""
    heads, _, dim = query.shape
    _, kv_heads, page, _ = key_cache.shape
    scale, softcap = scores.scale * _LOG2E, 0.0
    if scores.softcap is not None:
        # tanh(x) = 1 - 2 / (1 + e^(2x))
        scale, softcap = 2 * scale / scores.softcap, scores.softcap * _LOG2E
    _kernel[(len(items), kv_heads)](
        query, key_cache, value_cache, out, parts.out, parts.weight, scores.sinks, items, rows, tables,
        scale, softcap, scores.window or 0, query.stride(0), query.stride(1), out.stride(0),
        KV_HEADS=kv_heads, GROUP=heads // kv_heads, DIM=dim, D=max(16, triton.next_power_of_2(dim)), PAGE=page,
        M=tile.m, N=tile.n, WINDOW=scores.window is not None, SOFTCAP=scores.softcap is not None,
        SINKS=scores.sinks is not None, num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip


@triton.jit
def _kernel(
    query, key_cache, value_cache, out, part, weight, sinks, items, rows, tables,
    scale, softcap, window, query_head, query_row, out_row,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, PAGE: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, SINKS: tl.constexpr,
):  # fmt: skip
    entry = items + tl.program_id(0) * 6
    count = tl.load(entry + 1)
    if count == 0:
        return
    first, table = tl.load(entry), tables + tl.load(entry + 2)
    begin, end, slot = tl.load(entry + 3), tl.load(entry + 4), tl.load(entry + 5)
    kv_head = tl.program_id(1)
    pair, d = tl.arange(0, M), tl.arange(0, D)
    each = pair // GROUP
    head = kv_head * GROUP + pair % GROUP
    valid = each < count
    row = tl.load(rows + (first + each) * 2, mask=valid, other=0)
    position = tl.load(rows + (first + each) * 2 + 1, mask=valid, other=-1)
    kept = valid[:, None] & (d[None, :] < DIM)
    place = head[:, None] * query_head + row[:, None].to(tl.int64) * query_row + d[None, :]
    q = tl.load(query + place, mask=kept, other=0.0).to(key_cache.dtype.element_ty)

    # Blocks of tokens need a mask where some row does not see them whole; under a window, which is short, all have one.
    stop = tl.minimum(end, tl.max(position, 0) + 1)
    lowest, low = begin, position
    if WINDOW:
        low = position - window + 1
        lowest = tl.maximum(begin, tl.min(tl.where(valid, low, 2147483647), 0))
        masked = begin + (lowest - begin) // N * N
    else:
        clear = tl.minimum(end, tl.min(tl.where(valid, position, 2147483646), 0) + 1)
        masked = begin + tl.maximum(clear - begin, 0) // N * N
    block = KV_HEADS * PAGE * DIM
    keys, values = key_cache + kv_head * PAGE * DIM, value_cache + kv_head * PAGE * DIM
    acc = tl.zeros([M, D], tl.float32)
    top = tl.full([M], float("-inf"), tl.float32)
    total = tl.zeros([M], tl.float32)
    if not WINDOW:
        acc, top, total = _walk(
            acc, top, total, q, keys, values, table, begin, masked, lowest, stop, position, low,
            scale, softcap, block, DIM, D, PAGE, N, False, WINDOW, SOFTCAP,
        )  # fmt: skip
    acc, top, total = _walk(
        acc, top, total, q, keys, values, table, masked, stop, lowest, stop, position, low,
        scale, softcap, block, DIM, D, PAGE, N, True, WINDOW, SOFTCAP,
    )  # fmt: skip

    # A row that sees nothing of the range has a weight of -inf, and what stands in its part is never read.
    seen = valid & (total != 0.0)
    found = acc / tl.where(seen, total, 1.0)[:, None]
    weighs = tl.where(seen, top + tl.log2(tl.where(seen, total, 1.0)), float("-inf"))
    if slot < 0:
        if SINKS:  # as `merge_parts` does it, to the bit
            sink = tl.load(sinks + head, mask=valid, other=0.0).to(tl.float32) * 1.4426950408889634
            above = tl.maximum(sink, weighs)
            share = tl.exp2(weighs - above)
            found = found * share[:, None] / (tl.exp2(sink - above) + share)[:, None]
        target = out + row[:, None].to(tl.int64) * out_row + head[:, None] * DIM + d[None, :]
        tl.store(target, found.to(out.dtype.element_ty), mask=kept)
    else:
        spot = (slot + each).to(tl.int64) * (KV_HEADS * GROUP) + head
        tl.store(part + spot[:, None] * DIM + d[None, :], found, mask=kept & seen[:, None])
        tl.store(weight + spot, weighs, mask=valid)


@triton.jit
def _walk(
    acc, top, total, q, keys, values, table, first, last, lowest, stop, position, low, scale, softcap, block,
    DIM: tl.constexpr, D: tl.constexpr, PAGE: tl.constexpr, N: tl.constexpr,
    MASKED: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr,
):  # fmt: skip
    """Take the tokens from `first` to `last` into the online softmax. Not `MASKED`: every row sees each of them. What
    lies outside of `lowest` … `stop` is not read: the table may have holes there, and blocks what is no number."""
    d = tl.arange(0, D)
    for at in tl.range(first, last, N):
        token = at + tl.arange(0, N)
        read = (token >= lowest) & (token < stop)
        kept = tl.broadcast_to(d[None, :] < DIM, (N, D))
        if MASKED:
            number = tl.load(table + token // PAGE, mask=read, other=0)
            kept = kept & read[:, None]
        else:
            number = tl.load(table + token // PAGE)
        place = number.to(tl.int64)[:, None] * block + (token % PAGE)[:, None] * DIM + d[None, :]
        if MASKED or D != DIM:
            k, v = tl.load(keys + place, mask=kept, other=0.0), tl.load(values + place, mask=kept, other=0.0)
        else:
            k, v = tl.load(keys + place), tl.load(values + place)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        if SOFTCAP:
            s = softcap * (1.0 - 2.0 / (1.0 + tl.exp2(s)))
        if MASKED:
            hidden = token[None, :] > position[:, None]
            if WINDOW:
                hidden = hidden | (token[None, :] < low[:, None])
            s = tl.where(hidden | (token >= stop)[None, :], float("-inf"), s)
        above = tl.maximum(top, tl.max(s, 1))
        base = above
        if MASKED:
            base = tl.where(above == float("-inf"), 0.0, above)  # nothing seen so far: -inf - -inf is no number
        p = tl.exp2(s - base[:, None])
        shrink = tl.exp2(top - base)
        total = total * shrink + tl.sum(p, 1)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
        top = above
    return acc, top, total
