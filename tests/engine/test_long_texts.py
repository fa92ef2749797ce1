"""Long texts are tokenised on another thread: the others go on, answers and errors are the same, nothing is left."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from threading import Event, current_thread, main_thread

import pytest

from semantic_parrot.core.engine import preparing
from semantic_parrot.core.engine.messages import Cancel, Failed, Tokenize, Tokens
from semantic_parrot.core.engines.native import NativeEngine
from semantic_parrot.core.grammar import Grammar
from semantic_parrot.core.request import UNKNOWN, Message
from semantic_parrot.core.tools import Tool, ToolCall, Tools

LINE = "The harbour master wrote down each ship, its cargo and the hour at which it left the quay. "
LONG = LINE * 3


class Worker:
    """The texts that it tokenises, each when `go` is set."""

    def __init__(self, text) -> None:
        self.go, self.begun, self.texts = Event(), Event(), []
        self._ids, text._ids = text._ids, self.ids

    def ids(self, text, *, special):
        if current_thread() is not main_thread():
            self.texts.append(text)
            self.begun.set()
            assert self.go.wait(60), "the loop waits for the worker"
        return self._ids(text, special=special)


@pytest.fixture
def b(tiny, bench, monkeypatch):
    monkeypatch.setattr(preparing, "SHORT", 100)
    return bench(tiny("llama"), deterministic=True)


@pytest.fixture
def worker(b):
    worker = Worker(b.loop.text)
    yield worker
    worker.go.set()


def finish(b, id):
    while id not in b.done:
        b.step()


@pytest.mark.parametrize("content", [LONG, (Message("user", LONG),)], ids=["prompt", "chat"])
def test_others_get_their_tokens_meanwhile(b, worker, ask, monkeypatch, content):
    long, short = b.submit(ask(content, 8)), b.submit(ask("Hello", 8))
    finish(b, short)
    assert worker.begun.wait(60)
    assert long not in b.done
    assert b.loop.busy
    worker.go.set()
    b.drain()
    assert len(worker.texts) == 1
    monkeypatch.setattr(preparing, "SHORT", 10_000)
    b.loop.forget_prefixes()
    at_once = b.run(ask(content, 8))[0]
    assert len(worker.texts) == 1
    assert (b.done[long].text, b.done[long].usage) == (at_once.text, at_once.usage)


def test_cancel_while_it_is_tokenised(b, worker, ask):
    under_way = b.submit(ask(LONG, 8))
    assert worker.begun.wait(60)
    queued, last = b.submit(ask("Two. " + LONG, 8)), b.submit(ask("Three. " + LONG, 8))
    b.loop.cancel(under_way)
    b.loop.cancel(queued)
    worker.go.set()
    b.drain()
    assert set(b.done) == {last}
    assert not b.failed
    assert worker.texts == [LONG, "Three. " + LONG]  # what had not begun is never done
    assert b.loop.stats().kv_blocks_used == 0


def test_all_are_cancelled_and_nothing_is_busy(b, worker, ask):
    id = b.submit(ask(LONG, 8))
    b.loop.cancel(id)
    assert not b.loop.busy
    b.loop.cancel(id)  # again: nothing
    assert not b.loop.busy


@pytest.mark.parametrize("tokens", [1023, 1024])
def test_one_that_is_too_long(b, worker, ask, tokens):
    worker.go.set()
    good, long = b.submit(ask("Hello", 5)), b.submit(ask("x" * tokens, None))
    b.drain()
    assert b.done[good].usage.completion == 5
    assert worker.texts == ["x" * tokens]
    if tokens == 1024:
        assert (b.failed[long].code, long in b.done) == ("context_length_exceeded", False)
        assert "1024 tokens" in b.failed[long].message
    else:
        assert b.done[long].usage.completion == 1
    assert not b.loop._live


def test_one_whose_messages_are_refused(tiny, bench, ask, b):
    b = bench(tiny("llama", chat=False))
    bad = b.submit(ask((Message("user", LONG),), 5))
    assert not b.failed
    b.drain()
    assert (b.failed[bad].code, b.failed[bad].where) == ("invalid_request", "messages")


def test_its_grammar_comes_after_its_tokens(b, worker, ask):
    request = replace(ask(LONG, 20, ignore_eos=False), grammar=Grammar("regex", "[ab]{5}", "f"))
    first, second = b.submit(request), b.submit(request)
    worker.go.set()
    while not b.loop._live:  # the first one waits for its grammar from now on
        b.step()
    b.loop.cancel(first)
    b.drain()
    assert set(b.done) == {second}
    assert len(b.done[second].text) == 5


def test_tokenize(b, worker):
    short, refused = b.loop.tokenize(1, "Hello"), b.loop.tokenize(2, "")
    assert isinstance(short, Tokens)
    assert isinstance(refused, Failed)
    assert refused.code == "empty_prompt"
    assert b.loop.tokenize(3, LONG) is None
    assert b.loop.step() == []
    assert b.loop.busy
    worker.go.set()
    replies = []
    while b.loop.busy:
        replies += b.loop.step()
    assert replies == [Tokens(3, b.loop.text.encode(LONG))]


def test_a_prompt_that_is_filled_ahead(b, worker, ask):
    b.loop.prefill(900, ask(LONG + UNKNOWN, 8))
    assert worker.begun.wait(60)
    finish(b, b.submit(ask("Hello", 8)))
    b.loop.prefill(900, ask(LONG + LINE + UNKNOWN, 8))  # instead of the first one
    worker.go.set()
    b.drain()
    assert b.loop._begun[900].text == LONG + LINE
    computed = b.loop.stats().prompt_tokens_computed
    done = b.run(ask(LONG + LINE + "What next?", 8))[0]
    assert done.usage.cached > done.usage.prompt * 0.8
    assert b.loop.stats().prompt_tokens_computed - computed == done.usage.prompt - done.usage.cached


def test_a_prompt_ahead_that_is_cancelled_leaves_nothing(b, worker, ask):
    b.loop.prefill(900, ask(LONG + UNKNOWN, 8))
    assert worker.begun.wait(60)
    b.loop.cancel(900)
    worker.go.set()
    assert not b.loop.busy
    b.run(ask(LINE, 2), ask(LONG, 2))
    assert not b.loop._begun


CALL = ToolCall("c", "f", "a" * 50)
TOOLS = Tools((Tool("f", "b" * 50, "{}"),), False, ("f",), False)


@pytest.mark.parametrize(
    ("content", "tools", "long"),
    [
        ("a" * 100, None, False),
        ("a" * 101, None, True),
        ("a" * 51, TOOLS, True),
        ("a" * 50, TOOLS, False),
        ((Message("user", "a" * 36),), None, False),
        ((Message("user", "a" * 37),), None, True),
        ((Message("assistant", "", (CALL,)),), None, True),
        ((Message("user", ""), Message("user", "")), None, True),
    ],
)
def test_what_is_long(b, content, tools, long):
    threads = []
    reply = b.loop._preparing.tokens(1, content, tools, lambda: threads.append(current_thread()), lambda _: None)
    while b.loop._preparing.busy:
        assert reply is None
        b.loop._preparing.wait()
        b.loop._preparing.ready()
    assert [thread is not main_thread() for thread in threads] == [long]


class Child:
    alive = True

    def __init__(self) -> None:
        self.sent, self.asked = [], {}

    def ask(self, id, command):
        self.sent.append(command)
        return self.asked.setdefault(id, asyncio.Queue())

    def forget(self, id):
        del self.asked[id]

    def send(self, command):
        self.sent.append(command)


async def test_who_asks_for_tokens_and_leaves_has_them_cancelled():
    engine = NativeEngine("nowhere", names=("m",))
    engine._child = child = Child()
    asking = asyncio.create_task(engine.tokenize(LONG))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert child.sent == [Tokenize(1, LONG), Cancel(1)]
    assert not child.asked


async def test_in_its_process(tiny, bench, ask):
    text = LINE * 1000
    engine = NativeEngine(tiny("llama"), names=("tiny",), deterministic=True, threads=1, kv_tokens=8192)
    await engine.start()
    try:

        async def text_of(request):
            return [item async for item in engine.generate(request)][-1].text

        tokens, answer = await asyncio.gather(engine.tokenize(text), text_of(ask("Hello", 5)))
    finally:
        await engine.close()
    alone = bench(tiny("llama"), deterministic=True)
    assert tokens == alone.loop.text.encode(text)
    assert answer == alone.run(ask("Hello", 5))[0].text
