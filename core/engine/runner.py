"""Runs a planned step through the model: one flattened forward, logits where they are wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from semantic_parrot.core.engine.attention import Step
from semantic_parrot.core.engine.kv import BLOCK_SIZE, PagedCache
from semantic_parrot.core.engine.lean import Lean
from semantic_parrot.core.engine.offload_pinned import PinnedStore
from semantic_parrot.core.engine.offload_store import OffloadStore
from semantic_parrot.core.engine.planner import Batch, Work
from semantic_parrot.kernels.dispatch import paged_attention
from semantic_parrot.kernels.paging import Segment
from semantic_parrot.kernels.transfer import upload

#: (tokens [rows], positions, segments) → logits.
Decode = Callable[[Tensor, Sequence[int], Sequence[Segment]], Tensor]
ROWS = 16  # from about this many rows on, a product's row has the same bits whatever the number of rows


class Runner:
    """`layers`: from the model's layer index to the cache's. `long_after` as in the planner. `store`: the second tier's
    slots. `decode`: runs the steps that have one row for each sequence, if there is one. `forward`: computes the model
    in place of its modules, if there is one."""

    def __init__(
        self,
        model: Any,
        cache: PagedCache,
        layers: dict[int, int],
        *,
        deterministic: bool,
        long_after: int | None,
        kernels: str = "torch",
        store: OffloadStore | PinnedStore | None = None,
        decode: Decode | None = None,
        forward: Lean | None = None,
    ) -> None:
        self._model = model
        self._cache = cache
        self._layers = layers
        self._deterministic = deterministic
        self._long_after = long_after
        self._store = store
        self._device = cache.keys[0].device
        self._decode = decode
        self._lean = forward
        group = model.config.get_text_config().num_attention_heads // cache.keys[0].shape[1]
        self._plan = paged_attention(kernels, self._device, deterministic=deterministic, group=group)

    def prepare(self, batch: Batch) -> None:
        """What comes before `run`, once, however often that is tried."""
        if self._store is not None:
            self._store.write(self._cache, batch.moves.out)
        self._cache.copy(batch.copies)
        self._cache.clear(batch.clear)
        if self._store is not None:
            self._store.read(self._cache, batch.moves.back)

    @torch.inference_mode()
    def run(self, batch: Batch) -> tuple[list[Work], Tensor]:
        """Compute the batch's rows and write their KV. Returns the work that wanted logits, and those: [len, vocab],
        fp32."""
        # Decode rows by length: attention pads neighbours to one length.
        work = sorted(batch.work, key=lambda w: (w.rows > 1, w.sequence.computed))
        tokens: list[int] = []
        positions: list[int] = []
        segments: list[Segment] = []
        for w in work:
            s = w.sequence
            end = s.computed + w.rows
            segments.append(Segment(len(positions), w.rows, end, s.blocks))
            tokens += s.tokens[s.computed : end]
            positions += range(s.computed, end)
        pad = self._padding(len(positions), max(positions), batch.long)
        sequences = [w.sequence for w in work]
        ids = upload(tokens, self._device) if batch.latest is None else batch.latest.inputs(sequences)
        # Past the threshold, a padding row alone tells transformers to use the long factors.
        positions += [self._long_after if batch.long and self._long_after is not None else 0] * pad
        wanted = [(w, segment.start + w.rows - 1) for w, segment in zip(work, segments, strict=True) if w.samples]
        logits = self._forward(functional.pad(ids, (0, pad)), positions, segments, [row for _, row in wanted])
        return [w for w, _ in wanted], logits

    def _forward(
        self, tokens: Tensor, positions: Sequence[int], segments: Sequence[Segment], wanted: list[int]
    ) -> Tensor:
        if self._decode is not None and len(wanted) == len(segments) and all(s.rows == 1 for s in segments):
            return self._decode(tokens[: len(segments)], positions[: len(segments)], segments)
        plan = self._plan(segments, len(tokens), BLOCK_SIZE, self._device)
        rows = list(wanted)
        if self._deterministic and rows:
            rows += [rows[0]] * (-len(rows) % ROWS)
        at = upload(positions, self._device)
        keep = upload(rows, self._device, torch.int64)
        step = Step(plan, self._cache, self._layers)
        if self._lean is not None:
            return self._lean(tokens, at, keep, step).float()
        output = self._model(
            input_ids=tokens[None], position_ids=at[None], use_cache=False, logits_to_keep=keep, parrot=step
        )
        logits: Tensor = output.logits[0, : len(wanted)]
        return logits.float()

    def _padding(self, rows: int, last: int, long: bool) -> int:
        if self._deterministic and rows % ROWS:
            return ROWS - rows % ROWS
        needed = long and self._long_after is not None and last < self._long_after
        return (ROWS if self._deterministic else 1) if needed else 0
