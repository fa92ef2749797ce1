"""Rotary position embedding of queries and keys in one pass (Su et al. 2021), in the two-halves layout of Llama.

x1, x2 = the halves of a head's first `rotated` dimensions
out = [x1 cos1 - x2 sin1, x2 cos2 + x1 sin2], the rest as it is
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from semantic_parrot.kernels.triton_setup import refused_dtype


def refuses(query: Tensor, cos: Tensor) -> str | None:
    """Why the kernel does not take the tensors, or None."""
    if cos.shape[-1] % 2 or cos.shape[-1] > query.shape[3]:
        return f"{cos.shape[-1]} rotated dimensions of {query.shape[3]}"
    if cos.shape[0] != 1 or query.shape[0] != 1:
        return "more than one flattened batch"
    return refused_dtype(query.dtype)


def rope(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Rotates `query` [1, heads, rows, dim] and `key` [1, kv_heads, rows, dim] in place, whatever their strides but for
    the last, which is 1. `cos` and `sin` [1, rows, rotated], contiguous. Computed in fp32, rounded once."""
    assert query.stride(3) == key.stride(3) == 1
    rows, rotated = cos.shape[1:]
    most = max(query.shape[1], key.shape[1])
    if rows and rotated:
        _kernel[(rows,)](
            query, key, cos.contiguous(), sin.contiguous(),
            query.shape[1], query.stride(1), query.stride(2), key.shape[1], key.stride(1), key.stride(2), rotated // 2,
            triton.next_power_of_2(most), triton.next_power_of_2(rotated // 2),
        )  # fmt: skip


def reference(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    def turned(x: Tensor) -> Tensor:
        rotated = cos.shape[-1]
        wide = x[..., :rotated].float()
        first, second = wide.chunk(2, -1)
        spun = wide * cos[:, None].float() + torch.cat((-second, first), -1) * sin[:, None].float()
        return torch.cat((spun.to(x.dtype), x[..., rotated:]), -1)

    return turned(query), turned(key)


@triton.jit
def _kernel(
    query, key, cos, sin,
    heads, q_head, q_row, kv_heads, k_head, k_row, half,
    head_block: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    head = tl.arange(0, head_block)
    inside = at < half
    angle = row * 2 * half + at
    cos1 = tl.load(cos + angle, mask=inside, other=0.0).to(tl.float32)[None, :]
    sin1 = tl.load(sin + angle, mask=inside, other=0.0).to(tl.float32)[None, :]
    cos2 = tl.load(cos + angle + half, mask=inside, other=0.0).to(tl.float32)[None, :]
    sin2 = tl.load(sin + angle + half, mask=inside, other=0.0).to(tl.float32)[None, :]
    _turn(query + row * q_row, head, heads, q_head, at, half, cos1, sin1, cos2, sin2)
    _turn(key + row * k_row, head, kv_heads, k_head, at, half, cos1, sin1, cos2, sin2)


@triton.jit
def _turn(x, head, heads, stride, at, half, cos1, sin1, cos2, sin2):
    mask = (head < heads)[:, None] & (at < half)[None, :]
    place = x + head[:, None].to(tl.int64) * stride + at[None, :]
    first = tl.load(place, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(place + half, mask=mask, other=0.0).to(tl.float32)
    tl.store(place, (first * cos1 - second * sin1).to(x.dtype.element_ty), mask=mask)
    tl.store(place + half, (second * cos2 + first * sin2).to(x.dtype.element_ty), mask=mask)
