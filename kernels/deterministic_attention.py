"""Attention whose result for a token depends on that token's sequence alone, to the last bit.

A product's last bits depend on its shape, and a sum's on its order. So every product here has one shape, whatever the
step holds: a tile of `TILE` query rows (padded) by a granule of `GRANULE` tokens, counted from the sequence's start:

    m = max of all scores,   p_j = exp(s_j - m),   out = (sum_j p_j V_j) / (sum_j sum(p_j) + exp(sink - m))   j: granule

The sums over j go pairwise, ((0 + 1) + (2 + 3)) + …: a granule that a row doesn't see adds zero and changes no bit, so
it doesn't matter how many of them the longest neighbour brings along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from semantic_parrot.kernels.paging import SCRATCH, Gather, Scores, Segment, Slots

TILE = 16
GRANULE = 64
_PRODUCTS = 512  # tiles × granules at a time: bounds the memory for gathered keys and values


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
    _tiles: dict[int, tuple[_Tiles, ...]] = field(default_factory=dict)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, scores: Scores
    ) -> Tensor:
        self.slots.store(key, value, key_cache, value_cache)
        _, heads, rows, _ = query.shape
        group = heads // key.shape[1]
        tiles = self._tiles.get(group)
        if tiles is None:
            tiles = self._tiles[group] = _cut(self.segments, group, self.block_size, self.device)
        q = query[0].transpose(0, 1).to(key_cache.dtype) * scores.scale
        out = query.new_zeros((rows, heads, value.shape[3]))
        for some in tiles:
            some.attend(q, key_cache, value_cache, scores, out)
        return out[None]


class _Tiles:
    """Tiles of similar length, attended together over all their granules.

    A tile is up to `each` tokens of one sequence; its `height` rows are (token, query head of the KV head) pairs, of
    which `used` hold something.
    """

    def __init__(
        self, cut: Sequence[tuple[Segment, int, int]], group: int, block_size: int, device: torch.device
    ) -> None:
        """`cut`: (segment, first of its rows, how many) for each tile."""
        each = max(n for _, _, n in cut)  # alone in its tile, a decode row leaves the others to the products
        self.each, self.group, self.height, self.used = each, group, max(TILE, group), each * group
        row = torch.zeros(len(cut), each, dtype=torch.int64)
        position = torch.full((len(cut), each), -1)
        for t, (s, i, n) in enumerate(cut):
            row[t, :n] = torch.arange(s.start + i, s.start + i + n)
            position[t, :n] = torch.arange(s.context - s.rows + i, s.context - s.rows + i + n)
        per = GRANULE // block_size
        self.granules = int(position.max()) // GRANULE + 1
        tables = torch.full((len(cut), self.granules * per), SCRATCH)
        for t, (s, _, _) in enumerate(cut):
            used = min(len(s.blocks), self.granules * per)
            tables[t, :used] = torch.tensor(s.blocks[:used])
        self._tables = tables.view(len(cut), self.granules, 1, per).to(device)
        self._position = position.repeat_interleave(group, 1).to(device)
        self._valid = (position >= 0).to(device)
        self._row = row.to(device)
        self._written = self._row[self._valid]
        self._gather = Gather()
        self._rows: dict[int, Tensor] = {}
        self._masks: dict[int | None, Tensor] = {}

    def attend(self, query: Tensor, key_cache: Tensor, value_cache: Tensor, scores: Scores, out: Tensor) -> None:
        """`query` [rows, heads, dim], scaled; writes this tiles' rows of `out` [rows, heads, dim]."""
        _, window, softcap, sinks = scores
        tiles, granules, height = len(self._row), self.granules, self.height
        kv_heads, dim = key_cache.shape[1], key_cache.shape[3]
        read = self._read(kv_heads)
        q = query[self._row].view(tiles, self.each, kv_heads, self.group, dim).transpose(1, 2).flatten(2, 3)
        if q.shape[2] < height:
            q = torch.nn.functional.pad(q, (0, 0, 0, height - q.shape[2]))
        q = q[:, None].expand(-1, granules, -1, -1, -1).reshape(-1, height, dim)
        k = self._gather(key_cache, read).view(-1, GRANULE, dim)
        score = torch.bmm(q, k.transpose(1, 2)).view(tiles, granules, kv_heads, height, GRANULE)
        used = self.used
        score = score[:, :, :, :used]
        if softcap is not None:
            score = score.div(softcap).tanh_().mul_(softcap)
        score = score + self._mask(window, score.dtype)
        top = score.amax((1, 4), keepdim=True)
        if sinks is not None:  # of each row: [kv_heads, used, 1]
            sink = sinks.to(score.dtype).view(kv_heads, self.group).repeat(1, self.each)[:, :, None]
            top = torch.maximum(top, sink)
        # A row of a shorter tile that sees nothing has a maximum of -inf; what it gives is never read.
        p = score.new_zeros((tiles, granules, kv_heads, height, GRANULE))
        p[:, :, :, :used] = score.sub_(top).exp_()
        total = _pairwise(p[:, :, :, :used].sum(-1, keepdim=True))
        if sinks is not None:
            total = total + (sink - top[:, 0]).exp_()
        v = self._gather(value_cache, read).view(-1, GRANULE, value_cache.shape[3])
        product = torch.bmm(p.view(-1, height, GRANULE), v).view(tiles, granules, kv_heads, height, -1)
        o = _pairwise(product[:, :, :, :used]) / total
        o = o.view(tiles, kv_heads, used // self.group, self.group, -1).transpose(1, 2)
        out[self._written] = o.flatten(2, 3)[self._valid].to(out.dtype)

    def _read(self, kv_heads: int) -> Tensor:
        """Rows of the cache: tile, granule, head, block by block."""
        found = self._rows.get(kv_heads)
        if found is None:
            head = torch.arange(kv_heads, device=self._tables.device)[:, None]
            found = self._rows[kv_heads] = (self._tables * kv_heads + head).flatten()
        return found

    def _mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """[tiles, granules, 1, used, GRANULE], -inf where a row does not see a token."""
        found = self._masks.get(window)
        if found is None:
            token = torch.arange(self.granules * GRANULE, device=self._position.device).view(1, -1, 1, GRANULE)
            position = self._position[:, None, :, None]
            hidden = token > position
            if window is not None:
                hidden |= token <= position - window
            zero = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
            found = self._masks[window] = zero.masked_fill_(hidden, -torch.inf)[:, :, None]
        return found


def _cut(segments: Sequence[Segment], group: int, block_size: int, device: torch.device) -> tuple[_Tiles, ...]:
    """All rows in tiles, those of similar length together."""
    each = max(1, TILE // group)

    def granules(tile: tuple[Segment, int, int]) -> int:
        s, first, rows = tile
        return (s.context - s.rows + first + rows - 1) // GRANULE + 1

    cut = [(s, i, min(each, s.rows - i)) for s in segments for i in range(0, s.rows, each)]
    cut.sort(key=lambda tile: (tile[2] > 1, granules(tile)))
    found: list[list[tuple[Segment, int, int]]] = []
    for tile in cut:  # a batch starts anew where padding would double it, or memory runs over
        width = granules(tile)
        first = found[-1][0] if found else tile
        apart = (tile[2] > 1) != (first[2] > 1) or width > 2 * granules(first)
        if not found or apart or width * (len(found[-1]) + 1) > _PRODUCTS:
            found.append([])
        found[-1].append(tile)
    return tuple(_Tiles(tiles, group, block_size, device) for tiles in found)


def _pairwise(x: Tensor) -> Tensor:
    """Sum over dimension 1 in an order to which zeros at the end make no difference."""
    while (n := x.shape[1]) > 1:
        pairs = x[:, 0 : n - 1 : 2] + x[:, 1::2]
        x = torch.cat((pairs, x[:, n - 1 :]), 1) if n % 2 else pairs
    return x[:, 0]
