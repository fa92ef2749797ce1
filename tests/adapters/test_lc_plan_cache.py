"""Plans that are kept: always the plan that would be made anew, whatever has changed since."""

from __future__ import annotations

import gc
import os
from operator import itemgetter

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import JsonOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough
from lc_more_shapes import CORRECT
from lc_shapes import FORMATTED, PROMISED, P, S, step
from lc_trees import Trees

from semantic_parrot.adapters.langchain import ChatParrot, ParrotLLM
from semantic_parrot.adapters.langchain.plan_cache import CHANGES, SHAPES, PlanCache
from semantic_parrot.adapters.langchain.planner import PLANNER
from semantic_parrot.adapters.plan import program_of

TREES = int(os.environ.get("PARROT_FUZZ_TREES", "16")) * 4
FIRST = int(os.environ.get("PARROT_FUZZ_SEED", "0"))
LLM = ChatParrot(temperature=0, model="m")
COMPLETION = ParrotLLM(temperature=0, model="m")


def told(plan, streaming=False):
    programs = [program_of(nodes, {}, streaming=streaming).model_dump() for nodes in plan.nodes()]
    calls = [(call.variable, call.request, call.inputs, call.site, call.repeated) for call in plan.calls]
    return programs, calls, {key: count for key, count in plan.covered.items() if count}


def check(chain, given, streaming=False):
    """The plan that is kept, or made, is the one that is made anew."""
    anew = told(PLANNER.plan(chain, given, streaming=streaming, cached=False), streaming)
    assert told(PLANNER.plan(chain, given, streaming=streaming), streaming) == anew
    return anew


def kept(chain, given, streaming=False):
    """Whether a plan of it is kept."""

    def never(_):
        raise AssertionError("a plan is made")

    try:
        return PLANNER.kept.plan(chain, given, streaming, PLANNER.ledger.changes, never) is not None
    except AssertionError:
        return False


INPUTS = [{"x": "one", "q": "two <&>"}, {"x": "", "q": "\ue000{0}"}, {"x": "x", "q": 'a "b" {x}'}, {"x": 7, "q": None}]


def test_random_chains():
    found = 0
    for seed in range(FIRST, FIRST + TREES):
        chain = Trees(seed, LLM, COMPLETION).tree()
        for streaming in (False, True):
            for given in INPUTS:
                check(chain, given, streaming)
        found += kept(chain, INPUTS[0]) and bool(PLANNER.plan(chain, INPUTS[0], streaming=False).calls)
    assert found > TREES / 2


@pytest.mark.parametrize("shape", PROMISED + FORMATTED + CORRECT, ids=lambda shape: shape.name)
def test_every_shape(shape):
    chain = shape.build(LLM)
    for _ in range(3):
        check(chain, shape.input)


def test_only_strings_are_filled_in():
    chain = step("A {x}", LLM) | step("B {y}", LLM)
    for given in ({"x": "1"}, {"x": "2"}):
        check(chain, given)
    assert kept(chain, {"x": "anything"})
    assert not kept(chain, {"x": 1})
    assert not kept(chain, {"x": "1", "z": "2"})
    assert not kept(chain, {"x": ["1"]})
    assert not kept(chain, {"x": "1"}, streaming=True)
    for given in (
        {"x": 1},
        {"x": True},
        {"x": 1.0},
        {"x": 0.0},
        {"x": -0.0},
        {"x": ["a"]},
        {"x": ["a", "b"]},
        {"x": None},
    ):
        for _ in range(2):
            check(chain, given)


def test_a_list_of_known_length():
    chain = (
        RunnableLambda(itemgetter("docs")) | step("S {d}", LLM).map() | (lambda xs: "\n".join(xs)) | step("R {t}", LLM)
    )
    for docs in (["a"], ["a", "b"], ["c", "d"], ["e", "f", "g"], []):
        check(chain, {"docs": [{"d": doc} for doc in docs]})
    assert kept(chain, {"docs": [{"d": "x"}, {"d": "y"}]})


