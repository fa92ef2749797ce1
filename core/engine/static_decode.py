"""Decode steps over tensors that stay where they are: what a CUDA graph can replay. On a CPU each step is run.

One forward for each bucket of rows, a power of two; rows that a step does not fill belong to no sequence. What
attention is told of a step stands in a buffer of bounded sections (`kernels.work_buffer`); a step that needs more room
than its bucket has had so far gets tensors anew, with twice the room. Source: CUDA graphs by batch size, as in vLLM.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from semantic_parrot.core.engine import fusing
from semantic_parrot.core.engine.attention import Step
from semantic_parrot.core.engine.kv import BLOCK_SIZE, PagedCache
from semantic_parrot.kernels.paging import Segment
from semantic_parrot.kernels.transfer import upload
from semantic_parrot.kernels.triton_attention import Heads, How, TritonPlan, refuses

Replay = Callable[[], None]
#: Kinds of RoPE whose angles depend on the position alone.
_ROPE = frozenset({"default", "linear", "llama3", "yarn"})


@dataclass(frozen=True, slots=True)
class Static:
    """A bucket's tensors: `tokens` and `positions` [1, rows], `logits` [rows, vocabulary], written by `replay`."""

    plan: TritonPlan
    tokens: Tensor
    positions: Tensor
    logits: Tensor
    replay: Replay


def suits(model: Any, cache: PagedCache) -> bool:
    """Whether a forward of `model` is our own kernels' and asks the device nothing."""
    rope = model.config.rope_parameters
    if fusing.refuses(model) is not None or rope.get("rope_type", "default") not in _ROPE:
        return False
    heads = model.config.num_attention_heads
    return all(refuses(heads, keys.shape[1], keys.shape[3], keys.dtype) is None for keys in cache.keys)


class StaticDecode:
    """For a `model` that `suits`; `layers` as the Runner's."""

    def __init__(self, model: Any, cache: PagedCache, layers: dict[int, int], how: How) -> None:
        self._model, self._cache, self._layers, self._how = model, cache, layers, how
        self._device = cache.keys[0].device
        heads = model.config.num_attention_heads
        self._shapes = {
            Heads(keys.shape[1], heads // keys.shape[1], keys.shape[3], keys.itemsize) for keys in cache.keys
        }
        self._buckets: dict[int, Static] = {}

    @torch.inference_mode()
    def run(self, tokens: Tensor, positions: Sequence[int], segments: Sequence[Segment]) -> Tensor:
        """A step of one row for each sequence. Returns the logits [len(tokens), vocabulary], fp32."""
        rows = 1 << (len(tokens) - 1).bit_length()
        static = self._buckets.get(rows)
        if static is None or not static.plan.refill(segments):
            static = self._buckets[rows] = self._make(rows, segments, static)
        static.tokens[0, : len(tokens)] = tokens
        static.positions.copy_(upload([[*positions, *[0] * (rows - len(positions))]], self._device))
        static.replay()
        return static.logits[: len(tokens)].clone()  # the next step overwrites them, and may be half of this one

    def _make(self, rows: int, segments: Sequence[Segment], before: Static | None) -> Static:
        bounds = self._bounds(rows, segments, before.plan.bounds or {} if before is not None else {})
        plan = TritonPlan(tuple(segments), rows, BLOCK_SIZE, self._device, self._how, bounds)
        for shape in self._shapes:
            plan.prepare(shape)
        tokens, positions = (torch.zeros(1, rows, dtype=torch.int64, device=self._device) for _ in range(2))
        vocabulary = self._model.config.vocab_size
        logits = torch.empty(rows, vocabulary, dtype=torch.float32, device=self._device)
        step = Step(plan, self._cache, self._layers)

        def run() -> None:
            logits.copy_(fusing.forward(self._model, tokens, positions, step))

        return Static(plan, tokens, positions, logits, _captured(run) if self._device.type == "cuda" else run)

    def _bounds(self, rows: int, segments: Sequence[Segment], before: Mapping[str, int]) -> dict[str, int]:
        """Twice what the step needs, and no less than `before`."""
        exact = TritonPlan(tuple(segments), rows, BLOCK_SIZE, self._device, self._how)
        bounds = dict(before)
        for shape in self._shapes:
            for name, section in exact.prepare(shape).sections.items():
                bounds[name] = max(bounds.get(name, 0), 2 * len(section))
        return bounds


def _captured(run: Replay) -> Replay:
    """`run` as a CUDA graph, after a first time outside of it, in which kernels are compiled. Not run on a GPU yet."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    replay: Replay = graph.replay
    return replay
