"""Whatever a server says about its runs, the app gets what eager calls would have given it.

PARROT_HOSTILE_ROUNDS sets how often all of it is done, each time by other chances.
"""

from __future__ import annotations

import logging
import os

import pytest
from hostile import HostileServer
from langchain_core.prompts import PromptTemplate
from lc_more_shapes import CORRECT
from lc_recorder import WAYS, Recorder, run
from lc_shapes import FORMATTED, PROMISED, Shape

from semantic_parrot.adapters.langchain import ChatParrot, ParrotLLM, disabled

SHAPES = [shape for shape in PROMISED + FORMATTED + CORRECT if shape.trips[0] > 1]


ROUNDS = range(int(os.environ.get("PARROT_HOSTILE_ROUNDS", "1")))


def chosen(way, every):
    """Every so many shapes, for another way others."""
    return [shape for shape in SHAPES[len(way) % every :: every] if shape.streams or "stream" not in way]


def compare(shape, way, server, kind=ChatParrot):
    model = kind(base_url=server.url, temperature=0, max_retries=0)
    chain = shape.build(model)
    with disabled():
        eager = Recorder()
        expected = run(way, chain, shape.input, eager)
    lowered = Recorder()
    assert run(way, chain, shape.input, lowered) == expected
    assert not expected.startswith("raised")
    assert lowered.tree() == eager.tree()


@pytest.mark.parametrize("round", ROUNDS)
@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_aborts_and_lies(way, round):
    with HostileServer(seed=len(way) + 100 * round) as server:
        for shape in chosen(way, 2):
            compare(shape, way, server)
    assert server.faults["abort"] > 10
    assert server.faults["garbage"] > 10


@pytest.mark.parametrize("round", ROUNDS)
@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_also_hangs_up(way, round, caplog):
    caplog.set_level(logging.CRITICAL)
    with HostileServer(seed=len(way) + 100 * round, hang_up=0.3) as server:
        for shape in chosen(way, 5):
            compare(shape, way, server)
    assert server.faults["hang up"] > 1  # 5 to 16, as chance has it


@pytest.mark.parametrize("way", ["ainvoke", "stream", "astream"])
def test_completions_too(way, caplog):
    caplog.set_level(logging.CRITICAL)
    with HostileServer(seed=len(way), hang_up=0.2) as server:
        for number in range(10):
            compare(Shape("completions", completed, {"x": str(number)}, (3, 1)), way, server, ParrotLLM)
    assert min(server.faults[fault] for fault in ("abort", "garbage", "hang up")) >= 2


def completed(llm):
    A, B, C = (PromptTemplate.from_template(f"{name} {{x}}") for name in "ABC")
    return A | llm | B | llm | C | llm


class Mute(HostileServer):
    """Takes the program and breaks off at once."""

    def __init__(self) -> None:
        super().__init__(hang_up=1.0)


def test_a_stream_that_never_says_anything(caplog):
    caplog.set_level(logging.CRITICAL)
    with Mute() as server:
        compare(SHAPES[0], "invoke", server)
        compare(SHAPES[0], "stream", server)