@pytest.mark.parametrize(
    "piece",
    [
        P("B {x:>9}"),
        P("B {x!r}"),
        ChatPromptTemplate.from_template("{{#x}}B{{/x}}", template_format="mustache"),
        ChatPromptTemplate.from_template("{{x}} {{{x}}}", template_format="mustache"),
        ChatPromptTemplate.from_messages([MessagesPlaceholder("h", optional=True), ("human", "{x}")]),
        RunnableLambda(lambda d: {"y": [d["x"]]}) | P("{y}"),
    ],
)
def test_what_depends_on_the_strings_themselves(piece):
    chain = {"x": itemgetter("x"), "h": itemgetter("h")} | piece | LLM | P("C {y}") | LLM
    for text in ("a", "", "<&>", "a"):
        check(chain, {"x": text, "h": [HumanMessage("hi")]})
        check(chain, {"x": text, "h": []})


def test_an_empty_string_beside_an_answer():
    chain = {"x": itemgetter("x"), "y": step("A {x}", LLM)} | P("{x}{y}{x}") | LLM
    for text in ("a", "", "b"):
        check(chain, {"x": text})
    assert kept(chain, {"x": ""})


# What may change.

WORD = "one"


def _global(_):
    global WORD
    WORD = "two"


def _closed_over():
    word = "one"

    def turn(_):
        nonlocal word
        word = "two"

    return (lambda t: {"y": t + word}), turn


def _set(name, value):
    return lambda piece: setattr(piece, name, value)


def _bound():
    return RunnableLambda(lambda y: y) | LLM.bind(stop=["a"])


#: What makes a piece, and what changes it, or one of its parts.
CHANGED = {
    "template": (lambda: P("M {y}"), lambda p: setattr(p.messages[0].prompt, "template", "Z {y}")),
    "prompt": (lambda: P("M {y}"), lambda p: setattr(p.messages[0], "prompt", PromptTemplate.from_template("Z {y}"))),
    "messages": (lambda: P("M {y}"), lambda p: p.messages.append(HumanMessage("more"))),
    "message": (
        lambda: ChatPromptTemplate.from_messages([HumanMessage("said"), ("human", "{y}")]),
        lambda p: setattr(p.messages[0], "content", "else"),
    ),
    "partial": (lambda: P("M {y} {lang}").partial(lang="en"), lambda p: p.partial_variables.update(lang="de")),
    "bound argument": (
        _bound,
        lambda p: p.steps[1].kwargs["stop"].append("b"),
    ),
    "bound arguments": (
        _bound,
        lambda p: p.steps[1].kwargs.pop("stop"),
    ),
    "steps": (lambda: P("M {y}") | LLM | S(), lambda p: p.middle.append(RunnableLambda(lambda m: "else"))),
    "branches": (lambda: RunnableParallel(y=step("M {y}", LLM), z=opaque), lambda p: p.steps__.pop("z")),
    "parser": (JsonOutputParser, _set("diff", True)),
    "function": (lambda: RunnableLambda(lambda t: {"y": t + "a"}), _set("func", lambda t: {"y": t + "b"})),
    "code": (
        lambda: RunnableLambda(lambda t: {"y": t + "a"}),
        lambda p: setattr(p.func, "__code__", (lambda t: {"y": t + "b"}).__code__),
    ),
    "global": (lambda: RunnableLambda(lambda t: {"y": t + WORD}), _global),
}


def opaque(y):
    y = [y]
    return y[0]


def check_change(piece, change):
    makes_fields = isinstance(piece, RunnableLambda | RunnableParallel | JsonOutputParser)
    chain = P("A {x}") | LLM | S() | (lambda t: t) | (P("B {y}") if makes_fields else RunnablePassthrough()) | LLM
    chain.middle[2] = piece  # as it is: `|` would take a sequence apart
    for text in ("1", "2"):
        before = check(chain, {"x": text})
    assert kept(chain, {"x": "3"}), "nothing is tested otherwise"
    change(piece)
    after = check(chain, {"x": "2"})
    assert after[:2] != before[:2], "nothing is tested otherwise"
    check(chain, {"x": "3"})


