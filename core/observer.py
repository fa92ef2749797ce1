"""Who is told what the service does, beside its clients: the server's metrics, traces, logs and dashboard."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from semantic_parrot.core.engines.protocol import Delta, Done, Usage
from semantic_parrot.core.errors import Cancelled, InternalError, ParrotError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from semantic_parrot.core.analysis import Class
    from semantic_parrot.core.events import CallFailed, CallFinished
    from semantic_parrot.core.execution import Ready
    from semantic_parrot.core.hints import Hints
    from semantic_parrot.core.run import Run


@dataclass(frozen=True, slots=True)
class Execution:
    """An answer that an engine has made, for one call or for several equal ones. `done.timings.queued` counts from when
    the call was ready."""

    tenant: str
    model: str
    objective: Class
    done: Done


@dataclass(frozen=True, slots=True)
class SingleCall:
    """A call that came alone, under the `id` of its answer, as it ended: with `done`, or with an `error` code
    (that of Cancelled if its client left). `began` in Unix time; `seconds`: from there. `sources`: (run, call) of those
    whose values it reads."""

    id: str
    tenant: str
    body: Mapping[str, Any]
    objective: Class
    because: str
    sources: tuple[tuple[str, str], ...]
    began: float
    seconds: float
    done: Done | None
    error: str | None


class Observer:
    """Told on the event loop, in the context of whatever caused it. Its methods return at once and raise nothing; these
    do nothing. `singles`: whether it is to be told of calls that come alone, which costs a little for each token."""

    singles: ClassVar[bool] = False

    def run_began(self, run: Run) -> None:
        """`run` was accepted."""

    def call_ended(self, run: Run, ready: Ready, end: CallFinished | CallFailed) -> None:
        """A call of `run` that was ready has its answer or its error; the run does not say so yet."""

    def run_ended(self, run: Run) -> None:
        """`run` has its final status, and has just told its last event."""

    def run_released(self, run: Run, unclaimed: Collection[str]) -> None:
        """The client is done with `run`, and has never used the results of the calls `unclaimed`."""

    def executed(self, execution: Execution) -> None:
        """An engine has answered."""

    def took(self, tenant: str, usage: Usage, cost: float | None) -> None:
        """An engine has been at work for the tenant, whether it has finished or not; `cost` None: it has no price."""

    def single_ended(self, call: SingleCall) -> None:
        """A call that came alone has its answer, or never will. Only told where `singles` says so."""


async def watched(
    items: AsyncGenerator[Delta | Done, None],
    observers: Sequence[Observer],
    *,
    id: str,
    body: Mapping[str, Any],
    hints: Hints,
    sources: tuple[tuple[str, str], ...] = (),
) -> AsyncGenerator[Delta | Done, None]:
    """`items`, the answer to a call that came alone; the `observers` are told of its end."""
    began, start, over = time.time(), time.monotonic(), False

    def tell(done: Done | None, error: str | None) -> None:
        seconds = time.monotonic() - start
        call = SingleCall(id, hints.tenant, body, hints.objective, hints.because, sources, began, seconds, done, error)
        for observer in observers:
            observer.single_ended(call)

    error = Cancelled.code
    try:
        async with aclosing(items):
            async for item in items:
                if isinstance(item, Done):
                    over = True
                    tell(item, None)  # now: whoever has the answer may leave the generator as it is
                yield item
    except ParrotError as failure:
        error = failure.code
        raise
    except Exception:
        error = InternalError.code
        raise
    finally:
        if not over:
            tell(None, error)
