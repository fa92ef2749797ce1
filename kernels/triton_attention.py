"""A step's attention by Triton kernels: store, shared segments, suffixes, chunks, merge.

What the kernels are told about the step stands in one buffer of the device. The launches depend on the shapes alone
and ask the device nothing, so they can be captured into a CUDA graph, and replayed once the buffer is filled anew
(`refill`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from semantic_parrot.kernels import paged_attention, prefill_attention, tree_attention
from semantic_parrot.kernels.forest import forest
from semantic_parrot.kernels.merge_parts import merge_parts
from semantic_parrot.kernels.paging import Scores, Segment
from semantic_parrot.kernels.store_kv import slots, store_kv
from semantic_parrot.kernels.tile_attention import Parts, attend
from semantic_parrot.kernels.transfer import upload
from semantic_parrot.kernels.triton_setup import refused_dtype
from semantic_parrot.kernels.work import Work
from semantic_parrot.kernels.work_buffer import WorkBuffer, records, sizes

WIDEST = 256
MOST = 64
LEAST = 256  # tokens to a program at least, if it is not the last of a row
_OPERATIONS = (tree_attention, paged_attention, prefill_attention)


class Heads(NamedTuple):
    """The shape of a layer's attention; `itemsize`: bytes of a cached number."""

    kv_heads: int
    group: int
    dim: int
    itemsize: int


def refuses(heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype, window: int | None = None) -> str | None:
    """Why the kernels do not take a layer of this shape, its cache of `dtype`; or None."""
    if head_dim > WIDEST:
        return f"heads of {head_dim}, more than {WIDEST}"
    if heads % kv_heads:
        return f"{heads} query heads, no multiple of {kv_heads} KV heads"
    if heads // kv_heads > MOST:
        return f"{heads // kv_heads} query heads to a KV head, more than {MOST}"
    if window is not None and window < 1:
        return f"a window of {window}"
    return refused_dtype(dtype)


@dataclass(frozen=True, slots=True)
class How:
    """`worth`: (sequences, tokens) → whether reading so many tokens once for so many sequences is worth a segment of
    its own; None: nothing is shared. `short`: a chunk of at most so many rows may share. `chunk`: tokens to a program;
    None: as many as fill the device. `uniform`: all rows go in tiles of one shape."""

    worth: Callable[[int, int], bool] | None = None
    short: int = 16
    chunk: int | None = None
    uniform: bool = False


UNSHARED = How()
#: A row's products have one shape, and its ranges one length, whatever else is in the step: its result depends on its
#: own sequence alone, to the last bit.
DETERMINISTIC = How(chunk=512, uniform=True)


def plan(
    segments: Sequence[Segment], rows: int, block_size: int, device: torch.device, *, how: How = UNSHARED
) -> TritonPlan:
    return TritonPlan(tuple(segments), rows, block_size, device, how)


@dataclass(slots=True)
class TritonPlan:
    """`bounds`: of the sections of the work buffer; None: as many as the step has."""

    segments: tuple[Segment, ...]
    rows: int
    block_size: int
    device: torch.device
    how: How
    bounds: Mapping[str, int] | None = None
    _slots: Tensor | None = None
    _buffers: dict[Heads, WorkBuffer] = field(default_factory=dict)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, scores: Scores
    ) -> Tensor:
        _, heads, rows, dim = query.shape
        layer = Heads(key.shape[1], heads // key.shape[1], dim, key_cache.itemsize)
        buffer = self.prepare(layer)
        assert self._slots is not None
        store_kv(key[0], value[0], key_cache, value_cache, self._slots)
        q = query[0] if query.stride(3) == 1 else query[0].contiguous()
        covered = self.bounds is None and sum(s.rows for s in self.segments) == rows
        out = (query.new_empty if covered else query.new_zeros)((rows, heads, dim))
        work = buffer.sections
        if "rows" not in work:
            return out[None]
        parts = Parts.allocate(len(work["slots"]) if "slots" in work else 0, heads, dim, self.device)
        for operation in _OPERATIONS:
            items = work.get(operation.__name__)
            if items is not None:
                tile = operation.tile(layer.group, dim, layer.itemsize)
                attend(q, key_cache, value_cache, out, parts, items, work["rows"], work["tables"], scores, tile)
        if "merges" in work:
            merge_parts(parts, out, work["merges"], work["slots"], layer.kv_heads, scores.sinks)
        return out[None]

    def prepare(self, layer: Heads) -> WorkBuffer:
        """The work for layers of this shape, on the device; to be called before a graph is captured."""
        if self._slots is None:
            self._slots = upload(slots(self.segments, self.rows, self.block_size), self.device)
        found = self._buffers.get(layer)
        if found is None:
            sections = records(self._work(layer))
            found = WorkBuffer.allocate(self.bounds or sizes(sections), self.device)
            filled = found.fill(sections)
            assert filled
            self._buffers[layer] = found
        return found

    def refill(self, segments: Sequence[Segment]) -> bool:
        """Another step of as many rows, in the same places on the device; False: it needs more room than there is."""
        self.segments = tuple(segments)
        if self._slots is not None:
            self._slots.copy_(upload(slots(segments, self.rows, self.block_size), self.device))
        return all(buffer.fill(records(self._work(layer))) for layer, buffer in self._buffers.items())

    def _work(self, layer: Heads) -> Work:
        pairs = {o.__name__: o.tile(layer.group, layer.dim, layer.itemsize).m for o in _OPERATIONS}
        worth, most = self.how.worth, self.how.short if self.how.worth else 0
        short, long = ([s for s in self.segments if (s.rows <= most) == which] for which in (True, False))
        trees = forest(
            short, self.block_size, lambda n, blocks: worth is not None and worth(n, blocks * self.block_size)
        )
        work = Work(layer.group, self.block_size)
        firsts = [work.enter(s) for s in trees.order]
        tree_attention.add(work, trees, [*firsts, len(work.rows)], pairs[tree_attention.__name__])
        own = zip(trees.order, firsts, trees.owned, strict=True)
        for s, first, skipped in (*own, *((s, work.enter(s), 0) for s in long)):
            if s.rows == 1 and not self.how.uniform:
                paged_attention.add(work, s, first, skipped)
            else:
                prefill_attention.add(work, s, first, skipped, pairs[prefill_attention.__name__])
        work.cut(partial(self._range, layer.kv_heads))
        return work

    def _range(self, kv_heads: int, operation: str, tokens: list[int]) -> int:
        """How many tokens a program goes through: so many that the programs fill the device, or the bound."""
        if self.how.chunk is not None:
            return self.how.chunk
        wanted = -(-sum(tokens) * kv_heads // _programs(self.device))
        size = max(LEAST, 1 << max(wanted - 1, 0).bit_length())
        if self.bounds is not None:
            while size < max(tokens) and sum(-(-n // size) for n in tokens) > self.bounds.get(operation, 0):
                size *= 2
        return size


def _programs(device: torch.device) -> int:
    """How many programs keep a device busy: two waves."""
    return 2 * torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
