"""Who will read a prefix next, over all open programs, and what the engine is told of it."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scripted import ScriptedEngine, text_of

from semantic_parrot.core.analysis import NextUses
from semantic_parrot.core.engines.protocol import UNSAID
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.wire import template

SYSTEM = "You are the harbour master's assistant, and you answer in one short sentence. "


@settings(max_examples=100, deadline=None)
@example(
    [(0, 0, {1}, 0.0), (0, 1, {1}, 0.0), (0, 2, {1}, 1.0), (1, 1, set(), 0.0), (0, 1, set(), 0.0), (1, 0, set(), 0.0)]
)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 20), st.sets(st.integers(1, 6)), st.floats(0, 100)), max_size=40
    )
)
def test_the_next_use_is_the_earliest_of_those_to_come(events):
    uses, model = NextUses(), {}
    for leaves, name, prefixes, latest in events:
        call = ("s", str(name))
        if leaves:
            uses.leave(call)
            model.pop(call, None)
        elif call not in model:
            uses.join(call, sorted(prefixes), latest)
            model[call] = prefixes, latest
        for prefix in range(1, 7):
            expected = min((late for read, late in model.values() if prefix in read), default=None)
            assert list(uses.of([prefix])) == [expected]
    assert len(uses) == len({prefix for read, _ in model.values() for prefix in read})


def test_what_has_gone_is_let_go_though_others_stay():
    uses = NextUses()
    uses.join(("s", "first"), [7], 0.0)
    for n in range(1000):
        uses.join(("s", str(n)), [7], 1.0)
        uses.leave(("s", str(n)))
    assert len(uses._by_prefix[7].heap) <= 70


def program(calls, **more):
    listed = []
    for output, parts in calls.items():
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": template(*parts)}]
        request = {"model": "default", "temperature": 0, "messages": messages}
        listed.append({"id": output, "output": output, "request": request})
    return parse_program({"calls": listed, **more})


class Server:
    def __init__(self, window=64, **options):
        self.gate = asyncio.Event()
        self.engine = ScriptedEngine(window=window, gate=self.gate)
        self.engine.abilities = frozenset(("retention",))
        self.runtime = Runtime([self.engine], grace=0.05, **options)

    async def __aenter__(self):
        await self.runtime.start()
        return self

    async def __aexit__(self, *_):
        await self.runtime.close()

    async def run(self, *programs):
        runs = [self.runtime.submit(p) for p in programs]
        await self.engine.until(running=self.engine.window if self.engine.window < 9 else self.engine.running or 1)
        self.gate.set()
        for run in runs:
            await run.wait()
            assert run.status == "finished"

    def keep(self, text):
        """What was said of the one prompt that has `text` in it."""
        (found,) = [i for i, request in enumerate(self.engine.seen) if text in text_of(request)]
        return self.engine.directed[found].keep


DOC = "The log of the third of May. "


async def test_two_stages_over_one_document():
    async with Server() as server:
        calls = {"a": (("doc",), " First: "), "b": (("doc",), " Then: ", ("a",))}
        await server.run(program(calls, inputs={"doc": DOC}))
        first, last = server.keep("First"), server.keep("Then")
        assert len(first) == 2
        shared, own = first
        assert own.next_use is None
        assert own.share == 1
        expected = len(f"\0system\0{SYSTEM}\0user\0{DOC}")
        assert shared.share == pytest.approx(expected / (expected + len(" First: ")))
        assert abs(shared.next_use - time.monotonic()) < 60
        # Of the last one, the constants may be read by who comes next; the document by nobody that is known.
        constant, rest = last
        assert constant.next_use == UNSAID
        assert constant.share < shared.share
        assert (rest.share, rest.next_use) == (1, None)
        assert not server.runtime._uses[""]


async def test_siblings_that_wait_for_their_turn_are_to_come():
    """What counts is who has not started, not who was announced later."""
    async with Server(window=1) as server:
        await server.run(program({f"s{n}": (("doc",), f" Entry {n}: ") for n in range(4)}, inputs={"doc": DOC}))
        seen = list(server.engine.seen)
        for request, directed in zip(seen, server.engine.directed, strict=True):
            uses = [k.next_use for k in directed.keep]
            assert (uses[0] == UNSAID) == (request is seen[-1])
            assert uses[-1] is None


async def test_other_sessions_count_and_do_not_collide():
    async with Server(window=1) as server:
        mine = program({"a": (("doc",), " First: "), "b": ("Other. ", ("a",))}, inputs={"doc": DOC})
        theirs = program({"a": (("doc",), " Second: "), "b": ("Another. ", ("a",))}, inputs={"doc": DOC})
        await server.run(mine, theirs)
        assert len({k.next_use for k in server.keep("First")}) == 2
        assert server.keep("First")[0].next_use > 0
        assert server.keep("First")[0].share > len(SYSTEM) / (len(SYSTEM) + len(DOC) + 30)
        second = server.keep("Second")
        assert second[-1].next_use is None  # the other one has started
        assert server.keep("Other.")[0].next_use is not None  # the outputs have one name, and nothing in common
        assert not server.runtime._uses[""]


async def test_a_cancelled_run_will_read_nothing():
    async with Server(window=1) as server:
        run = server.runtime.submit(program({f"s{n}": (("doc",), f" {n}") for n in range(5)}, inputs={"doc": DOC}))
        await server.engine.until(running=1)
        assert server.runtime._uses[""]
        run.cancel()
        assert not server.runtime._uses[""]
        server.gate.set()


@pytest.mark.parametrize("options", [{"disable": {"retention"}}, {}])
async def test_nothing_is_said_where_it_is_off_or_nobody_listens(options):
    async with Server(**options) as server:
        if not options:
            server.engine.abilities = frozenset()
        await server.run(program({"a": (("doc",), " First: "), "b": (("doc",), ("a",))}, inputs={"doc": DOC}))
        assert [d.keep for d in server.engine.directed] == [(), ()]


async def test_a_call_on_its_own_says_nothing():
    async with Server() as server:
        server.gate.set()
        body = {"model": "default", "temperature": 0, "messages": [{"role": "user", "content": SYSTEM + DOC}]}
        async for _ in server.runtime.generate(body):
            pass
        assert server.engine.directed[0].keep == ()


async def test_equal_calls_read_their_prompt_once():
    """The one that joins the other's flight never starts, so its prompt has no next use."""
    async with Server() as server:
        twins = program({"a": (("doc",), " First: "), "b": (("doc",), " First: ")}, inputs={"doc": DOC})
        await server.run(twins)
        assert len(server.engine.seen) == 1
        assert [k.next_use for k in server.keep("First")] == [UNSAID, None]


async def test_what_is_filled_ahead_is_kept_for_its_call():
    async with Server(window=1) as server:
        engine = server.engine
        engine.abilities = frozenset(("retention", "prefill-ahead"))
        calls = {
            "a": ("First: ", ("doc",)),
            "b": (("doc",), " Then: ", ("a",)),
            "c": (("doc",), " And: ", ("b",), ("a",)),
        }
        before = time.monotonic()
        run = server.runtime.submit(program(calls, inputs={"doc": DOC}))
        latest = {name: run.session.analysis.step(name).latest for name in calls}
        assert before < latest["b"] < latest["c"]
        await engine.until_asked(2)
        asked = [(text_of(r), kept) for (_, r), kept in zip(engine.prefills, engine.kept, strict=True)]
        (then,), (also,) = ([kept for text, kept in asked if word in text] for word in ("Then", "And"))
        server.gate.set()
        await run.wait()
        assert then[-1].share == also[-1].share == 1
        assert then[-1].next_use == pytest.approx(latest["b"])
        assert also[-1].next_use == pytest.approx(latest["c"])
        assert also[0].share < 1
        assert also[0].next_use == pytest.approx(latest["b"])  # the document is read before that
