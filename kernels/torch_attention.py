"""Attention over the paged cache in plain torch: the reference for every other kernel, and the fast path on CPU.

    out[i] = softmax(scale * q[i] K[:i+1]^T) V[:i+1]        for each sequence, K and V read through its block table

Sequences with one row (decode) go together: padded gather, then one SDPA. A chunk of prefill is one SDPA of its own.
Where SDPA lacks part of the formula (soft-capping, sinks), `capped_attention` takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from semantic_parrot.kernels.capped_attention import capped_attention
from semantic_parrot.kernels.paging import SCRATCH, Gather, Segment, Slots


def plan(segments: Sequence[Segment], rows: int, block_size: int, device: torch.device) -> TorchPlan:
    """Consecutive decode rows share a group while their lengths round to one power of two of blocks: order decode
    rows by length, and padding at most doubles what is read."""
    groups: list[_Group] = []
    batch: list[Segment] = []
    bucket = 0
    for s in segments:
        size = 0 if s.rows > 1 else _bucket(-(-s.context // block_size))
        if batch and (size == 0 or size != bucket):
            groups.append(_group(batch, block_size, device))
            batch = []
        bucket = size
        batch.append(s)
        if s.rows > 1:
            groups.append(_group(batch, block_size, device))
            batch = []
    if batch:
        groups.append(_group(batch, block_size, device))
    covered = sum(s.rows for s in segments)
    return TorchPlan(Slots(segments, rows, block_size, device), tuple(groups), covered == rows)


@dataclass(frozen=True, slots=True)
class TorchPlan:
    slots: Slots
    groups: tuple[_Group, ...]
    covered: bool

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_cache: Tensor,
        value_cache: Tensor,
        *,
        scale: float,
        window: int | None,
        softcap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        self.slots.store(key, value, key_cache, value_cache)
        _, heads, rows, dim = query.shape
        kv_heads = key.shape[1]
        # [kv_heads, queries per KV head, rows, dim]: heads that share keys stand together, without repeating keys.
        q = query[0].to(key_cache.dtype).reshape(kv_heads, heads // kv_heads, rows, dim)
        new = query.new_empty if self.covered else query.new_zeros
        out = new((rows, kv_heads, heads // kv_heads, value.shape[3]))
        plain = softcap is None and sinks is None
        sink = None if sinks is None else sinks.float().view(kv_heads, heads // kv_heads, 1, 1)
        for g in self.groups:
            here = slice(g.start, g.start + g.sequences * g.rows)
            if g.rows == 1:
                k, v = g.read(key_cache), g.read(value_cache)
                mask = g.mask(window, k.dtype)
                if plain:
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
            causal = plain and g.context == g.rows and (window is None or window >= g.context)
            chunk_mask = None if causal else g.mask(window, k.dtype)[..., : k.shape[2]]
            if plain:
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


@dataclass(frozen=True, slots=True)
class _Group:
    """`sequences` decode rows from `start` on, or one sequence's chunk of `rows`; `context`: the longest."""

    start: int
    sequences: int
    rows: int
    context: int
    blocks: Tensor  # [sequences, blocks of the longest]
    positions: Tensor  # [sequences, rows]
    block_size: int
    _gather: Gather = field(default_factory=Gather)
    _rows: dict[int, Tensor] = field(default_factory=dict)
    _masks: dict[tuple[int | None, torch.dtype], Tensor] = field(default_factory=dict)

    def read(self, cache: Tensor) -> Tensor:
        """Keys or values, padded: [kv_heads, sequences, tokens, dim]."""
        heads = cache.shape[1]
        rows = self._rows.get(heads)
        if rows is None:
            head = torch.arange(heads, device=self.blocks.device)[:, None, None]
            rows = self._rows[heads] = (self.blocks * heads + head).flatten()
        return self._gather(cache, rows).view(heads, self.sequences, -1, cache.shape[3])

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """What each row may not see, as -inf: [1, sequences, rows, tokens]."""
        if window is not None and window >= self.context:
            window = None
        found = self._masks.get((window, dtype))
        if found is None:
            token = torch.arange(self.blocks.shape[1] * self.block_size, device=self.blocks.device)
            position = self.positions[:, :, None]
            hidden = token > position
            if window is not None:
                hidden |= token <= position - window
            found = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)[None]
            self._masks[window, dtype] = found
        return found


def _bucket(blocks: int) -> int:
    return max(8, 1 << (blocks - 1).bit_length())


def _group(batch: list[Segment], block_size: int, device: torch.device) -> _Group:
    context = max(s.context for s in batch)
    width = -(-context // block_size)
    table = [[*s.blocks[:width], *[SCRATCH] * (width - len(s.blocks))] for s in batch]
    first = torch.tensor([[s.context - s.rows] for s in batch])
    positions = first + torch.arange(batch[0].rows)
    return _Group(
        start=batch[0].start,
        sequences=len(batch),
        rows=batch[0].rows,
        context=context,
        blocks=torch.tensor(table).to(device),
        positions=positions.to(device),
        block_size=block_size,
    )
