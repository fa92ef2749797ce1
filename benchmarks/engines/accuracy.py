"""The error of attention against fp64: ours, and that of torch's SDPA on inputs of the same type.

Errors are root mean squares and maxima over all outputs, of standard normal queries, keys and values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from semantic_parrot.core.engine import backend
from semantic_parrot.kernels.dispatch import paged_attention
from semantic_parrot.kernels.paging import Scores, Segment

BLOCK = 16
HEADS, KV_HEADS, DIM = 12, 4, 64
CPU = torch.device("cpu")
#: (what, rows of one sequence, sequences, tokens of a prefix that they share, tokens before the rows)
SHAPES = (
    ("decode, batch 1, 2,000 tokens", 1, 1, 0, 2000),
    ("decode, batch 32, 2,000 shared tokens", 1, 32, 2000, 40),
    ("prefill of 512 tokens", 512, 1, 0, 0),
)


@torch.inference_mode()
def measured(dtype: str) -> list[dict[str, Any]]:
    """One row a shape, with the kernels that a CPU here is served by. Weights and activations are of `dtype`; our cache
    is fp32 on a CPU, as in the engine."""
    generator, kernels = torch.Generator().manual_seed(0), backend.choose("auto", CPU)
    return [
        {"dtype": dtype, "kernels": kernels, "what": what, **_errors(kernels, getattr(torch, dtype), generator, *shape)}
        for what, *shape in SHAPES
    ]


def _errors(
    kernels: str, dtype: torch.dtype, generator: torch.Generator, rows: int, sequences: int, prefix: int, before: int
) -> dict[str, float]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    shared = normal(2, KV_HEADS, prefix, DIM)
    total = prefix + before + rows
    q = normal(sequences, HEADS, rows, DIM)
    kv = [torch.cat((shared, normal(2, KV_HEADS, total - prefix, DIM)), dim=2) for _ in range(sequences)]
    keys, values = (torch.stack([pair[i] for pair in kv]) for i in range(2))
    mask = torch.ones(rows, total, dtype=torch.bool).tril(total - rows)

    def reference(kind: torch.dtype) -> Tensor:
        group = HEADS // KV_HEADS
        k, v = (x.to(kind).repeat_interleave(group, dim=1) for x in (keys, values))
        return sdpa(q.to(kind), k, v, attn_mask=mask)

    exact = reference(torch.float64)
    ours, theirs = _ours(kernels, q, keys, values, prefix), reference(dtype)
    found: dict[str, float] = {}
    for name, out in (("ours", ours), ("sdpa", theirs)):
        error = out.double() - exact
        found |= {f"{name}_rms": error.square().mean().sqrt().item(), f"{name}_max": error.abs().max().item()}
    return found


def _ours(kernels: str, q: Tensor, keys: Tensor, values: Tensor, prefix: int) -> Tensor:
    """Through the paged cache: the prefix's whole blocks once, the rest for each sequence."""
    sequences, _, rows, _ = q.shape
    total = keys.shape[2]
    common, count = prefix // BLOCK, -(-total // BLOCK)
    own = count - common
    tables = [
        [*range(1, common + 1), *range(1 + common + i * own, 1 + common + (i + 1) * own)] for i in range(sequences)
    ]
    caches = [torch.zeros(1 + common + sequences * own, KV_HEADS, BLOCK, DIM) for _ in range(2)]
    for cache, source in zip(caches, (keys, values), strict=True):
        for table, one in zip(tables, source, strict=True):
            for position in range(total - rows):
                cache[table[position // BLOCK], :, position % BLOCK] = one[:, position].float()
    segments = [Segment(i * rows, rows, total, table) for i, table in enumerate(tables)]
    plan = paged_attention(kernels, CPU, deterministic=False)(segments, sequences * rows, BLOCK, CPU)

    def flat(x: Tensor) -> Tensor:  # [sequences, heads, rows, dim] → [1, heads, sequences * rows, dim]
        return x.transpose(0, 1).flatten(1, 2)[None]

    new = (flat(x[:, :, -rows:]) for x in (keys, values))
    out = plan.attend(flat(q), *new, *caches, Scores(DIM**-0.5))
    return out[0].view(sequences, rows, HEADS, DIM).transpose(1, 2)
