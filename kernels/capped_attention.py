"""Attention with what SDPA lacks: soft-capped scores and attention sinks.

    s = softcap * tanh(scale * q K^T / softcap) + mask,   out = exp(s - m) V / (sum(exp(s - m)) + exp(sink - m))

Sources: Gemma 2 (soft-capping), GPT-OSS (a learned sink per head).
"""

from __future__ import annotations

import torch
from torch import Tensor

_SCORES = 1 << 25  # at a time: bounds the memory of a long prefill


def capped_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """`query` [a, b, rows, dim], `key` and `value` [a, b or 1, tokens, dim]; `mask` (-inf where hidden) and `sinks`
    broadcast to the scores, [a, b, rows, tokens]. Every row sees a token. Returns [a, b, rows, dim] in the query's
    dtype."""
    most = max(1, _SCORES // (query.shape[0] * query.shape[1] * key.shape[2]))
    if query.shape[2] > most and mask.shape[2] > 1:
        parts = zip(torch.split(query, most, 2), torch.split(mask, most, 2), strict=True)
        return torch.cat([capped_attention(q, key, value, m, scale, softcap, sinks) for q, m in parts], 2)
    score = torch.matmul(query, key.transpose(2, 3)).float().mul_(scale)
    if softcap is not None:
        score.div_(softcap).tanh_().mul_(softcap)
    score += mask
    top = score.amax(-1, keepdim=True)
    if sinks is not None:
        top = torch.maximum(top, sinks)
    p = score.sub_(top).exp_()
    total = p.sum(-1, keepdim=True)
    if sinks is not None:
        total = total + (sinks - top).exp_()
    return torch.matmul(p.div_(total).to(value.dtype), value)
