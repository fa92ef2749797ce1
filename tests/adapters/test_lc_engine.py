"""Acceptance: `parrot serve --deterministic` around a real engine and a small random model; and the embedded server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec

import psutil
import pytest
from lc_recorder import WAYS, Recorder, run
from lc_shapes import PROMISED, P, step
from live import LiveServer

from semantic_parrot.adapters.embedded import EmbeddedOptions, close_embedded, embedded_url
from semantic_parrot.adapters.langchain import ChatParrot, disabled
from semantic_parrot.core.errors import EngineFailed

pytestmark = pytest.mark.skipif(find_spec("torch") is None, reason="needs torch")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from tiny_models import make_model

    return make_model("llama", tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def engine(checkpoint):
    with LiveServer("--model", str(checkpoint), "--deterministic", "--no-single-flight") as server:
        yield server


@pytest.mark.parametrize("way", WAYS)
def test_texts_trees_and_round_trips_on_a_real_engine(engine, way):
    llm = ChatParrot(base_url=engine.url, temperature=0, max_tokens=8, max_retries=0)
    for shape in PROMISED:
        chain = shape.build(llm)
        seen = {}
        for name in ("eager", "lowered"):
            before, recorder = engine.metrics(), Recorder()
            if name == "eager":
                with disabled():
                    result = run(way, chain, shape.input, recorder)
            else:
                result = run(way, chain, shape.input, recorder)
            after = engine.metrics()
            calls = after["parrot_calls_executed_total"] - before["parrot_calls_executed_total"]
            trips = after["parrot_requests_total"] - before["parrot_requests_total"]
            seen[name] = (without_cache_counts(result), without_cache_counts(recorder.tree()), calls), trips
        assert seen["lowered"][0] == seen["eager"][0], shape.name
        assert "raised" not in seen["eager"][0][0]
        if "batch" not in way:
            assert (seen["eager"][1], seen["lowered"][1]) == shape.trips, shape.name
        elif "exceptions" not in way:
            assert seen["lowered"][1] == (shape.batched or shape.trips[1]), shape.name


TOLD = {"temperature": 0, "logprobs": True, "top_logprobs": 2}
CHOICES = {**TOLD, "temperature": 1, "seed": 5, "n": 2}
# A stream of two choices is one text of both to LangChain, in the order in which the pieces happen to come.
OPTIONS = [(TOLD, way) for way in WAYS] + [(CHOICES, way) for way in WAYS if "stream" not in way]


@pytest.mark.parametrize(("options", "way"), OPTIONS)
def test_logprobs_and_choices_are_replayed(engine, options, way):
    llm = ChatParrot(base_url=engine.url, max_tokens=8, max_retries=0, **options)
    chain = step("A {x}", llm) | P("B {y}") | llm
    seen = {}
    for name in ("eager", "lowered"):
        trips, recorder = engine.requests(), Recorder()
        if name == "eager":
            with disabled():
                result = run(way, chain, {"x": "1"}, recorder)
        else:
            result = run(way, chain, {"x": "1"}, recorder)
        seen[name] = without_cache_counts(result), without_cache_counts(recorder.tree())
        if "batch" not in way:
            assert engine.requests() - trips == (2 if name == "eager" else 1)
    assert seen["lowered"] == seen["eager"]
    assert "raised" not in seen["eager"][0]
    assert seen["eager"][1].count("top_logprobs") > 8 * options.get("n", 1)


def test_a_streams_chunks_carry_their_logprobs(engine):
    llm = ChatParrot(base_url=engine.url, max_tokens=8, max_retries=0, **TOLD)
    chain = step("A {x}", llm) | P("B {y}") | llm

    def chunks():
        return [
            (chunk.content, str(chunk.response_metadata.get("logprobs")))
            for chunk in chain.stream({"x": "1"})
            if chunk.content
        ]

    with disabled():
        eager = chunks()
    trips = engine.requests()
    assert chunks() == eager
    assert engine.requests() - trips == 1
    assert sum("top_logprobs" in told for _, told in eager) > 1


def without_cache_counts(seen: object) -> str:
    """Equal runs may find different parts of their prompts in the server's cache."""
    return re.sub(r"('cached_tokens'|'cache_read'): \d+", "", str(seen).replace("\\", ""))


@pytest.fixture
def _embedded():
    yield
    close_embedded()


@pytest.mark.usefixtures("_embedded")
def test_embedded_needs_nothing_else_and_is_shared(checkpoint):
    flags = ("--deterministic",)
    first, second = (
        ChatParrot(
            base_url="embedded", model=str(checkpoint), embedded_flags=flags, temperature=0, max_tokens=4, max_retries=0
        )
        for _ in range(2)
    )
    children = {child.pid for child in psutil.Process().children()}
    shape = PROMISED[0]
    with disabled():
        eager = shape.build(first).invoke(shape.input)
    assert shape.build(second).invoke(shape.input) == eager
    new = [child for child in psutil.Process().children() if child.pid not in children]
    assert len(new) == 1
    url = embedded_url(EmbeddedOptions(str(checkpoint), flags))
    os.kill(new[0].pid, signal.SIGKILL)
    new[0].wait(10)
    assert shape.build(first).invoke(shape.input) == eager, "a server that died is started again"
    assert embedded_url(EmbeddedOptions(str(checkpoint), flags)) != url


def test_embedded_that_cannot_start_says_why(tmp_path):
    with pytest.raises(EngineFailed, match="embedded server"):
        embedded_url(EmbeddedOptions(str(tmp_path / "nothing")))


def test_embedded_dies_with_its_parent(checkpoint):
    code = f"""
from semantic_parrot.adapters.embedded import EmbeddedOptions, embedded_url, _SERVERS
embedded_url(EmbeddedOptions({str(checkpoint)!r}))
print(next(iter(_SERVERS._running.values())).pid, flush=True)
import os
os._exit(0)  # no clean-up of any kind
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=280)
    child = int(done.stdout)
    with suppress(psutil.NoSuchProcess):
        psutil.Process(child).wait(20)
