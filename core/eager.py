"""Calls that come one by one, as OpenAI bodies: the hints that they may carry, and what ends them early."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from semantic_parrot.core.engines.protocol import Delta, Done
from semantic_parrot.core.errors import DeadlineExceeded, InvalidRequest, ParrotError
from semantic_parrot.core.hints import UNSTATED, Hints
from semantic_parrot.core.model import Value
from semantic_parrot.core.program import Milliseconds, Objective, Sources, explain

_MILLISECONDS: TypeAdapter[float] = TypeAdapter(Milliseconds)


class EagerOptions(Value):
    """The field `parrot` of a body. `session`: it ends with it. `deadline_ms`: then the call ends with an error.
    `sources`: earlier calls whose values are texts in the request; a hint, on which no answer depends."""

    session: str | None = None
    objective: Objective | None = None
    deadline_ms: Milliseconds | None = None
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    sources: Sources = Field(default=[])

    def hints(self, tenant: str) -> Hints:
        """What the scheduler is told; the time runs from now on."""
        stated = self.objective or (None if self.deadline_ms is None else "deadline")
        return Hints(
            objective=stated or "latency",
            because="stated in the request" if stated else UNSTATED,
            tenant=tenant,
            priority=self.priority,
            due=None if self.deadline_ms is None else time.monotonic() + self.deadline_ms / 1e3,
        )


def take_options(body: Mapping[str, Any]) -> tuple[dict[str, Any], EagerOptions]:
    """(`body` without its field `parrot`, what that says). Raises InvalidRequest with the place."""
    rest = dict(body)
    stated = rest.pop("parrot", None)
    try:
        return rest, EagerOptions.model_validate({} if stated is None else stated)
    except ValidationError as error:
        message, where = explain(error, prefix="parrot")
        raise InvalidRequest(message, where=where) from None


@dataclass(frozen=True, slots=True)
class Criteria:
    """How a value is waited for (paper, §4.1). `deadline_ms`: from now on; then the wait ends."""

    objective: Objective | None = None
    deadline_ms: float | None = None


def parse_criteria(text: str) -> Criteria:
    """``latency``, ``throughput`` or ``deadline_ms=N``. Raises InvalidRequest."""
    named: dict[str, Objective] = {"latency": "latency", "throughput": "throughput"}
    if text in named:
        return Criteria(named[text])
    name, _, number = text.partition("=")
    try:
        if name == "deadline_ms":
            return Criteria(None, _MILLISECONDS.validate_python(number))
    except ValidationError as error:
        raise InvalidRequest(f"criteria: deadline_ms: {error.errors()[0]['msg']}", where="criteria") from None
    raise InvalidRequest(f"criteria is latency, throughput or deadline_ms=N, not {text[:80]!r}", where="criteria")


class Bound:
    """Ends a call before its answer does: at `due` (time.monotonic()), or when `stop` is told to."""

    def __init__(self, due: float | None, deadline_ms: float | None) -> None:
        loop = asyncio.get_running_loop()
        self._due = None if due is None else loop.time() + due - time.monotonic()
        self._error: ParrotError = DeadlineExceeded(f"no answer within the deadline of {deadline_ms} ms")
        self._waiting: asyncio.Timeout | None = None

    def stop(self, error: ParrotError) -> None:
        """It is to end with `error`, now."""
        self._due, self._error = asyncio.get_running_loop().time(), error
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(self._due)

    async def over(self, items: AsyncGenerator[Delta | Done, None]) -> AsyncGenerator[Delta | Done, None]:
        """`items`, while they come in time. Raises the error that ended them."""
        async with aclosing(items):
            while True:
                try:
                    # One for each item: between them the code of whoever reads is running, and not to be cancelled.
                    async with asyncio.timeout_at(self._due) as self._waiting:
                        item = await anext(items)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    if self._waiting is None or not self._waiting.expired():
                        raise
                    raise self._error from None
                finally:
                    self._waiting = None
                yield item
