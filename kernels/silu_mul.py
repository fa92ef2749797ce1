"""The gate of a gated MLP in one pass (Shazeer 2020, SwiGLU): out = silu(gate) * up, silu(x) = x / (1 + exp(-x))."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from semantic_parrot.kernels.triton_setup import refused_dtype

_BLOCK = 1024


def refuses(gate: Tensor) -> str | None:
    """Why the kernel does not take `gate`, or None."""
    return refused_dtype(gate.dtype)


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """Both of one shape and dtype, which the result has too; computed in fp32 and rounded once."""
    gate, up = gate.contiguous(), up.contiguous()
    out = torch.empty_like(gate)
    if count := gate.numel():
        _kernel[(triton.cdiv(count, _BLOCK),)](gate, up, out, count, _BLOCK)
    return out


def reference(gate: Tensor, up: Tensor) -> Tensor:
    return functional.silu(gate) * up


@triton.jit
def _kernel(gate, up, out, count, block: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < count
    g = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + at, mask=inside, other=0.0).to(tl.float32)
    small = tl.exp(-tl.abs(g))  # never overflows
    sigmoid = tl.where(g < 0, small, 1.0) / (1.0 + small)
    tl.store(out + at, (g * sigmoid * u).to(out.dtype.element_ty), mask=inside)
