"""What a workload is made of, for whoever runs it: jobs, each an ordinary LangChain app with its input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from langchain_core.runnables import Runnable

from workloads.texts import Texts


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the model, in tokens. Its prompt: what it `begins` with, (name, tokens) of parts that every call
    with those names before it has alike, then `own`, which are nobody else's; the answers of the calls that it `reads`
    (by their place in the job) are among them, once each. Its answer has exactly `tokens`. `after`: seconds that pass
    before it can start."""

    own: int
    tokens: int
    reads: tuple[int, ...] = ()
    begins: tuple[tuple[str, int], ...] = ()
    after: float = 0.0

    @property
    def prompt(self) -> int:
        return self.own + sum(tokens for _, tokens in self.begins)


@dataclass(frozen=True, slots=True)
class Job:
    """`chain` is called with `input`, `at` seconds after the start; `calls` is what it will ask for. `stream`: the app
    reads its answer as it comes. `app`: of which kind it is, where a workload has several."""

    at: float
    app: str
    chain: Runnable[Any, Any]
    input: Any
    calls: tuple[Call, ...]
    stream: bool = False


class Service(Protocol):
    """What an app on Semantic Kernel is handed, as one on LangChain is handed a model."""

    def into(self, kernel: Any) -> None:
        """Make it the kernel's."""

    def tokens(self) -> int:
        """Of all answers until now, as the server told."""


#: (model or service, texts, scale, seed) → jobs. The first is all that an app knows of who answers it.
Jobs = Callable[[Any, Texts, float, str], list[Job]]


def scaled(paper: float, scale: float, least: int) -> int:
    """`paper` is the size at scale 1."""
    return max(least, round(paper * scale))


def at_once(calls: Sequence[Call]) -> int:
    """Tokens of prompts and answers that are there at the same time, where everything runs as soon as it can."""
    depths: list[int] = []
    levels: Counter[int] = Counter()
    for call in calls:
        depths.append(max((depths[i] + 1 for i in call.reads), default=0))
        levels[depths[-1]] += call.prompt + call.tokens
    return max(levels.values())