@pytest.mark.parametrize("what", CHANGED)
def test_a_plan_is_never_stale(what, monkeypatch):
    monkeypatch.setitem(globals(), "WORD", "one")
    make, change = CHANGED[what]
    check_change(make(), change)


def test_a_variable_of_the_function_around():
    function, change = _closed_over()
    check_change(RunnableLambda(function), change)


def test_settings_of_the_model():
    llm = ChatParrot(temperature=0, model="m", model_kwargs={"prompt_cache_key": "a"}, extra_body={"top_k": 1})
    chain = step("A {x}", llm) | step("B {y}", llm)
    before = [check(chain, {"x": "1"}) for _ in range(2)][-1]
    for change in (
        lambda: setattr(llm, "temperature", 0.5),
        lambda: llm.model_kwargs.update(prompt_cache_key="b"),
        lambda: llm.extra_body.update(top_k=2),
        lambda: setattr(llm, "cache", InMemoryCache()),
    ):
        assert kept(chain, {"x": "1"})
        change()
        after = check(chain, {"x": "1"})
        assert after != before
        before = after


def test_a_cache_for_all_models():
    chain = step("A {x}", LLM) | step("B {y}", LLM)
    for _ in range(2):
        check(chain, {"x": "1"})
    set_llm_cache(InMemoryCache())
    try:
        assert check(chain, {"x": "1"})[1] == []
    finally:
        set_llm_cache(None)
    assert len(check(chain, {"x": "1"})[1]) == 2


def test_a_site_that_is_dropped():
    chain = step("A {x}", LLM) | step("B {y}", LLM)
    for _ in range(2):
        before = check(chain, {"x": "1"})
    PLANNER.ledger.refuse(before[1][-1][3], "no")
    assert len(check(chain, {"x": "1"})[1]) == 1


def test_what_changes_all_the_time_is_not_kept():
    chain = step("A {x}", LLM) | step("B {y}", LLM)
    for i in range(CHANGES + 3):
        chain.steps[0].messages[0].prompt.template = f"A{i} {{x}}"
        check(chain, {"x": "1"})
    check(chain, {"x": "1"})
    assert not kept(chain, {"x": "1"})


def test_plans_are_bounded_and_go_with_their_chain():
    cache, chain, found = PlanCache(), step("A {x}", LLM), PLANNER.plan(step("A {x}", LLM), {"x": ""}, streaming=False)
    for i in range(SHAPES + 2):
        assert (cache.plan(chain, {"x": i}, False, 0, lambda _: found) is not None) == (i > 0)
    (entry,) = cache._kept.values()
    assert len(entry.recipes) <= SHAPES
    del chain, entry
    while cache._kept:  # until the test's time is over: one does nothing while another thread is collecting
        gc.collect()


def test_a_plan_that_is_made_while_another_thread_finds_a_change_is_not_kept():
    cache, chain = PlanCache(), step("A {x}", LLM)

    def plan():
        return PLANNER.plan(chain, {"x": ""}, streaming=False)

    old, new = plan(), None
    made = []

    def slowly(_):
        nonlocal new
        chain.steps[0].messages[0].prompt.template = "B {x}"
        new = plan()
        cache.plan(chain, {"x": "1"}, False, 0, lambda _: made.append("new") or new)  # the other thread
        return old

    cache.plan(chain, {"x": "1"}, False, 0, slowly)  # the first time it is only noted
    cache.plan(chain, {"x": "1"}, False, 0, slowly)
    assert made == ["new"]
    kept_now = cache.plan(chain, {"x": "1"}, False, 0, lambda _: made.append("again") or new)
    assert [call.request for call in kept_now.calls] == [call.request for call in new.calls]
    assert [call.request for call in kept_now.calls] != [call.request for call in old.calls]
