"""The engine in its process: crashes, restarts, cancellation, and the end of its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import psutil
import pytest

from semantic_parrot.core.engine.child import environment
from semantic_parrot.core.engines.hope import Lost
from semantic_parrot.core.engines.native import NativeEngine
from semantic_parrot.core.engines.protocol import Delta, Directions, Done, Mark, ModelLoadError, PrefixChange
from semantic_parrot.core.errors import ContextOverflow, EmptyPrompt, EngineFailed, InvalidRequest
from semantic_parrot.core.request import UNKNOWN, Message


def engine(path, **options) -> NativeEngine:
    return NativeEngine(path, names=("tiny",), deterministic=True, threads=1, kv_tokens=8192, **options)


@pytest.fixture
async def native(tiny):
    e = engine(tiny("llama"))
    await e.start()
    yield e
    await e.close()


async def whole(e, request) -> tuple[list[str], Done]:
    deltas = []
    async for item in e.generate(request):
        if isinstance(item, Done):
            return deltas, item
        deltas.append(item.text)
    raise AssertionError("no Done")


async def first_delta(stream) -> None:
    assert isinstance(await anext(stream), Delta)


async def test_same_answers_as_in_process(native, tiny, bench, ask):
    assert native.healthy
    assert native.model.names == ("tiny",)
    assert native.model.context == 1024
    assert psutil.Process(native.pid).cmdline()[0] == "parrot-engine"
    requests = [ask("Hello", 30), ask((Message("user", "naïve 🦜"),), 30), ask("Hello", 30, temperature=0.8, seed=3)]
    expected = bench(tiny("llama"), deterministic=True).run(*requests)
    got = await asyncio.gather(*(whole(native, r) for r in requests))
    for (deltas, done), other in zip(got, expected, strict=True):
        assert done.text == other.text == "".join(deltas)
        assert (done.reason, done.usage.prompt) == (other.reason, other.usage.prompt)
        assert done.timings.queued >= 0

    assert await native.tokenize("Hello") == bench(tiny("llama")).loop.text.encode("Hello")
    assert len(await native.tokenize((Message("user", "Hello"),))) > len(await native.tokenize("Hello"))
    with pytest.raises(EmptyPrompt):
        await native.tokenize("")
    with pytest.raises(EmptyPrompt):
        await whole(native, ask("", 5))
    with pytest.raises(InvalidRequest, match="surrogate"):
        await whole(native, ask("\ud800", 5))
    with pytest.raises(ContextOverflow, match="1024"):
        await whole(native, ask("Hello", 5000))

    # Closing the generator cancels: its blocks are free by the time the next command is answered.
    stream = native.generate(ask("Cancelled", 900))
    await first_delta(stream)
    assert (await native.stats()).kv_blocks_used > 0
    await stream.aclose()
    stats = await native.stats()
    assert (stats.kv_blocks_used, stats.running, stats.waiting) == (0, 0, 0)


async def test_killed_then_recovered(native, ask):
    streams = [native.generate(ask(f"{n}", 900)) for n in range(3)]
    await asyncio.gather(*map(first_delta, streams))
    steps = (await native.stats()).steps
    pid = native.pid
    os.kill(pid, signal.SIGKILL)

    async def rest(stream):
        async for _ in stream:
            pass

    ends = await asyncio.wait_for(asyncio.gather(*map(rest, streams), return_exceptions=True), 120)
    assert all(isinstance(e, EngineFailed) for e in ends)
    assert not native.healthy
    with pytest.raises(EngineFailed, match="restarted"):
        await whole(native, ask("Hello", 5))
    with pytest.raises(EngineFailed):
        await native.stats()

    async with asyncio.timeout(240):
        await native.recovered()
    assert native.healthy
    assert native.pid != pid
    assert (await whole(native, ask("Hello", 5)))[1].usage.completion == 5
    assert (await native.stats()).steps >= steps + 5  # counters go on counting


async def test_close_ends_what_is_in_flight(tiny, ask):
    e = engine(tiny("llama"))
    await e.start()
    process = psutil.Process(e.pid)
    stream = e.generate(ask("Hello", 900))
    await first_delta(stream)
    await e.close()
    with pytest.raises(EngineFailed):
        async for _ in stream:
            pass
    assert not e.healthy
    assert not process.is_running()


@pytest.mark.parametrize("name", ["nowhere", "."])
async def test_bad_directory(tmp_path, name):
    e = engine(tmp_path / name)
    with pytest.raises(ModelLoadError) as caught:
        await e.start()
    assert "\n" not in str(caught.value)
    assert not e.healthy
    await e.close()


async def test_a_process_that_dies_while_it_loads(tiny):
    e = NativeEngine(tiny("llama"), names=("tiny",), threads=-1)  # torch raises
    with pytest.raises(ModelLoadError, match="ended with code 1 while it loaded"):
        await e.start()
    assert not e.healthy


async def test_a_process_that_is_killed_while_it_loads_is_lost(tiny):
    here = psutil.Process()
    before, e = set(here.children()), engine(tiny("llama"))
    starting = asyncio.create_task(e.start())
    while not (born := set(here.children()) - before):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    for process in born:
        process.kill()
    with pytest.raises(Lost, match="while it loaded"):
        await starting


PARENT = """
import asyncio, sys
from semantic_parrot.core.engine.child import environment
from semantic_parrot.core.engines.native import NativeEngine
from semantic_parrot.core.request import ModelRequest
from semantic_parrot.core.sampling import Sampling

