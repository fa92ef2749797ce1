"""What every engine must do, as tests: subclass EngineConformance in a test module and say how one is made.

    class TestMine(EngineConformance):
        @classmethod
        def make(cls, request):  # a pytest.FixtureRequest, for fixtures of your own
            return MyEngine(...)

Needs pytest and pytest-asyncio. One engine serves the class; another one is made to be closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from semantic_parrot.core.engines.protocol import Delta, Directions, Done, Engine, Keep
from semantic_parrot.core.errors import ContextOverflow, EngineFailed, Unsupported
from semantic_parrot.core.request import Message, ModelRequest
from semantic_parrot.core.sampling import Sampling


@pytest.mark.asyncio(loop_scope="class")
class EngineConformance:
    """`prompt`: one that the model answers with several tokens; `long`: one that no context holds. `seeded`: the same
    seed gives the same sample. `told`: it has log-probabilities. `several`: n choices. `counted`: its usage is exact.
    `equal`: a greedy answer does not depend on what else runs. `bounded`: it refuses a prompt that is too long."""

    prompt = "The harbour master wrote down each ship"
    seeded = told = several = counted = equal = bounded = True
    long = "word " * 50_000

    @classmethod
    def make(cls, request: pytest.FixtureRequest) -> Engine:
        """An engine that has not been started."""
        raise NotImplementedError

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def engine(cls, request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
        engine = cls.make(request)
        await engine.start()
        yield engine
        await engine.close()

    def ask(self, content: str | None = None, max_tokens: int = 12, *, chat: bool = False, **options: Any) -> Any:
        text = self.prompt if content is None else content
        messages = (Message("user", text),) if chat else None
        sampling = Sampling(max_tokens=max_tokens, **{"temperature": 0.0, **options})
        return ModelRequest("default", messages, None if chat else text, sampling)

    async def whole(self, engine: Engine, request: ModelRequest, *directions: Directions) -> tuple[list[Delta], Done]:
        items = [item async for item in engine.generate(request, *directions)]
        *deltas, done = items
        assert isinstance(done, Done)
        assert all(isinstance(delta, Delta) for delta in deltas)
        return [delta for delta in deltas if isinstance(delta, Delta)], done

    async def test_it_is_up_and_says_what_it_serves(self, engine: Engine) -> None:
        assert engine.healthy
        assert not engine.coming
        assert engine.trouble == ""
        assert engine.model.names
        assert engine.model.context > 0
        assert engine.window > 0

    @pytest.mark.parametrize("chat", [False, True])
    async def test_deltas_are_the_answer(self, engine: Engine, chat: bool) -> None:
        deltas, done = await self.whole(engine, self.ask(chat=chat))
        assert done.text
        assert "".join(delta.text for delta in deltas) == done.text
        assert done.reason in ("stop", "length")
        assert done.usage.prompt > 0
        assert 0 <= done.usage.cached <= done.usage.prompt
        assert done.usage.completion <= 12 or not self.counted
        assert done.timings.prefill >= 0
        assert done.timings.decode >= 0

    async def test_the_limit_is_obeyed(self, engine: Engine) -> None:
        _, short = await self.whole(engine, self.ask(max_tokens=3))
        _, long = await self.whole(engine, self.ask(max_tokens=8))
        assert long.text.startswith(short.text)
        assert len(long.text) > len(short.text)
        assert short.reason == "length"
        assert short.usage.completion == 3 or not self.counted

    async def test_many_at_once(self, engine: Engine) -> None:
        requests = [self.ask(f"{self.prompt} {i}") for i in range(6)]
        together = await asyncio.gather(*(self.whole(engine, request) for request in requests))
        for request, (_, done) in zip(requests, together, strict=True):
            assert done.text
            if self.equal:
                assert (await self.whole(engine, request))[1].text == done.text

    async def test_directions_change_no_answer(self, engine: Engine) -> None:
        directions = Directions(2, 1, (Keep(0.5, None),), 7, 1.0)
        _, plain = await self.whole(engine, self.ask())
        assert (await self.whole(engine, self.ask(), directions))[1].text == plain.text

    async def test_a_prefill_ahead_changes_no_answer(self, engine: Engine) -> None:
        _, plain = await self.whole(engine, self.ask())
        engine.prefill("key", self.ask())
        assert (await self.whole(engine, self.ask()))[1].text == plain.text
        engine.prefill("key", None)
        engine.prefill("never there", None)

    async def test_a_stop_string_ends_the_answer_before_it(self, engine: Engine) -> None:
        _, plain = await self.whole(engine, self.ask())
        stop = plain.text.strip()[2:5]
        if not self.obeys(engine, stop=(stop,)):
            pytest.skip("this engine is not told of stop strings")
        deltas, done = await self.whole(engine, self.ask(stop=(stop,)))
        assert stop not in done.text
        assert plain.text.startswith(done.text)
        assert done.reason == "stop"
        assert "".join(delta.text for delta in deltas) == done.text

    async def test_a_reader_that_leaves_frees_the_engine(self, engine: Engine) -> None:
        items = engine.generate(self.ask(max_tokens=400, ignore_eos=self.obeys(engine, ignore_eos=True)))
        assert isinstance(await anext(items), Delta)
        await items.aclose()
        assert (await engine.stats()).running == 0
        assert (await self.whole(engine, self.ask()))[1].text

    async def test_samples_follow_their_seed(self, engine: Engine) -> None:
        if not self.seeded:
            pytest.skip("this engine's samples do not follow the seed")
        requests = [self.ask(temperature=1.0, seed=seed) for seed in (1, 1, 2, 3, 4)]
        texts = [(await self.whole(engine, request))[1].text for request in requests]
        assert texts[0] == texts[1]
        assert len(set(texts)) > 1

    async def test_several_choices(self, engine: Engine) -> None:
        if not self.several:
            pytest.skip("this engine makes one choice")
        deltas, done = await self.whole(engine, self.ask(temperature=1.0, seed=5, n=3))
        assert len(done.choices) == 3
        for index, choice in enumerate(done.choices):
            assert "".join(delta.text for delta in deltas if delta.index == index) == choice.text

    @pytest.mark.parametrize("chat", [False, True])
    async def test_logprobs(self, engine: Engine, chat: bool) -> None:
        if not self.told:
            with pytest.raises(Unsupported):
                engine.check(self.ask(chat=chat, logprobs=2))
            return
        deltas, done = await self.whole(engine, self.ask(chat=chat, logprobs=2))
        told = done.logprobs or ()
        assert len(told) == done.usage.completion
        assert tuple(one for delta in deltas for one in delta.logprobs) == told
        for one in told:
            assert one.logprob <= 0
            assert 1 <= len(one.top) <= 3
            assert max(other.logprob for other in one.top) == pytest.approx(one.logprob, abs=1e-3)

    async def test_a_prompt_too_long_is_refused_as_that(self, engine: Engine) -> None:
        if not self.bounded:
            pytest.skip("this engine works on it for as long as it takes")
        with pytest.raises(ContextOverflow):
            await self.whole(engine, self.ask(self.long))
        assert (await self.whole(engine, self.ask()))[1].text

    async def test_tokens(self, engine: Engine) -> None:
        try:
            tokens = await engine.tokenize(self.prompt)
        except Unsupported:
            return
        assert tokens
        assert all(isinstance(token, int) for token in tokens)
        assert len(await engine.tokenize(self.prompt * 2)) > len(tokens)

    async def test_prefixes_are_forgotten_or_that_is_refused(self, engine: Engine) -> None:
        _, plain = await self.whole(engine, self.ask())
        try:
            await engine.forget_prefixes()
        except Unsupported:
            return
        _, again = await self.whole(engine, self.ask())
        assert (again.text, again.usage.cached) == (plain.text, 0)

    async def test_closing_ends_what_runs(self, request: pytest.FixtureRequest) -> None:
        engine = self.make(request)
        await engine.start()
        items = engine.generate(self.ask(max_tokens=400, ignore_eos=self.obeys(engine, ignore_eos=True)))
        assert isinstance(await anext(items), Delta)
        await engine.close()
        assert not engine.healthy
        with pytest.raises(EngineFailed):
            async for _ in items:
                pass

    def obeys(self, engine: Engine, **options: Any) -> bool:
        """Whether a request may have them here."""
        try:
            engine.check(self.ask(**options))
        except Unsupported:
            return False
        return True
