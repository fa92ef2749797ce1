"""A matrix product whose rows don't depend on their company, to the last bit: out = x W^T + bias.

A library picks tiles, and splits of the sum, by the number of rows, and so its rounding. Here every tile has one shape
and every sum one order, whatever the number of rows: `TILE` rows (padded) by `TILE` columns, over the inner dimension
from its start in steps of `TILE`. A row's place in its tile does not matter: products of tiles treat rows alike.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from semantic_parrot.kernels.triton_setup import refused_dtype

TILE = 64


def refuses(x: Tensor) -> str | None:
    """Why the kernel does not take `x`, or None."""
    return refused_dtype(x.dtype)


def matmul(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x` [..., in], `weight` [out, in], `bias` [out], of one dtype. Returns [..., out]; sums are in fp32, and fp32 is
    not multiplied as TF32."""
    size = weight.shape[1]
    flat = x.reshape(-1, size).contiguous()
    rows, columns = flat.shape[0], weight.shape[0]
    out = flat.new_empty((rows, columns))
    if rows and columns:
        # Neighbouring programs share a tile of the weight, which is what is large.
        grid = (triton.cdiv(rows, TILE), triton.cdiv(columns, TILE))
        has = bias is not None
        weight = weight.contiguous()
        _kernel[grid](flat, weight, bias if has else weight, out, rows, columns, size, has, TILE)
    return out.view(*x.shape[:-1], columns)


def reference(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.nn.functional.linear(x, weight, bias)


@triton.jit
def _kernel(x, weight, bias, out, rows, columns, size, has: tl.constexpr, tile: tl.constexpr):
    row = tl.program_id(0) * tile + tl.arange(0, tile)
    column = tl.program_id(1) * tile + tl.arange(0, tile)
    left = x + row[:, None].to(tl.int64) * size
    right = weight + column[None, :].to(tl.int64) * size
    total = tl.zeros((tile, tile), tl.float32)
    for begin in range(0, size, tile):
        at = begin + tl.arange(0, tile)
        a = tl.load(left + at[None, :], mask=(row < rows)[:, None] & (at < size)[None, :], other=0.0)
        b = tl.load(right + at[:, None], mask=(column < columns)[None, :] & (at < size)[:, None], other=0.0)
        total = tl.dot(a, b, total, input_precision="ieee")
    if has:
        total += tl.load(bias + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
    place = out + row[:, None].to(tl.int64) * columns + column[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=(row < rows)[:, None] & (column < columns)[None, :])
