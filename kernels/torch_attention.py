"""Attention over the paged cache in plain torch: the reference for every other kernel, and the fast path on CPU.

    out[i] = softmax(scale * q[i] K[:i+1]^T) V[:i+1]        for each sequence, K and V read through its block table

Sequences with one row (decode) go together: padded gather, then one SDPA. A chunk of prefill is one SDPA of its own.
Where SDPA lacks part of the formula (soft-capping, sinks), `capped_attention` takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from semantic_parrot.kernels.capped_attention import capped_attention
from semantic_parrot.kernels.padded import Group, by_length, group
from semantic_parrot.kernels.paging import Scores, Segment, Slots

#: Blocks to which short decode rows are padded at least, so that they go together.
LEAST = 8


def plan(
    segments: Sequence[Segment], rows: int, block_size: int, device: torch.device, *, decodes: bool = True
) -> TorchPlan:
    """`decodes` False: decode rows are stored and left at zero, for another kernel to attend to."""
    attended = segments if decodes else [s for s in segments if s.rows > 1]
    groups = [group(some, block_size, device) for some in by_length(attended, block_size, least=LEAST)]
    covered = sum(s.rows for s in attended) == rows
    return TorchPlan(Slots(segments, rows, block_size, device), tuple(groups), covered)


@dataclass(frozen=True, slots=True)
class TorchPlan:
    slots: Slots
    groups: tuple[Group, ...]
    covered: bool

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, scores: Scores
    ) -> Tensor:
        self.slots.store(key, value, key_cache, value_cache)
        _, heads, rows, dim = query.shape
        kv_heads = key.shape[1]
        # [kv_heads, queries per KV head, rows, dim]: heads that share keys stand together, without repeating keys.
        q = query[0].to(key_cache.dtype).reshape(kv_heads, heads // kv_heads, rows, dim)
        new = query.new_empty if self.covered else query.new_zeros
        out = new((rows, kv_heads, heads // kv_heads, value.shape[3]))
        scale, window, softcap, sinks = scores
        sink = None if sinks is None else sinks.float().view(kv_heads, heads // kv_heads, 1, 1)
        for g in self.groups:
            here = slice(g.start, g.start + g.sequences * g.rows)
            if g.rows == 1:
                k, v = g.read(key_cache), g.read(value_cache)
                mask = g.mask(window, k.dtype)
                if scores.plain:
                    o = functional.scaled_dot_product_attention(
                        q[:, :, here].transpose(1, 2), k, v, attn_mask=mask, scale=scale
                    )
                else:
                    by_row = None if sink is None else sink.transpose(1, 2)
                    o = capped_attention(q[:, :, here].transpose(1, 2), k, v, mask, scale, softcap, by_row)
                out[here] = o.transpose(0, 1)
                continue
            if g.context == g.rows:  # nothing cached before: what the layer just computed is all there is
                k, v = (new[0, :, None, here].to(key_cache.dtype) for new in (key, value))
            else:
                k, v = g.read(key_cache), g.read(value_cache)
            shared = (-1, heads // kv_heads, -1, -1)
            causal = scores.plain and g.context == g.rows and (window is None or window >= g.context)
            chunk_mask = None if causal else g.mask(window, k.dtype)[..., : k.shape[2]]
            if scores.plain:
                o = functional.scaled_dot_product_attention(
                    q[:, :, here],
                    k.expand(shared),
                    v.expand(shared),
                    attn_mask=chunk_mask,
                    is_causal=causal,
                    scale=scale,
                )
            else:
                assert chunk_mask is not None
                o = capped_attention(q[:, :, here], k, v, chunk_mask, scale, softcap, sink)
            out[here] = o.permute(2, 0, 1, 3)
        return out.view(1, rows, heads, -1)
