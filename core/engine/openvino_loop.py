"""OpenVINO GenAI's continuous batching as the loop of an engine process: it computes, samples, schedules and keeps
prefixes; text, templates, stop strings and limits are ours, as on the native engine."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from semantic_parrot.core.engine.intake import Intake
from semantic_parrot.core.engine.messages import Failed, Finished, PrefixesChanged, Reply, Text
from semantic_parrot.core.engine.receiving import Receiving
from semantic_parrot.core.engine.sequence import Sequence
from semantic_parrot.core.engine.text import TextModel
from semantic_parrot.core.engines.protocol import CachedPrefix, Directions, Done, Keep, Stats, Usage
from semantic_parrot.core.errors import InvalidRequest, OutOfMemory, Unsupported
from semantic_parrot.core.events import Timings
from semantic_parrot.core.request import ModelRequest

#: It takes none of 1, which leaves the likeliest token alone; this does too.
MOST_MIN_P = 1 - 1e-6


@dataclass(frozen=True, slots=True)
class _Live:
    """`handle`: OpenVINO's."""

    sequence: Sequence
    handle: Any


class OpenVinoLoop(Receiving):
    """`genai`, `tensor`: the module, and what makes its tensors of arrays. `pipeline`: a ContinuousBatchingPipeline.
    `blocks` of `block` tokens hold keys and values. One thread."""

    coming = 0  # its steps wait for nobody (see `hop`)

    def __init__(
        self,
        genai: Any,
        tensor: Any,
        pipeline: Any,
        text: TextModel,
        *,
        eos: Collection[int],
        context: int,
        vocabulary: int,
        blocks: int,
        block: int,
    ) -> None:
        super().__init__(text, Intake(text, context, vocabulary, blocks * block))
        self._genai = genai
        self._tensor = tensor
        self._pipeline = pipeline
        self._eos = frozenset(eos)
        self._blocks = blocks
        self._live: dict[int, _Live] = {}
        self._computed = self._generated = self._steps = 0

    @property
    def busy(self) -> bool:
        return self._preparing.busy or self._computing

    def _enter(self, id: int, request: ModelRequest, arrived: float, directions: Directions, tokens: list[int]) -> None:
        sequence = self._intake.sequence(id, request, tokens, arrived, directions, self._eos)
        try:
            prompt = self._tensor(np.array([tokens], dtype=np.int64))
            self._live[id] = _Live(sequence, self._pipeline.add_request(id, prompt, self._config(sequence)))
        except RuntimeError as error:  # its checks: the last line says which
            why = str(error).strip().splitlines()[-1]
            raise InvalidRequest(f"OpenVINO refuses the request: {why}") from error

    @property
    def _computing(self) -> bool:
        # What was cancelled is only let go in a step.
        return bool(self._live) or self._pipeline.has_non_finished_requests()

    def cancel(self, id: int) -> None:
        self._preparing.remove(id)
        if (live := self._live.pop(id, None)) is not None:
            live.handle.cancel()

    def step(self) -> list[Reply]:
        replies = self._preparing.ready()
        if not self._computing:
            self._preparing.wait()
            return replies
        self._pipeline.step()
        self._steps += 1
        now = time.monotonic()
        return [*replies, *(reply for live in list(self._live.values()) for reply in self._read(live, now))]

    def stats(self) -> Stats:
        used = round(self._blocks * self._pipeline.get_metrics().cache_usage / 100)
        begun = sum(live.sequence.first > 0 for live in self._live.values())
        return Stats(
            prompt_tokens_computed=self._computed,
            generated_tokens=self._generated,
            steps=self._steps,
            kv_blocks_cached=used,
            kv_blocks_total=self._blocks,
            running=begun,
            waiting=len(self._live) - begun,
        )

    def prefill(self, id: int, request: ModelRequest, keep: tuple[Keep, ...] = (), salt: str = "") -> None:
        """It fills no prompt before its request."""

    def publish(self, number: int, request: ModelRequest) -> int:
        raise Unsupported("OpenVINO keeps no prefix for ever", where="public_prefixes")

    def forget_prefixes(self) -> None:
        """The handle refuses it."""

    def changed(self) -> list[PrefixesChanged]:
        """It does not tell."""
        return []

    def outline(self, *, text: bool) -> tuple[CachedPrefix, ...]:
        """It does not tell what it keeps."""
        return ()

    def _config(self, s: Sequence) -> Any:
        sampling = s.sampling
        config = self._genai.GenerationConfig()
        config.apply_chat_template = False
        config.max_new_tokens = s.limit - s.prompt
        config.min_new_tokens = sampling.min_tokens
        config.ignore_eos = sampling.ignore_eos
        config.stop_token_ids = set(s.ends)
        config.repetition_penalty = sampling.repetition_penalty
        config.do_sample = sampling.temperature > 0
        if config.do_sample:
            config.temperature = sampling.temperature
            config.top_p = sampling.top_p
            config.min_p = min(sampling.min_p, MOST_MIN_P)
            config.rng_seed = sampling.seed % (1 << 63)
            if sampling.top_k:
                config.top_k = sampling.top_k
        return config

    def _read(self, live: _Live, now: float) -> list[Reply]:
        """What has come of an answer, and its end."""
        s, handle = live.sequence, live.handle
        parts: list[str] = []
        ended = False
        while not ended and handle.can_read():
            for token in handle.read()[0].generated_ids:
                if not s.first:
                    s.first = now
                    self._computed += s.prompt
                s.tokens.append(token)
                self._generated += 1
                ended = token in s.ends
                if not ended:
                    parts.append(s.text.push(token, stops=len(s.tokens) - s.prompt > s.sampling.min_tokens))
                ended = ended or s.text.stopped
                if ended or len(s.tokens) >= s.limit:
                    return self._finish(s, "".join(parts), now, "stop" if ended else "length")
        if handle.get_status() == self._genai.GenerationStatus.IGNORED:
            self.cancel(s.id)
            message = f"the KV cache has no room for token {len(s.tokens)} of this request, with no other beside it"
            return [Failed(s.id, OutOfMemory.code, message)]
        shown = "".join(parts)
        return [Text(s.id, shown, _usage(s))] if shown else []

    def _finish(self, s: Sequence, shown: str, now: float, reason: str) -> list[Reply]:
        self.cancel(s.id)
        shown += s.text.finish()
        # It does not say when it began: what a request waited is counted as its prefill.
        timings = Timings(queued=0.0, prefill=s.first - s.arrived, decode=now - s.first)
        done = Done(text=s.text.text, reason=reason, usage=_usage(s), timings=timings)
        return [*([Text(s.id, shown, _usage(s))] if shown else []), Finished(s.id, done)]


def _usage(s: Sequence) -> Usage:
    """What it reused of a prompt it does not say."""
    return Usage(prompt=s.prompt, cached=0, completion=len(s.tokens) - s.prompt)
