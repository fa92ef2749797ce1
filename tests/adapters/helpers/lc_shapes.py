"""The app shapes whose round trips are promised, and further ones that must merely stay correct."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.output_parsers import (
    CommaSeparatedListOutputParser,
    JsonOutputParser,
    PydanticOutputParser,
    StrOutputParser,
)
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import (
    Runnable,
    RunnableBranch,
    RunnableLambda,
    RunnablePassthrough,
)
from langchain_core.runnables.history import RunnableWithMessageHistory
from pydantic import BaseModel
from scripted import answer, text_of

P = ChatPromptTemplate.from_template
S = StrOutputParser


@dataclass(frozen=True)
class Shape:
    """`trips`: (eager, lowered) round trips of one `invoke`; `streamed`: of one `stream`, where that differs;
    `batched`: lowered ones of a batch of three, where code of the app starts each by itself (else a batch takes as many
    as one). `streams`: whether LangChain itself can. `hidden`: code of the app calls chains, which nobody foresees."""

    name: str
    build: Callable[[Any], Runnable[Any, Any]]
    input: Any
    trips: tuple[int, int]
    streamed: tuple[int, int] | None = None
    batched: int | None = None
    streams: bool = True
    hidden: bool = False


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


def formatted_answer(request: Any) -> str:
    """What the request asks for by a tag in its text, made of words that no other prompt gets."""
    words = answer(request)
    tag = re.search(r"\[(\w+) ?(.*?)\]", text_of(request))
    if tag is None:
        return words
    found = FORMATS[tag[1]](words, tag[2].split())
    return str(found)


FORMATS: dict[str, Callable[[str, list[str]], str]] = {
    "json": lambda words, keys: json.dumps({key: f"{key} {words}" for key in keys}),
    "jsons": lambda words, keys: (
        "```json\n" + json.dumps([{key: f"{key} {words} {n}"} for n, key in enumerate(keys)]) + "\n```"
    ),
    "cut": lambda words, keys: json.dumps({key: f"{key} {words}" for key in keys})[:-1],
    "bad": lambda words, _: f"no {words}",
    "list": lambda words, _: words.replace(" ", ", "),
    "numbers": lambda words, _: "\n".join(f"{n}. {word}" for n, word in enumerate(words.split(), 1)),
    "html": lambda words, _: f'<b>{words}</b> & "so"',
}


class Earlier(BaseChatMessageHistory):
    """What was said before; what is said now is not kept, so that runs do not change each other's."""

    def __init__(self, session_id: str) -> None:
        self.messages: list[BaseMessage] = [HumanMessage("earlier"), AIMessage(session_id)]

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        assert [message.type.removesuffix("MessageChunk").lower() for message in messages] == ["human", "ai"]

    def clear(self) -> None:
        raise NotImplementedError


class Pair(BaseModel):
    a: str
    b: str


def pair(found: Pair) -> dict[str, str]:
    given = {"a": found.a}
    return given


def step(text: str, model: Any) -> Runnable[Any, Any]:
    return P(text) | model | S()


def remembered(model: Any) -> Runnable[Any, Any]:
    chain = (
        ChatPromptTemplate.from_messages([MessagesPlaceholder("h"), ("human", "{q}")])
        | model
        | S()
        | P("T {y}")
        | model
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in the newest version
        found = RunnableWithMessageHistory(chain, Earlier, input_messages_key="q", history_messages_key="h")
    return found.with_config(configurable={"session_id": "s"})


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
    Shape(
        "branch",
        lambda m: (
            RunnableBranch((lambda d: len(d["x"]) > 0, step("A {x}", m) | step("A2 {y}", m)), step("Z {x}", m))
            | step("B {y}", m)
        ),
        {"x": "1"},
        (3, 1),
        batched=3,
    ),
    Shape(
        "classify",
        lambda m: (
            {"k": step("classify {x}", m), "x": itemgetter("x")}
            | RunnableBranch((lambda d: d["k"] != "", step("A {x}", m) | step("A2 {y}", m)), step("Z {x}", m))
        ),
        {"x": "1"},
        (3, 2),
        batched=4,
    ),
    Shape(
        "inner-chain",
        lambda m: (lambda c: RunnableLambda(lambda d: c.invoke(d) + "!") | step("B {y}", m))(
            step("A {x}", m) | step("A2 {y}", m)
        ),
        {"x": "1"},
        (3, 2),
        batched=4,
        hidden=True,
    ),
    Shape(
        "bound", lambda m: P("A {x}") | m.bind(stop=["q"]) | S() | P("B {y}") | m.bind(max_tokens=2), {"x": "1"}, (2, 1)
    ),
    Shape("history", remembered, {"q": "?"}, (2, 1), batched=3, hidden=True),
)

# Promised too, of models that answer in a format.
FORMATTED = (
    Shape(
        "json",
        lambda m: P("[json a b] {x}") | m | JsonOutputParser() | step("use {a} and {b}", m),
        {"x": "1"},
        (2, 1),
    ),
    Shape(
        "pydantic",
        lambda m: (
            P("[json a b] {x}")
            | m
            | PydanticOutputParser(pydantic_object=Pair)
            | pair
            | step("use {a}", m)
            | step("C {y}", m)
        ),
        {"x": "1"},
        (3, 2),
    ),
    Shape(
        "list-map",
        lambda m: (
            P("[list] {x}")
            | m
            | CommaSeparatedListOutputParser()
            | (step("E {i}", m) | step("E2 {i}", m)).map()
            | (lambda xs: {"y": "\n".join(xs)})
            | step("R {y}", m)
        ),
        {"x": "1"},
        (8, 1),
    ),
)
