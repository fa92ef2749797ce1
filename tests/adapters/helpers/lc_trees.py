"""Random trees of runnables from what the lowering's table lists, and of what it cuts. Well typed, so that they run."""

from __future__ import annotations

import random
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from langchain_core.output_parsers import (
    CommaSeparatedListOutputParser,
    JsonOutputParser,
    NumberedListOutputParser,
    StrOutputParser,
)
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import Runnable, RunnableBranch, RunnableLambda, RunnableParallel, RunnablePassthrough

#: What a value is: a text, a list of texts, or a dict of texts by these keys.
Kind = str | tuple[str, ...]
Made = tuple[Runnable[Any, Any], Kind]
TEXT, LIST = "text", "list"


def shout(value: Any) -> Any:
    """Code of the app: more than one expression."""
    if isinstance(value, dict):
        return {key: shout(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shout(item) for item in value]
    return value.upper()


class Trees:
    """`model`: a chat model; `completion`: one of the other kind, which returns texts."""

    def __init__(self, seed: int, model: Any, completion: Any) -> None:
        self.random = random.Random(seed)
        self.model = model
        self.completion = completion
        self._calls = 0

    def tree(self) -> Runnable[Any, Any]:
        """A chain that takes ``{"x": text, "q": text}``."""
        return self.chain(("x", "q"), self.random.randint(2, 5), 2)[0]

    def chain(self, kind: Kind, length: int, depth: int) -> Made:
        """`length` pieces, one after the other; nested at most `depth` deep."""
        found, kind = self.piece(kind, depth)
        for _ in range(length - 1):
            following, kind = self.piece(kind, depth)
            found = found | following
        return found, kind

    def to_text(self, kind: Kind, depth: int) -> Runnable[Any, Any]:
        found, kind = self.chain(kind, self.random.randint(1, 2), depth - 1)
        return found if kind == TEXT else found | self.call(kind, TEXT)

    def piece(self, kind: Kind, depth: int) -> Made:
        options = {TEXT: self._of_text, LIST: self._of_list}.get(kind if isinstance(kind, str) else "", self._of_dict)
        return options(kind, depth)

    def _choose(self, options: list[tuple[int, Callable[[], Made]]]) -> Made:
        return self.random.choices([make for _, make in options], [weight for weight, _ in options])[0]()

    # Calls.

    def call(self, kind: Kind, made: Kind) -> Runnable[Any, Any]:
        """A prompt of `kind`, a model and the parser that makes `made`."""
        self._calls += 1
        tag, parser = {
            TEXT: ("", StrOutputParser()),
            LIST: self.random.choice(
                [("[list]", CommaSeparatedListOutputParser()), ("[numbers]", NumberedListOutputParser())]
            ),
        }.get(made if isinstance(made, str) else "", ("[json a b]", JsonOutputParser()))
        names = [self.random.choice(kind)] if isinstance(kind, tuple) else ["y"]
        if isinstance(kind, tuple) and self.random.random() < 0.5:
            names = list(kind)
        return self._prompt(f"{self._calls}{tag}", names) | self._llm() | parser

    def _prompt(self, text: str, names: list[str]) -> Runnable[Any, Any]:
        match self.random.randrange(6):
            case 0:
                return PromptTemplate.from_template(text + "".join(f" {{{name}}}" for name in names))
            case 1:
                holes = "".join(f" <{{{{{name}}}}}>" for name in names)
                return ChatPromptTemplate.from_template(text + holes, template_format="mustache")
            case 2:
                holes = "".join(f" {{{name}}}" for name in names)
                return ChatPromptTemplate.from_messages([("system", "{lang}"), ("human", text + holes)]).partial(
                    lang="en"
                )
            case 3:
                holes = "".join(f" {{{name}!s}}" for name in names)
                return ChatPromptTemplate.from_template(text + holes)
        return ChatPromptTemplate.from_template(text + "".join(f" {{{name}}}" for name in names))

    def _llm(self) -> Any:
        llm = self.completion if self.random.random() < 0.15 else self.model
        return self.random.choice(
            [
                llm,
                llm,
                llm,
                llm.bind(stop=["q"]),
                llm.with_retry(),
                llm.with_fallbacks([llm]),
                llm.with_config(tags=["t"]),
            ]
        )

    # Pieces by the kind of their input.

    def _of_dict(self, kind: Any, depth: int) -> Made:
        key = self.random.choice(kind)
        options: list[tuple[int, Callable[[], Made]]] = [
            (3, lambda: (self.call(kind, TEXT), TEXT)),
            (1, lambda: (self.call(kind, LIST), LIST)),
            (1, lambda: (self.call(kind, ("a", "b")), ("a", "b"))),
            (1, lambda: (RunnableLambda(itemgetter(key)), TEXT)),
            (1, lambda: (RunnableLambda(lambda d: {"y": d[key] + "!", "x": "c"}), ("y", "x"))),
            (1, lambda: (RunnableLambda(lambda d: f"<{d[key]}>"), TEXT)),
            (1, lambda: (RunnableLambda(shout), kind)),
            (1, lambda: (RunnablePassthrough(), kind)),
        ]
        if depth:
            options += [
                (3, lambda: self._parallel(kind, depth)),
                (2, lambda: self._assign(kind, depth)),
                (1, lambda: self._branch(kind, depth)),
                (1, lambda: (self._wrapped(self.to_text(kind, depth)), TEXT)),
            ]
        return self._choose(options)

    def _of_text(self, kind: Any, depth: int) -> Made:
        options: list[tuple[int, Callable[[], Made]]] = [
            (4, lambda: (self.call(kind, TEXT), TEXT)),
            (1, lambda: (self.call(kind, LIST), LIST)),
            (1, lambda: (self.call(kind, ("a", "b")), ("a", "b"))),
            (1, lambda: (RunnableLambda(lambda t: f"<{t}>"), TEXT)),
            (1, lambda: (RunnableLambda(lambda t: {"y": t}), ("y",))),
            (1, lambda: (RunnableLambda(shout), TEXT)),
        ]
        if depth:
            options += [
                (1, lambda: self._parallel(kind, depth)),
                (1, lambda: (self._wrapped(self.to_text(kind, depth)), TEXT)),
            ]
        return self._choose(options)

    def _of_list(self, kind: Any, depth: int) -> Made:
        options: list[tuple[int, Callable[[], Made]]] = [
            (2, lambda: (RunnableLambda(lambda ts: "\n".join(ts)), TEXT)),
            (1, lambda: (RunnableLambda(lambda ts: "; ".join(f"- {t}" for t in ts)), TEXT)),
            (1, lambda: (RunnableLambda(lambda ts: [t + "!" for t in ts]), LIST)),
            (1, lambda: (RunnableLambda(lambda ts: ts[-1]), TEXT)),
            (1, lambda: (RunnableLambda(lambda ts: {"y": ts[0], "z": f"{ts}"}), ("y", "z"))),
            (1, lambda: (self.call(kind, TEXT), TEXT)),
            (1, lambda: (RunnableLambda(shout), LIST)),
        ]
        if depth:
            options.append((4, lambda: (self.to_text(TEXT, depth).map(), LIST)))
        return self._choose(options)

    def _parallel(self, kind: Kind, depth: int) -> Made:
        keys = tuple("abc"[: self.random.randint(1, 3)])
        return RunnableParallel({key: self.to_text(kind, depth) for key in keys}), keys

    def _assign(self, kind: tuple[str, ...], depth: int) -> Made:
        key = self.random.choice("opq")
        return RunnablePassthrough.assign(**{key: self.to_text(kind, depth)}), (*kind, key)

    def _branch(self, kind: tuple[str, ...], depth: int) -> Made:
        key = self.random.choice(kind)
        arms = self.to_text(kind, depth), self.to_text(kind, depth)
        return RunnableBranch((lambda d: sum(map(ord, d[key])) % 2 == 0, arms[0]), arms[1]), TEXT

    def _wrapped(self, inner: Runnable[Any, Any]) -> Runnable[Any, Any]:
        match self.random.randrange(3):
            case 0:
                return inner.with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
            case 1:
                return inner.with_fallbacks([RunnableLambda(shout)])
        return inner.with_config(run_name="inner")
