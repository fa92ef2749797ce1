"""The engine: schedule → run → postprocess. One thread; `core.engine.process` gives it a process of its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from semantic_parrot.core.engine import halving
from semantic_parrot.core.engine.begun import Begun
from semantic_parrot.core.engine.draw import Drawn
from semantic_parrot.core.engine.grammar import Grammars
from semantic_parrot.core.engine.hop import coming
from semantic_parrot.core.engine.intake import Intake
from semantic_parrot.core.engine.kv import BLOCK_SIZE, BlockPool
from semantic_parrot.core.engine.messages import Failed, Finished, PrefixesChanged, Reply, Text
from semantic_parrot.core.engine.offload import Offload
from semantic_parrot.core.engine.outline import Outline
from semantic_parrot.core.engine.planner import Batch, Planner, Work
from semantic_parrot.core.engine.receiving import Receiving
from semantic_parrot.core.engine.runner import Runner
from semantic_parrot.core.engine.salted_tree import PUBLIC
from semantic_parrot.core.engine.sampler import NONE_LEFT, UNREADABLE
from semantic_parrot.core.engine.sequence import Sequence
from semantic_parrot.core.engine.text import TextModel
from semantic_parrot.core.engines.protocol import CachedPrefix, Directions, Done, Keep, Stats, Usage
from semantic_parrot.core.errors import BadLogits, InvalidRequest, OutOfMemory, ParrotError
from semantic_parrot.core.events import Timings
from semantic_parrot.core.grammar import Grammar
from semantic_parrot.core.request import ModelRequest
from semantic_parrot.core.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Launched:
    """A step that the device is told to do: its work, that for which there was no memory, and the tokens it gives."""

    work: list[Work]
    failed: list[Work]
    drawn: Drawn | None


class EngineLoop(Receiving):
    """`eos`: the token ids that end an answer. `context`: prompt and output together, in tokens. `vocabulary`: tokens
    that have a logit. `offload`: the planner's. `overlap`: the next step is launched before the tokens of one are read,
    where they can't change what it is. `coming`: calls that the next step should wait for (see `hop`)."""

    def __init__(
        self,
        runner: Runner,
        planner: Planner,
        pool: BlockPool,
        text: TextModel,
        grammars: Grammars,
        *,
        eos: Collection[int],
        context: int,
        vocabulary: int,
        offload: Offload | None = None,
        overlap: bool = False,
    ) -> None:
        super().__init__(text, Intake(text, context, vocabulary, pool.total * BLOCK_SIZE))
        self._runner = runner
        self._planner = planner
        self._pool = pool
        self._offload = offload
        self._overlap = overlap
        self._next: Launched | None = None
        self._eos = frozenset(eos)
        self._context = context
        self._grammars = grammars
        self._live: dict[int, Sequence] = {}
        self._begun: dict[int, Begun] = {}  # of prompts that are filled ahead, until they are cancelled
        self._computed = self._reused = self._generated = self._steps = self.coming = 0

    @property
    def busy(self) -> bool:
        return bool(self._live or self._preparing.busy or self._planner.ahead)

    def _enter(self, id: int, request: ModelRequest, arrived: float, directions: Directions, tokens: list[int]) -> None:
        self._live[id] = sequence = self._intake.sequence(id, request, tokens, arrived, directions, self._eos)
        grammar = request.grammar
        if request.tools is not None and request.tools.forced:
            grammar = self.text.call_grammar(request.tools)
        if grammar is None:
            self._planner.add(sequence)
            return
        compiled = self._grammars.compile(grammar, directions.salt)
        late = InvalidRequest("the grammar takes too long to compile", where=grammar.where)
        self._preparing.grammar(id, compiled, partial(self._constrain, sequence, grammar), late)

    def _constrain(self, s: Sequence, grammar: Grammar, compiled: Any) -> None:
        ignore = s.sampling.ignore_eos
        s.constraint = self._grammars.constraint(compiled, grammar, self._eos, ignore_eos=ignore)
        self._planner.add(s)

    def publish(self, number: int, request: ModelRequest) -> int:
        """Fill the known beginning of `request`, in whole blocks, for all to read, and keep it for ever: its tokens.

        To be called before anything else is asked. Raises InvalidRequest if it is shorter than a block, or there is no
        room for it."""
        tokens = self.text.beginning(request.content, request.tools).sure
        whole = tokens[: len(tokens) // BLOCK_SIZE * BLOCK_SIZE]
        if not whole:
            raise InvalidRequest(f"it has {len(tokens)} tokens, and a block has {BLOCK_SIZE}")
        size, stream, directions = len(whole), self.text.stream(()), Directions(salt=PUBLIC)
        sequence = Sequence(-number, whole, size, size, request.sampling, stream, 0.0, directions, ahead=True)
        if size < self._context:
            self._planner.add_ahead(sequence)
        while self._planner.ahead:
            self.step()
        if not self._planner.publish(sequence):
            raise InvalidRequest(f"there is no room for its {size} tokens")
        return size

    def prefill(self, id: int, request: ModelRequest, keep: tuple[Keep, ...] = (), salt: str = "") -> None:
        """Fill the known beginning of a request that is still to come. What can't be filled is its own affair."""
        content, tools, before = request.content, request.tools, self._begun.get(id)

        def begin() -> Begun | None:
            with contextlib.suppress(ParrotError):
                return self.text.beginning(content, tools, before)
            return None

        self._preparing.remove(id)  # of the text when it was shorter
        then = partial(self._fill, id, request.sampling, Directions(keep=keep, salt=salt))
        self._preparing.tokens(id, content, tools, begin, then)

    def _fill(self, id: int, sampling: Sampling, directions: Directions, begun: Begun | None) -> None:
        if begun is None:
            return
        self._begun[id] = begun
        tokens = begun.sure[: self._context]
        if tokens:
            stream, size, now = self.text.stream(()), len(tokens), time.monotonic()
            sequence = Sequence(id, tokens, size, size, sampling, stream, now, directions, ahead=True)
            self._planner.add_ahead(sequence)

    def cancel(self, id: int) -> None:
        """Forget a request and free its blocks; one that has ended already is ignored."""
        self._planner.remove_ahead(id)
        self._begun.pop(id, None)
        prepared = not self._preparing.remove(id)
        if (sequence := self._live.pop(id, None)) is not None and prepared:
            self._planner.remove(sequence)

    def step(self) -> list[Reply]:
        """Run one batch; what became of it."""
        replies, began, self.coming = self._prepared(), time.monotonic(), 0
        step = self._next or self._launch(self._planner.plan(began))
        if step is None:
            self._preparing.wait()
            return replies
        running = self._planner.running  # those that ended, or were cancelled, since the step was launched are not
        for work in step.work:
            if (s := work.sequence) in running:
                self._computed += max(min(s.computed + work.rows, s.prompt) - s.computed, 0)
                self._planner.computed(work)
        self._steps += 1
        replies += [r for work in step.failed if work.sequence in running for r in self._fail_for_memory(work.sequence)]
        self._next = None
        if step.drawn is not None:
            if self._overlap:
                self._next = self._launch(self._planner.follow(step.drawn))
            tokens = step.drawn.read()
            now = time.monotonic()
            for s, token in zip(step.drawn.sequences, tokens, strict=True):
                replies += self._advance(s, token, now) if s in running else ()
            if self._next is None:
                ended = [s for s in step.drawn.sequences if s.id not in self._live]
                self.coming = coming(ended, self._live.values(), now - began) if ended else 0
        return replies

    def _launch(self, batch: Batch | None) -> Launched | None:
        if batch is None:
            return None
        ran = halving.run(self._runner, batch)
        return Launched(ran.done, ran.failed, Drawn(ran.sampled, ran.logits) if ran.sampled else None)

    def changed(self) -> list[PrefixesChanged]:
        """What became of prefixes that have marks, since the last time: one reply, or none."""
        change = self._planner.changed()
        return [] if change is None else [PrefixesChanged(change)]

    def forget_prefixes(self) -> None:
        """Free every block that no live sequence holds."""
        self._planner.forget_prefixes()

    def outline(self, *, text: bool) -> tuple[CachedPrefix, ...]:
        """What is in the prefix tree; `text`: with how prefixes begin."""
        return Outline(self._pool, self.text.decode if text else None).of(self._planner.roots())

    def stats(self) -> Stats:
        return Stats(
            prompt_tokens_computed=self._computed,
            prompt_tokens_reused=self._reused,
            generated_tokens=self._generated,
            steps=self._steps,
            kv_blocks_used=self._pool.used,
            kv_blocks_cached=self._pool.cached,
            kv_blocks_offloaded=0 if self._offload is None else self._offload.used,
            kv_blocks_restored=0 if self._offload is None else self._offload.restored,
            kv_blocks_total=self._pool.total,
            running=len(self._planner.running),
            waiting=len(self._planner.waiting),
        )

    def _prepared(self) -> list[Reply]:
        """Queue what has its tokens and its grammar by now, and refuse what can't have them."""
        replies = self._preparing.ready()
        for reply in replies:
            if isinstance(reply, Failed):
                self._live.pop(reply.id, None)
        return replies

    def _advance(self, s: Sequence, token: int | InvalidRequest, now: float) -> list[Reply]:
        """One more token of an answer: its text, and the end if it is the last."""
        s.finite = token != UNREADABLE
        if not s.finite and not s.alone:
            self._planner.again(s)
            return []
        if len(s.tokens) == s.prompt:
            s.first = now
            self._reused += s.cached or 0
        if isinstance(token, InvalidRequest) or token < 0:
            return [self._fail(s, token)]
        s.tokens.append(token)
        self._generated += 1
        if s.penalties is not None:
            s.penalties.add(token)
        ended, closed = token in s.ends, False
        if s.constraint is not None and not ended:
            try:
                closed = s.constraint.advance(token)
            except InvalidRequest as error:
                return [self._fail(s, error)]
        if s.scores is not None and not ended:
            s.scores.add(s.text.known)
        shown = "" if ended else s.text.push(token, stops=len(s.tokens) - s.prompt > s.sampling.min_tokens)
        full = len(s.tokens) >= s.limit
        usage = Usage(prompt=s.prompt, cached=s.cached or 0, completion=len(s.tokens) - s.prompt)
        if not (ended or closed or full or s.text.stopped):
            if s.constraint is not None:
                s.constraint.prepare()
            logprobs = s.scores.tell(s.text) if s.scores is not None else ()
            return [Text(s.id, shown, usage, logprobs)] if shown else []
        shown += s.text.finish()
        logprobs = s.scores.tell_rest(s.text) if s.scores is not None else ()
        done = Done(
            text=s.text.text,
            reason="stop" if ended or closed or s.text.stopped else "length",
            usage=usage,
            timings=Timings(queued=s.admitted - s.arrived, prefill=s.first - s.admitted, decode=now - s.first),
        )
        self._planner.remove(self._live.pop(s.id))
        return [*([Text(s.id, shown, usage, logprobs)] if shown or logprobs else []), Finished(s.id, done)]

    def _fail_for_memory(self, s: Sequence) -> list[Failed]:
        if s.ahead:
            self._planner.remove_ahead(s.id)
            return []
        message = f"the engine ran out of memory at token {s.computed} of this request, with no other beside it"
        self._planner.remove(self._live.pop(s.id))
        return [Failed(s.id, OutOfMemory.code, message)]

    def _fail(self, s: Sequence, token: int | InvalidRequest) -> Failed:
        """End an answer whose next token can't be chosen."""
        self._planner.remove(self._live.pop(s.id))
        if isinstance(token, InvalidRequest):
            return Failed(s.id, token.code, token.message, token.where)
        why = "every token was ruled out" if token == NONE_LEFT else "the model's logits are not finite numbers"
        message = f"no token {len(s.tokens) - s.prompt + 1} of the answer can be chosen: {why}"
        return Failed(s.id, BadLogits.code, message)
