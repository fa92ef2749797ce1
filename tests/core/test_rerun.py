"""A call that loses its engine is run again on another one; its reader hears each character once."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import ScriptedEngine

from semantic_parrot.core.engines.protocol import Choice, Delta, Done, Usage
from semantic_parrot.core.errors import EngineFailed, Unsupported
from semantic_parrot.core.logprobs import TokenLogprob
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.rerun import ATTEMPTS, Bill, Told
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.tools import CallDelta

BODY = {"model": "default", "temperature": 0, "messages": [{"role": "user", "content": "hello"}]}
USAGE = Usage(1, 0, 1)


class Losing(ScriptedEngine):
    """Fails after `after` words of an answer, `times` times; for good, if it `dies` of it."""

    def __init__(self, after, times=1, dies=False, **options):
        super().__init__(**options)
        self.after, self.times, self.dies = after, times, dies

    async def generate(self, request, *directions):
        words = 0
        async for item in super().generate(request, *directions):
            if self.times and words == self.after:
                self.times -= 1
                self.healthy = not self.dies
                raise EngineFailed("lost")
            words += 1
            yield item


async def hear(engines, body=BODY):
    """(the text of the deltas, the Done); and that nobody holds anything then."""
    runtime = Runtime(engines)
    await runtime.start()
    try:
        items = [item async for item in runtime.generate(body)]
        return "".join(item.text for item in items[:-1]), items[-1]
    finally:
        assert all(state.n == 0 for s in runtime.calls.schedulers for state in s.decider.fleet.engines)
        await runtime.close()


@pytest.mark.parametrize("after", [0, 1, 2, 3])
async def test_the_answer_is_that_of_an_engine_that_never_failed(after):
    wanted, end = await hear([ScriptedEngine()])
    text, done = await hear([Losing(after, name="a"), ScriptedEngine(name="b")])
    assert (text, done.text, done.usage) == (wanted, end.text, end.usage)


async def test_an_engine_alone_is_not_asked_again():
    engine = Losing(1)
    with pytest.raises(EngineFailed, match="lost"):
        await hear([engine])
    assert len(engine.seen) == 1


async def test_not_for_ever():
    engines = [Losing(0, times=99), Losing(0, times=99)]
    with pytest.raises(EngineFailed, match="lost"):
        await hear(engines)
    assert sum(len(engine.seen) for engine in engines) == ATTEMPTS


async def test_another_answer_is_no_continuation():
    engines = [Losing(1, dies=True, name="a", answers=lambda _: "one two three"), ScriptedEngine(name="b")]
    with pytest.raises(EngineFailed, match="another one answers otherwise"):
        await hear(engines)


async def test_a_fleet_waits_for_an_engine_that_is_coming():
    engines = [ScriptedEngine(name="a"), ScriptedEngine(name="b")]
    runtime = Runtime(engines)
    await runtime.start()
    for engine in engines:
        engine.coming = True
        engine.healthy = False
    answer = asyncio.create_task(anext(aiter(runtime.generate(BODY))))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not answer.done()
    engines[1].healthy = True
    assert isinstance(await answer, Delta)
    assert [len(engine.seen) for engine in engines] == [0, 1]
    late = asyncio.create_task(anext(aiter(runtime.generate({**BODY, "user": "late"}))))
    engines[1].healthy = False
    engines[0].coming = engines[1].coming = False  # nobody is expected any more: whoever waits is told
    with pytest.raises(EngineFailed):
        await late
    await runtime.close()


def pieces(draw, text):
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(st.data())
def test_each_character_is_told_once_however_it_is_cut(data):
    texts = data.draw(st.lists(st.text("ab", max_size=8), min_size=1, max_size=2))
    told, heard = Told(), [""] * len(texts)
    for attempt in range(3):
        whole = [(i, piece) for i, text in enumerate(texts) for piece in pieces(data.draw, text)]
        if attempt < 2:
            whole = whole[: data.draw(st.integers(0, len(whole)))]
        for index, piece in whole:
            new = told.new(Delta(piece, index=index))
            heard[index] += new.text if new else ""
        told.again()
    others = tuple(Choice(text, "stop") for text in texts[1:])
    assert told.new(Done(texts[0], "stop", USAGE, others=others)) is not None
    assert heard == texts


@given(st.text("ab", min_size=1, max_size=4), st.text("ab", max_size=4))
def test_what_was_told_is_never_contradicted(first, second):
    told = Told()
    told.new(Delta(first))
    told.again()
    if second.startswith(first):
        told.new(Done(second, "stop", USAGE))
    else:
        with pytest.raises(EngineFailed, match="otherwise"):
            told.new(Done(second, "stop", USAGE))


def test_calls_and_logprobs_can_not_be_taken_up():
    for delta in (
        Delta("", calls=(CallDelta(0, "{}", "id", "name"),)),
        Delta("a", logprobs=(TokenLogprob("a", (97,), -1.0, 0, ()),)),
    ):
        told = Told()
        assert told.resumable
        told.new(delta)
        assert not told.resumable


def test_the_payer_is_billed_once():
    taken = []

    class Purse:
        def began(self):
            taken.append("began")

        def took(self, more):
            taken.append(more)

    bill = Bill(Purse())
    bill.began()
    bill.took(Usage(10, 4, 3))
    bill.began()
    for completion in (1, 3, 5):
        bill.took(Usage(10, 0, completion))
    assert taken == ["began", Usage(10, 4, 3), Usage(0, 0, 2)]


async def test_a_quota_on_an_engine_that_does_not_tell_its_tokens():
    """What was used counts: a run within its quota ends as ever, one past it is stopped."""
    engine = ScriptedEngine()

    async def refuses(content):
        raise Unsupported("no tokens")

    engine.tokenize = refuses
    runtime = Runtime([engine])
    await runtime.start()
    calls = [{"id": "a", "output": "x", "request": BODY}]
    content = {"$t": ["again ", {"var": "x"}]}
    calls.append({"id": "b", "output": "y", "request": {**BODY, "messages": [{"role": "user", "content": content}]}})
    for tokens, ended in ((1000, {"y"}), (4, set())):
        run = runtime.submit(parse_program({"calls": calls, "parrot": {"quota": {"tokens": tokens}}}))
        await run.wait()
        errors = run.result()["errors"]
        assert set(run.result()["outputs"]) == ended
        codes = {error["code"] for error in errors.values()}
        assert codes == set() if ended else "quota_exceeded" in codes
    await runtime.close()
