"""The lowering alone: what is planned, what is cut and why. No server; no code of the app is run."""

from __future__ import annotations

from functools import partial
from operator import itemgetter

import pytest
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser, XMLOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from lc_shapes import P, S, step

from semantic_parrot.adapters.langchain import ChatParrot, explain, lambdas
from semantic_parrot.adapters.langchain.values import UNKNOWN, Answered, Cut, Fields, Items, Known, Text, lift
from semantic_parrot.adapters.marks import Marks, Ref
from semantic_parrot.core.wire import references

LLM = ChatParrot(temperature=0, model="m")


def requests(chain, given):
    return [call.request for call in explain(chain, given).calls]


def content(request):
    return request["messages"][-1]["content"]


def reasons(chain, given):
    return [piece.reason for piece in explain(chain, given).cuts]


# Requests.


def test_a_request_is_what_the_client_would_send_and_no_more():
    (first, second) = requests(step("A {x}", LLM) | P("B {y}") | LLM.bind(stop=["q"], max_tokens=7), {"x": 1})
    assert first == {"model": "m", "temperature": 0.0, "messages": [{"role": "user", "content": "A 1"}]}
    assert second == {
        "model": "m",
        "temperature": 0.0,
        "stop": ["q"],
        "max_completion_tokens": 7,
        "messages": [{"role": "user", "content": {"$t": ["B ", {"var": "text0"}]}}],
    }


def test_templates_keep_braces_roles_and_parts():
    prompt = ChatPromptTemplate.from_messages(
        [
            ("system", "{{literal}} {x}"),
            AIMessage("earlier"),
            MessagesPlaceholder("history", optional=True),
            ("human", [{"type": "text", "text": "see {y}"}]),
        ]
    )
    chain = {"y": step("A {x}", LLM), "x": itemgetter("x")} | prompt | LLM
    request = requests(chain, {"x": "{y}"})[-1]
    assert [message["role"] for message in request["messages"]] == ["system", "assistant", "user"]
    assert request["messages"][0]["content"] == "{literal} {y}"
    assert content(request) == [{"type": "text", "text": {"$t": ["see ", {"var": "text0"}]}}]
    assert references(request) == ("text0",)


def test_marks_round_trip_and_leave_other_text_alone():
    marks, others = Marks("a" * 32), Marks("b" * 32)
    parts = ("x ", Ref("text0"), Ref("text1"), " \ue000y\ue001")
    assert marks.read(marks.write(parts)) == parts
    assert marks.templates(others.write(parts), never) == others.write(parts)


# Cuts.


class Odd:
    def __format__(self, spec):
        raise AssertionError("planning ran code of the app")

    __str__ = __repr__ = __format__


def never(*_):
    raise AssertionError("planning ran code of the app")


@pytest.mark.parametrize(
    ("piece", "given", "why"),
    [
        (P("B {y!r}"), "x", "formatted with"),
        (P("B {y:>9}"), "x", "formatted with"),
        (ChatPromptTemplate.from_template("{{#y}}B{{/y}}", template_format="mustache"), "x", "mustache"),
        (ChatPromptTemplate.from_template("{{y}} {{{y}}}", template_format="mustache"), "x", "both escaped and"),
        (ChatPromptTemplate.from_template("{{y.z}}", template_format="mustache"), "x", "more with 'y'"),
        (ChatPromptTemplate.from_template("{{ y }}", template_format="jinja2"), "x", "jinja2"),
        (PromptTemplate.from_template("B {y} {n}", partial_variables={"n": never}), "x", "a function"),
        (ChatPromptTemplate.from_messages([MessagesPlaceholder("y")]), "x", "only the run"),
        (RunnablePassthrough(never), "x", "function of the app"),
        (JsonOutputParser(diff=True), "x", "patches"),
        (XMLOutputParser(), "x", "XMLOutputParser is not lowered"),
        (RunnableLambda(partial(never)), "x", "code of the app"),
        (RunnableLambda(never), "x", "code of the app"),
        (step("S {d}", LLM).map(), "x", "length"),
    ],
)
def test_what_is_cut_says_why_and_runs_nothing(piece, given, why):
    chain = step("A {x}", LLM) | piece | LLM
    explained = explain(chain, {"x": given})
    assert len(explained.calls) == 1
    assert why in " ".join(piece.reason for piece in explained.cuts)
    assert "stays on the client" in str(explained)


def test_objects_of_the_app_are_never_formatted():
    assert reasons(step("A {x}", LLM), {"x": Odd()}) == ["a Odd is used in a prompt"]


def test_what_follows_an_opaque_branch_waits_for_it():
    chain = {"a": step("A {x}", LLM), "b": never} | P("only {a}") | LLM
    assert len(requests(chain, {"x": "1"})) == 1


# Lambdas.

ONE, TWO = lambda x: {"y": x["a"]}, lambda x: {"y": x["b"]}


def greet(x):
    """One expression."""
    return f"hi {x['a']}, {GREETING}"


GREETING = "you"
LISTED = []
VALUE = Fields({"a": Text(("<", Ref("text0"), ">")), "b": Known("b"), "n": Known(2)})


@pytest.mark.parametrize(
    ("function", "result"),
    [
        (ONE, Fields({"y": Text(("<", Ref("text0"), ">"))})),
        (TWO, Fields({"y": Known("b")})),
        (greet, Text(("hi <", Ref("text0"), ">, you"))),
        (itemgetter("b"), Known("b")),
        (lambda x: x["a"] + "!" + x["b"], Text(("<", Ref("text0"), ">!b"))),
        (lambda x: f"{x['n']}", Text(("2",))),
        (lambda x: ", ".join([x["a"], x["b"]]), Text(("<", Ref("text0"), ">, b"))),
        (lambda x: [v + "!" for v in [x["a"]]], Items((Text(("<", Ref("text0"), ">!")),))),
    ],
)
def test_simple_functions_are_read(function, result):
    assert lambdas.apply(function, VALUE, never) == result


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x["a"].upper(),
        lambda x: x["missing"],
        lambda x: x["a"] * 2,
        lambda x: f"{x['a']!r}",
        lambda x: f"{x['a']:>5}",
        lambda x: x["a"] if x["b"] else "",
        lambda x: [v + "!" for v in x["a"]],
        lambda x: LISTED,
        lambda x: never(x),
        lambda *x: x,
        lambda x, y=1: x,
        len,
        partial(never, 1),
        Odd,
        eval("lambda x: x"),
    ],
)
def test_other_functions_are_cut(function):
    with pytest.raises(Cut):
        lambdas.apply(function, VALUE, never)


def test_a_message_is_read_by_its_content_only():
    assert lambdas.apply(lambda m: m.content, Answered(Ref("text0")), never) == Text((Ref("text0"),))
    with pytest.raises(Cut):
        lambdas.apply(lambda m: m.id, Answered(Ref("text0")), never)


def test_lifting():
    assert lift({"a": {"b": 1}}) == Fields({"a": Fields({"b": Known(1)})})
    assert lift(UNKNOWN) == Known(UNKNOWN)
    assert isinstance(S(), StrOutputParser)
