"""When a first attempt fails: the next one is the app's own, and is planned with what follows it."""

from __future__ import annotations

import pytest
from langchain_core.output_parsers import JsonOutputParser
from lc_recorder import WAYS, Recorder, run
from lc_shapes import P, S, formatted_answer, step
from live import LocalServer
from scripted import ScriptedEngine, text_of

from semantic_parrot.adapters.langchain import ChatParrot, disabled
from semantic_parrot.core.errors import EngineFailed, InvalidRequest
from semantic_parrot.core.runtime import Runtime

FEW_WAYS = ("invoke", "ainvoke", "stream", "astream-events")


class Moody(ScriptedEngine):
    """Refuses every prompt with the word FAIL, and breaks down over each with the word ONCE, the first time."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        super().__init__(fail=self._mood, answers=formatted_answer)

    def _mood(self, request):
        text = text_of(request)
        if "FAIL" in text:
            return InvalidRequest("too long", where="messages")
        if "ONCE" in text and text not in self.broken:
            self.broken.add(text)
            return EngineFailed("out of order")
        return None


@pytest.fixture
def moody():
    engine = Moody()
    with LocalServer(Runtime([engine], disable={"single-flight"})) as server:
        server.engine = engine
        yield server


def both(server, build, way="invoke", *, racy=False):
    """(result, trips eager, trips lowered); the results and run trees are equal. `racy`: of several threads that run
    side by side, one fails, and how far the others get is chance."""
    llm = ChatParrot(base_url=server.url, temperature=0, max_retries=0)
    seen = []
    for eager in (True, False):
        server.engine.broken.clear()
        recorder, before = Recorder(), server.requests()
        if eager:
            with disabled():
                result = run(way, build(llm), {"x": "1"}, recorder)
        else:
            result = run(way, build(llm), {"x": "1"}, recorder)
        seen.append((result, recorder.tree(), server.requests() - before))
    (result, tree, many), (lowered, lowered_tree, few) = seen
    assert lowered == result
    if not racy:
        assert lowered_tree == tree
    return result, many, few


@pytest.mark.parametrize("way", FEW_WAYS)
def test_the_second_choice_is_planned_with_what_follows(moody, way):
    def build(llm):
        first = step("FAIL {x}", llm).with_fallbacks([step("F {x}", llm) | step("G {y}", llm)])
        return first | step("B {y}", llm) | step("C {y}", llm)

    result, many, few = both(moody, build, way)
    assert not result.startswith("raised")
    assert (many, few) == (4, 2)  # requests that were accepted: the refused one is not among them


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_second_attempt_is_planned_with_what_follows(moody, way):
    def build(llm):
        first = (step("ONCE {x}", llm) | step("A {y}", llm)).with_retry(wait_exponential_jitter=False)
        return first | step("B {y}", llm) | step("C {y}", llm)

    result, many, few = both(moody, build, way)
    assert not result.startswith("raised")
    assert (many, few) == (5, 2)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_json_is_the_eager_error(moody, way):
    def build(llm):
        return P("[bad] {x}") | llm | JsonOutputParser() | P("use {a}") | llm | S()

    result, many, few = both(moody, build, way, racy="batch" in way)
    if way in ("invoke", "ainvoke", "batch", "abatch"):
        assert "OutputParserException" in result
    assert few <= many
    if "batch" not in way:
        assert (many, few) == (1, 1)


def test_json_without_the_key_is_the_eager_error(moody):
    def build(llm):
        return P("[json a] {x}") | llm | JsonOutputParser() | P("use {a} {b}") | llm | S()

    result, many, few = both(moody, build)
    assert result.startswith("raised KeyError")
    assert (many, few) == (1, 1)


def test_one_failed_item_of_a_planned_map_fails_like_an_eager_one(moody):
    def build(llm):
        return (
            P("[list] {x}")
            | llm
            | S()
            | (lambda t: f"{t}, FAIL")
            | (lambda t: t.split(", "))
            | step("E {i}", llm).map()
            | (lambda t: t[0])
            | llm
        )

    result, many, few = both(moody, build, racy=True)
    assert result.startswith("raised")
    assert "too long" in result
    assert few <= many