async def main():
    e = NativeEngine(sys.argv[1], names=("tiny",), threads=1, kv_tokens=8192)
    await e.start()
    stream = e.generate(ModelRequest("m", None, "Hello", Sampling(temperature=0.0, max_tokens=1000, ignore_eos=True)))
    await anext(stream)
    assert not {"torch", "transformers"} & set(sys.modules)
    print(e.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_the_engine_dies_with_its_parent(tiny):
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tiny("llama"))], stdout=subprocess.PIPE) as parent:
        try:
            child = psutil.Process(int(parent.stdout.readline()))
            assert child.is_running()
        finally:
            parent.kill()
        child.wait(timeout=10)


async def test_public_prefixes_are_there_from_the_start_and_again_after_a_crash(tiny, ask):
    system = Message("system", "You are the harbour's clerk, and write down each ship, its cargo and the hour. " * 2)
    e = engine(tiny("llama"), public=[ask((system, Message("user", UNKNOWN)), 1)])
    await e.start()

    async def found(salt):
        async for item in e.generate(ask((system, Message("user", "Hello")), 2), Directions(salt=salt)):
            if isinstance(item, Done):
                return item.usage.cached

    first = await found("ann")
    assert first > 0
    assert await found("bob") == first
    assert await found("ann") > first
    stream = e.generate(ask("On and on", 900))
    await first_delta(stream)
    os.kill(e.pid, signal.SIGKILL)
    with pytest.raises(EngineFailed):
        async for _ in stream:
            pass
    async with asyncio.timeout(60):
        await e.recovered()
    assert await found("eve") == first
    await e.close()


async def test_public_prefixes_that_cannot_be_kept_stop_the_start(tiny, ask):
    for options, why in (({}, "public prefix 1 can't be kept: it has"), ({"prefix_cache": False}, "which is off")):
        with pytest.raises(ModelLoadError, match=why):
            await engine(tiny("llama"), public=[ask("Hi " + UNKNOWN, 1)], **options).start()


def test_what_the_environment_says_of_threads_goes_before_what_we_would_say():
    ours = environment({"PATH": "/bin"})
    assert ours["PATH"] == "/bin"
    assert int(ours["GOMP_SPINCOUNT"]) > 0
    theirs = environment({"PATH": "/bin", "GOMP_SPINCOUNT": "7", "HF_HUB_OFFLINE": "0"})
    assert theirs == {**ours, "GOMP_SPINCOUNT": "7"}


async def test_it_tells_what_is_in_its_prefix_tree_and_texts_only_if_asked(native, ask):
    begin = "The harbour clerk writes down every ship that comes in, what it carries and when it leaves. "
    for end in ("Aurora", "Puffin"):
        await whole(native, ask(begin + end, 2))
    (top,) = await native.outline(text=True)
    assert top.text.startswith("The harbour clerk")
    assert top.blocks == -(-top.tokens // 16)
    assert len(top.branches) == 2
    (silent,) = await native.outline(text=False)
    assert (silent.text, silent.tokens, len(silent.branches)) == ("", top.tokens, 2)


async def test_it_tells_which_prefixes_it_holds(native, ask):
    """In the words of the scheduler. (What becomes of them as others come: test_loop.py.)"""
    told = asyncio.Queue()
    native.watch_prefixes(told.put_nowait)
    directions = Directions(marks=(Mark(0.5, 11), Mark(1.0, 12)))
    async for _ in native.generate(ask("The harbour master wrote down each ship.", 4), directions):
        pass
    async with asyncio.timeout(120):
        assert await told.get() == PrefixChange((11, 12), ())
        await native.forget_prefixes()
        change = await told.get()
    assert (change.added, set(change.evicted)) == ((), {11, 12})
