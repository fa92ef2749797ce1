"""One call of a run, from being ready to its end: what comes from the engine, told to run, session and trace."""

from __future__ import annotations

import logging
import time
import uuid
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from semantic_parrot.core import events
from semantic_parrot.core.calls import Calls
from semantic_parrot.core.engines.protocol import Delta, Done
from semantic_parrot.core.errors import InternalError, ParrotError
from semantic_parrot.core.hints import Hints
from semantic_parrot.core.past import Echo, done_of, error_of
from semantic_parrot.core.response import completion, logprobs

if TYPE_CHECKING:
    from semantic_parrot.core.run import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """A call that may go to an engine: its rendered request, that request's content key, seconds since the start.
    `site`: the id of the program's own node that it comes from. `hints`: what the graph knows of it."""

    id: str
    output: str
    site: str
    body: dict[str, Any]
    key: str
    at: float
    hints: Hints


async def execute(run: Run, ready: Ready, calls: Calls) -> None:
    """To the end of the call, or of the run's quota; whatever comes of it is an event of `run`."""
    streams, echo = run.terms.streams(ready.site), run.past.echo(ready.id)
    try:
        if run.durable:
            await run.settle()  # what the call is made of is not lost any more: its answer can't belong to other values
        begun = time.monotonic()
        async with run.turns, aclosing(calls.generate(ready.body, ready.hints)) as items:
            waited = time.monotonic() - begun
            async for item in items:
                if isinstance(item, Done):
                    echo.end()
                    _succeed(run, ready, item, waited, calls)
                else:
                    _hear(run, ready, item, streams, echo)
                if run.stop_past_quota():
                    return
    except ParrotError as error:
        _fail(run, ready, error, calls)
    except Exception:
        log.exception("call %r of %s", ready.id, run.id)
        _fail(run, ready, InternalError(f"call {ready.id!r} failed inside the server; its log says why"), calls)


def recall(run: Run, ready: Ready, end: events.CallFinished | events.CallFailed) -> None:
    """The call ended in an earlier server, with `end`."""
    meter = ready.hints.meter
    if isinstance(end, events.CallFailed):
        meter.began()  # as far as anybody knows
        _lose(run, ready, error_of(end))
    else:
        done = done_of(end)
        if end.schedule is not None and end.schedule.single_flight:
            meter.joined()
            meter.shared(done.usage)
        else:
            meter.began()
            meter.took(done.usage)
        run.trace.finished(ready.output, done, end.timings)
        run.session.resolve(ready.output, done.text)
    run.told(ready.output, end)


def _hear(run: Run, ready: Ready, delta: Delta, streams: bool, echo: Echo) -> None:
    run.trace.spoke(ready.output)
    if delta.index:
        return  # the variable is the first choice
    run.session.ahead.grew(ready.output, delta.text)
    run.spoken.say(ready.output, delta.text)
    new = echo.hear(delta) if streams else None
    if new is not None:
        told = logprobs(ready.body, new.logprobs) if new.logprobs else None
        run.emit(events.VariableDelta(id=ready.id, variable=ready.output, text=new.text, logprobs=told))


def _succeed(run: Run, ready: Ready, done: Done, waited: float, calls: Calls) -> None:
    response = completion(ready.body, done, id=f"chatcmpl-{uuid.uuid4().hex}", created=int(time.time()))
    timings = done.timings.model_copy(update={"ready": ready.at, "queued": done.timings.queued + waited})
    schedule = run.hints(ready.output).explain(done)
    run.trace.finished(ready.output, done, timings)
    # Consumers first: whoever sees this call finished knows already what follows from it.
    run.session.resolve(ready.output, done.text)
    end = events.CallFinished(id=ready.id, content_key=ready.key, response=response, timings=timings, schedule=schedule)
    _tell(run, ready, end, calls)


def _lose(run: Run, ready: Ready, error: ParrotError) -> None:
    run.trace.failed(ready.output, error.message)
    run.session.fail(ready.output, error)


def _fail(run: Run, ready: Ready, error: ParrotError, calls: Calls) -> None:
    _lose(run, ready, error)
    end = events.CallFailed(id=ready.id, content_key=ready.key, status=error.status, body=error.body())
    _tell(run, ready, end, calls)


def _tell(run: Run, ready: Ready, end: events.CallFinished | events.CallFailed, calls: Calls) -> None:
    for observer in calls.observers:
        observer.call_ended(run, ready, end)
    run.told(ready.output, end)
