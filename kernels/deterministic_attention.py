"""Attention whose result for a token depends on that token's sequence alone, to the last bit.

A product's last bits depend on its shape. So every product here has one shape, whatever the step holds: a tile of
`TILE` query rows (padded) by a granule of `GRANULE` tokens, granules taken from a sequence's start and reduced one
after the other (running maximum and sum, as FlashAttention does). A granule that a row doesn't see adds exactly zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from semantic_parrot.kernels.paging import SCRATCH, Segment, Slots, gather

TILE = 16
GRANULE = 64
_LOW = -1e30  # below every score, yet finite: the difference of two stays a number


def plan(segments: Sequence[Segment], rows: int, block_size: int, device: torch.device) -> DeterministicPlan:
    """`block_size` must divide GRANULE."""
    assert GRANULE % block_size == 0
    return DeterministicPlan(Slots(segments, rows, block_size, device), tuple(segments), block_size, device)


@dataclass(frozen=True, slots=True)
class DeterministicPlan:
    slots: Slots
    segments: tuple[Segment, ...]
    block_size: int
    device: torch.device
    _tiles: dict[int, _Tiles] = field(default_factory=dict)

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
    ) -> Tensor:
        self.slots.store(key, value, key_cache, value_cache)
        _, heads, rows, dim = query.shape
        kv_heads = key.shape[1]
        group = heads // kv_heads
        tiles = self._tiles.get(group)
        if tiles is None:
            tiles = self._tiles[group] = _Tiles(self.segments, group, self.block_size, self.device)
        q = tiles.pack(query[0].to(key_cache.dtype) * scale, kv_heads)  # [tiles, kv_heads, height, dim]
        count, height = q.shape[0], q.shape[2]
        best = q.new_full((count, kv_heads, height, 1), _LOW)
        total = torch.zeros_like(best)
        out = q.new_zeros((count, kv_heads, height, value.shape[3]))
        for index, active in tiles.granules(window):
            read = tiles.rows(index, active, kv_heads)
            k = gather(key_cache, read).view(active * kv_heads, GRANULE, dim)
            v = gather(value_cache, read).view(active * kv_heads, GRANULE, -1)
            score = torch.bmm(q[:active].view(-1, height, dim), k.transpose(1, 2))
            score = score.view(active, kv_heads, height, GRANULE) + tiles.mask(index, active, window, q.dtype)
            m = torch.maximum(best[:active], score.amax(-1, keepdim=True))
            p = (score - m).exp_()
            fade = (best[:active] - m).exp_()
            product = torch.bmm(p.view(-1, height, GRANULE), v).view(active, kv_heads, height, -1)
            best[:active] = m
            total[:active] = total[:active] * fade + p.sum(-1, keepdim=True)
            out[:active] = out[:active] * fade + product
        return tiles.unpack(out / total.clamp_min(1e-30), rows).to(query.dtype)


class _Tiles:
    """The step's query rows in tiles of one sequence each, longest context first.

    A tile holds `each` tokens; its `height` rows are (token, query head of the KV head) pairs, then padding.
    """

    def __init__(self, segments: Sequence[Segment], group: int, block_size: int, device: torch.device) -> None:
        self.group = group
        self.each = max(1, TILE // group)
        self.height = max(TILE, group)
        cut = [(s, i, min(self.each, s.rows - i)) for s in segments for i in range(0, s.rows, self.each)]
        cut.sort(key=lambda tile: tile[0].context - tile[0].rows + tile[1] + tile[2], reverse=True)
        row = torch.zeros(len(cut), self.each, dtype=torch.int64)
        position = torch.full((len(cut), self.each), -1)
        for t, (s, i, n) in enumerate(cut):
            row[t, :n] = torch.arange(s.start + i, s.start + i + n)
            position[t, :n] = torch.arange(s.context - s.rows + i, s.context - s.rows + i + n)
        self._ends = position.amax(1).tolist()
        self._starts = position[:, 0].tolist()
        per = GRANULE // block_size
        width = -(-max(s.context for s in segments) // GRANULE) * per
        tables = torch.full((len(segments), width), SCRATCH)
        for n, s in enumerate(segments):
            used = min(len(s.blocks), width)
            tables[n, :used] = torch.tensor(s.blocks[:used])
        which = {id(s): n for n, s in enumerate(segments)}
        self._tables = tables[[which[id(s)] for s, _, _ in cut]].view(len(cut), -1, per).to(device)
        self._row = row.to(device)
        self._valid = (position >= 0).to(device)
        spread = torch.full((len(cut), self.height), -1)
        spread[:, : self.each * group] = position.repeat_interleave(group, 1)
        self._position = spread.to(device)
        self._rows: dict[tuple[int, int], Tensor] = {}
        self._masks: dict[tuple[int, int | None], Tensor] = {}

    def granules(self, window: int | None) -> list[tuple[int, int]]:
        """(granule, how many tiles from the first reach it), without granules out of every tile's window."""
        found = []
        active = len(self._ends)
        for index in range(self._ends[0] // GRANULE + 1):
            while self._ends[active - 1] < index * GRANULE:
                active -= 1
            past = (index + 1) * GRANULE
            if window is None or any(start - window + 1 < past for start in self._starts[:active]):
                found.append((index, active))
        return found

    def rows(self, index: int, active: int, kv_heads: int) -> Tensor:
        found = self._rows.get((index, kv_heads))
        if found is None:
            head = torch.arange(kv_heads, device=self._tables.device)[None, :, None]
            found = self._rows[index, kv_heads] = (self._tables[:active, index, None] * kv_heads + head).flatten()
        return found

    def mask(self, index: int, active: int, window: int | None, dtype: torch.dtype) -> Tensor:
        """[active, 1, height, GRANULE], -inf where a row does not see a token."""
        found = self._masks.get((index, window))
        if found is None:
            token = torch.arange(index * GRANULE, (index + 1) * GRANULE, device=self._position.device)
            position = self._position[:active, :, None]
            hidden = token > position
            if window is not None:
                hidden |= token <= position - window
            found = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
            found = self._masks[index, window] = found[:, None]
        return found

    def pack(self, query: Tensor, kv_heads: int) -> Tensor:
        """[heads, rows, dim] → [tiles, kv_heads, height, dim]."""
        tiles, dim = len(self._row), query.shape[2]
        q = query.transpose(0, 1)[self._row].view(tiles, self.each, kv_heads, self.group, dim)
        out = query.new_zeros((tiles, kv_heads, self.height, dim))
        out[:, :, : self.each * self.group] = q.transpose(1, 2).flatten(2, 3)
        return out

    def unpack(self, out: Tensor, rows: int) -> Tensor:
        """[tiles, kv_heads, height, dim] → [1, rows, heads, dim]."""
        tiles, kv_heads, _, dim = out.shape
        o = out[:, :, : self.each * self.group].reshape(tiles, kv_heads, self.each, self.group, dim).transpose(1, 2)
        result = out.new_zeros((rows, kv_heads * self.group, dim))
        result[self._row[self._valid]] = o.flatten(2, 3)[self._valid]
        return result[None]
