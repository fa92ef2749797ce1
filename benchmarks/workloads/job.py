"""What a workload is made of, for whoever runs it: jobs, each an ordinary LangChain app with its input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from workloads.texts import Texts


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the model, in tokens: `own` of its prompt are nobody else's, `shared` are a beginning that every call
    with the same `prefix` has, and the answers of the calls `reads` (by their place in the job) are in it, too. Its
    answer has exactly `tokens`. `after`: seconds that pass before it can start."""

    own: int
    tokens: int
    reads: tuple[int, ...] = ()
    prefix: str = ""
    shared: int = 0
    after: float = 0.0


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


#: (model, texts, scale, seed) → jobs. The model is all that an app knows of who answers it.
Jobs = Callable[[BaseChatModel, Texts, float, str], list[Job]]


def scaled(paper: float, scale: float, least: int) -> int:
    """`paper` is the size at scale 1."""
    return max(least, round(paper * scale))


def sizes(calls: tuple[Call, ...]) -> list[int]:
    """Tokens of each call's prompt and answer together."""
    return [c.own + c.shared + c.tokens + sum(calls[i].tokens for i in c.reads) for c in calls]
