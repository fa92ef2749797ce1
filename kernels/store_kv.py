"""Writes a step's new keys and values into the paged cache.

    cache[slot[row] // block_size, :, slot[row] % block_size] = new[:, row]        where slot[row] >= 0

The reference is `paging.Slots`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from semantic_parrot.kernels.paging import Segment


def slots(segments: Sequence[Segment], rows: int, block_size: int) -> Tensor:
    """Where the rows of a step go: [rows], int32."""
    found = [-1] * rows
    for s in segments:
        for row, position in enumerate(range(s.context - s.rows, s.context), s.start):
            found[row] = s.blocks[position // block_size] * block_size + position % block_size
    return torch.tensor(found, dtype=torch.int32)


def store_kv(key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slots: Tensor) -> None:
    """`key` and `value` [kv_heads, rows, head_dim], the last dimension contiguous; caches [blocks, kv_heads,
    block_size, head_dim]; `slots` [rows], int32: -1 for a row that is stored nowhere. Values take the cache's type."""
    heads, rows, dim = key.shape
    _kernel[(rows,)](
        key, value, key_cache, value_cache, slots, *key.stride()[:2], *value.stride()[:2],
        HEADS=heads, H=triton.next_power_of_2(heads), DIM=dim, D=triton.next_power_of_2(dim),
        PAGE=key_cache.shape[2], num_warps=4,
    )  # fmt: skip


@triton.jit
def _kernel(
    key, value, key_cache, value_cache, slots, key_head, key_row, value_head, value_row,
    HEADS: tl.constexpr, H: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + row).to(tl.int64)
    if slot < 0:
        return
    head, d = tl.arange(0, H)[:, None], tl.arange(0, D)[None, :]
    kept = (head < HEADS) & (d < DIM)
    target = ((slot // PAGE * HEADS + head) * PAGE + slot % PAGE) * DIM + d
    k = tl.load(key + head * key_head + row * key_row + d, mask=kept)
    v = tl.load(value + head * value_head + row * value_row + d, mask=kept)
    tl.store(key_cache + target, k.to(key_cache.dtype.element_ty), mask=kept)
    tl.store(value_cache + target, v.to(value_cache.dtype.element_ty), mask=kept)
