"""The app shapes whose round trips are promised, and further ones that must merely stay correct."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.runnables import (
    Runnable,
    RunnableBranch,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    RunnableSequence,
)

P = ChatPromptTemplate.from_template
S = StrOutputParser


@dataclass(frozen=True)
class Shape:
    """`trips`: (eager, lowered) round trips of one `invoke`."""

    name: str
    build: Callable[[Any], Runnable[Any, Any]]
    input: Any
    trips: tuple[int, int]


def split(x: dict[str, str]) -> list[dict[str, str]]:
    pieces = []
    for piece in x["text"].split():
        pieces.append({"d": piece})
    return pieces


def shout(text: str) -> dict[str, str]:
    if text:
        return {"y": text.upper()}
    return {"y": text}


def retrieve(x: dict[str, str]) -> str:
    found = sorted([x["q"], "k"])
    return "\n".join(found)


def step(text: str, model: Any) -> Runnable[Any, Any]:
    return P(text) | model | S()


PROMISED = (
    Shape("two", lambda m: step("A {x}", m) | step("B {y}", m), {"x": "1"}, (2, 1)),
    Shape(
        "four",
        lambda m: step("A {x}", m) | step("B {y}", m) | step("C {y}", m) | P("D {y}") | m,
        {"x": "1"},
        (4, 1),
    ),
    Shape(
        "parallel",
        lambda m: {"a": step("A {x}", m), "b": step("B {x}", m), "c": step("C {x}", m)} | step("J {a} {b} {c}", m),
        {"x": "1"},
        (4, 1),
    ),
    Shape(
        "assign",
        lambda m: (
            RunnablePassthrough.assign(o=step("outline {t}", m))
            | RunnablePassthrough.assign(d=step("draft {t} {o}", m))
            | step("final {t} {o} {d}", m)
        ),
        {"t": "cats"},
        (3, 1),
    ),
    Shape(
        "map-reduce",
        lambda m: (
            RunnableLambda(itemgetter("docs"))
            | step("S {d}", m).map()
            | (lambda xs: {"t": "\n".join(xs)})
            | step("R {t}", m)
        ),
        {"docs": [{"d": "a"}, {"d": "b"}, {"d": "c"}]},
        (4, 1),
    ),
    Shape(
        "opaque-split",
        lambda m: RunnableLambda(split) | step("S {d}", m).map() | (lambda xs: {"t": "\n".join(xs)}) | step("R {t}", m),
        {"text": "a b c d"},
        (5, 1),
    ),
    Shape(
        "opaque-middle", lambda m: step("A {x}", m) | shout | step("B {y}", m) | step("C {y}", m), {"x": "1"}, (3, 2)
    ),
    Shape(
        "opaque-prefix",
        lambda m: RunnablePassthrough.assign(ctx=retrieve) | step("C {ctx} Q {q}", m) | step("refine {y}", m),
        {"q": "z"},
        (2, 1),
    ),
)

CORRECT = (
    Shape("single", lambda m: step("A {x}", m), {"x": "1"}, (1, 1)),
    Shape(
        "bound", lambda m: P("A {x}") | m.bind(stop=["q"]) | S() | P("B {y}") | m.bind(max_tokens=2), {"x": "1"}, (2, 1)
    ),
    Shape(
        "wiring",
        lambda m: (
            {"s": step("sum {doc}", m), "q": itemgetter("q")}
            | RunnablePassthrough.assign(a=step("ans {q} from {s}", m))
            | step("crit {q} {a}", m)
        ),
        {"doc": "dd", "q": "?"},
        (3, 1),
    ),
    Shape(
        "pick",
        lambda m: RunnablePassthrough.assign(s=step("S {x}", m)).pick("s") | step("T {y}", m),
        {"x": "1"},
        (2, 1),
    ),
    Shape(
        "nested",
        lambda m: RunnableSequence(
            RunnableSequence(
                step("A {x}", m).with_config(run_name="inner", tags=["t1"]), P("B {y}"), m, S()
            ).with_config(metadata={"k": 1}),
            step("C {y}", m),
        ),
        {"x": "1"},
        (3, 1),
    ),
    Shape("twins", lambda m: {"a": step("A {x}", m), "b": step("A {x}", m)} | step("J {a} {b}", m), {"x": "1"}, (3, 1)),
    Shape(
        "messages",
        lambda m: (
            ChatPromptTemplate.from_messages(
                [("system", "in {lang}"), MessagesPlaceholder("h"), ("human", "{q}")]
            ).partial(lang="en")
            | m
            | S()
            | step("T {y}", m)
        ),
        {"h": [HumanMessage("hi"), AIMessage("yo")], "q": "?"},
        (2, 1),
    ),
    Shape(
        "message-lambda",
        lambda m: P("A {x}") | m | (lambda message: {"y": f"<{message.content}>"}) | step("B {y}", m),
        {"x": "1"},
        (2, 1),
    ),
    Shape(
        "string-prompt",
        lambda m: PromptTemplate.from_template("A {x}") | m | S() | PromptTemplate.from_template("B {y}") | m,
        {"x": "1"},
        (2, 1),
    ),
    Shape(
        "format-spec",
        lambda m: step("A {x:>5}", m) | step("B {y:>50}", m) | step("C {y!r}", m),
        {"x": "1"},
        (3, 3),
    ),
    Shape(
        "mustache",
        lambda m: step("A {x}", m) | ChatPromptTemplate.from_template("B {{y}}", template_format="mustache") | m,
        {"x": "1"},
        (2, 2),
    ),
    Shape(
        "branch",
        lambda m: (
            RunnableBranch((lambda d: len(d["x"]) > 0, step("A {x}", m) | step("A2 {y}", m)), step("Z {x}", m))
            | step("B {y}", m)
        ),
        {"x": "1"},
        (3, 2),
    ),
    Shape(
        "inner-chain",
        lambda m: (lambda c: RunnableLambda(lambda d: c.invoke(d) + "!") | step("B {y}", m))(
            step("A {x}", m) | step("A2 {y}", m)
        ),
        {"x": "1"},
        (3, 2),
    ),
    Shape(
        "returned-chain",
        lambda m: (lambda c: RunnableLambda(lambda d: c) | step("B {y}", m))(step("A {x}", m) | step("A2 {y}", m)),
        {"x": "1"},
        (3, 2),
    ),
    Shape(
        "partial-opaque",
        lambda m: (
            {"a": step("A {x}", m) | step("A2 {y}", m), "b": lambda d: retrieve({"q": d["x"]})} | step("J {a} {b}", m)
        ),
        {"x": "1"},
        (3, 2),
    ),
    Shape("retried", lambda m: step("A {x}", m).with_retry() | step("B {y}", m) | step("C {y}", m), {"x": "1"}, (3, 2)),
    Shape(
        "parallel-root",
        lambda m: RunnableParallel(a=step("A {x}", m), b=step("B {x}", m), c=step("C {x}", m) | step("D {y}", m)),
        {"x": "1"},
        (4, 1),
    ),
)
