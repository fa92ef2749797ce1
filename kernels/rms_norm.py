"""Root-mean-square norm, with the residual addition before it in the same pass (Zhang and Sennrich 2019).

    s = x + residual,   out = weight * s / sqrt(mean(s^2) + eps)

A program has as many rows as its width allows, whatever the number of rows: so a row's bits don't depend on it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from semantic_parrot.kernels.triton_setup import refused_dtype

WIDEST = 1 << 15
_TILE = 1 << 12  # numbers to a program, if a row has no more


def refuses(x: Tensor) -> str | None:
    """Why the kernel does not take `x`, or None."""
    if x.shape[-1] > WIDEST:
        return f"rows of {x.shape[-1]}, more than {WIDEST}"
    return refused_dtype(x.dtype)


def rms_norm(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`x` and `residual` [..., dim], `weight` [dim], of one dtype. Returns out and s (`x` itself without a residual),
    both as `x`. The mean is taken in fp32; s and what `weight` multiplies are rounded to the dtype, as Llama does."""
    dim = x.shape[-1]
    x = x.contiguous()
    out = torch.empty_like(x)
    total = x if residual is None else torch.empty_like(x)
    rows = x.numel() // dim
    if rows:
        other = x if residual is None else residual.contiguous()
        block = triton.next_power_of_2(dim)
        each = max(_TILE // block, 1)
        grid, warps = (triton.cdiv(rows, each),), min(max(block // 512, 4), 16)
        _kernel[grid](
            x, other, weight, out, total, rows, dim, eps, residual is not None, each, block, num_warps=warps
        )  # fmt: skip
    return out, total


def reference(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> tuple[Tensor, Tensor]:
    total = x if residual is None else x + residual
    wide = total.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype), total


@triton.jit
def _kernel(
    x, residual, weight, out, total, rows, dim, eps, adds: tl.constexpr, each: tl.constexpr, block: tl.constexpr
):
    row, at = tl.program_id(0) * each + tl.arange(0, each), tl.arange(0, block)
    inside = (row < rows)[:, None] & (at < dim)[None, :]
    place = row[:, None].to(tl.int64) * dim + at[None, :]
    s = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    if adds:
        s += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
        rounded = s.to(total.dtype.element_ty)
        tl.store(total + place, rounded, mask=inside)
        s = rounded.to(tl.float32)
    mean = tl.sum(s * s, 1) / dim
    normal = (s * (1.0 / tl.sqrt(mean + eps))[:, None]).to(out.dtype.element_ty)
    scale = tl.load(weight + at, mask=at < dim, other=0.0).to(tl.float32)[None, :]
    tl.store(out + place, (normal.to(tl.float32) * scale).to(out.dtype.element_ty), mask=inside)
