"""The service without HTTP: engines, sessions and runs. One event loop owns it all."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Collection, Hashable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from semantic_parrot.core.analysis import Skeleton, skeleton
from semantic_parrot.core.engines.protocol import UNDIRECTED, Delta, Directions, Done, Engine, ModelInfo, Placed
from semantic_parrot.core.errors import InvalidRequest, NotFound, ParrotError, TooLarge, UnknownModel
from semantic_parrot.core.flight import Flights
from semantic_parrot.core.hints import Hints
from semantic_parrot.core.program import Branch, Call, Map, Program
from semantic_parrot.core.request import Message, ModelRequest, parse_request
from semantic_parrot.core.run import Run
from semantic_parrot.core.scheduler import Scheduler
from semantic_parrot.core.scheduling import Policy, Task
from semantic_parrot.core.session import Session
from semantic_parrot.core.transforms import check as check_transform
from semantic_parrot.core.value import JSON, refuse_large
from semantic_parrot.core.wire import TEMPLATE, content_key, render


@dataclass(slots=True)
class Counters:
    """Since the start. `runs` by final status; `unclaimed_tokens`: generated for results that nobody claimed."""

    calls_executed: int = 0
    unclaimed_tokens: int = 0
    runs: Counter[str] = field(default_factory=Counter)


#: See Directions.
RANKS = {"latency": 0, "deadline": 1, "throughput": 2}


class _AnyText(dict[str, str]):
    """Stands for every variable while a program is checked before it has values."""

    def __missing__(self, name: str) -> str:
        return "x"


def refuse_large_input(where: str, value: JSON) -> None:
    """Raises InvalidRequest for JSON larger than transforms may make; a text may be as long as a body."""
    try:
        if not isinstance(value, str):
            refuse_large(value)
    except TooLarge as error:
        raise InvalidRequest(f"{where}: {error.message}", where=where) from None


class Runtime:
    """`grace`: seconds that a foreground run outlives its last reader, and that an ended run can still be read.
    `session_idle`: seconds after which a session that nobody uses, and in which nothing runs, is closed. `disable`:
    names of `scheduling.OPTIMISATIONS` to do without; answers do not depend on them. `tpot`: seconds per token that
    latency calls are to keep (default: by what each engine does alone). Raises ValueError for an unknown name."""

    def __init__(
        self,
        engines: Sequence[Engine],
        *,
        grace: float = 10.0,
        session_idle: float = 3600.0,
        disable: Collection[str] = (),
        tpot: float | None = None,
    ) -> None:
        self.engines = tuple(engines)
        self.counters = Counters()
        self._grace = grace
        self._session_idle = session_idle
        self._expiry: dict[str, asyncio.TimerHandle] = {}
        self._schedulers: dict[str, Scheduler] = {}
        self._sessions: dict[str, Session] = {}
        self._runs: dict[str, Run] = {}
        self._policy = Policy(tpot=tpot, disabled=frozenset(disable))
        self._flights: dict[Scheduler, Flights] = {}

    async def start(self) -> None:
        """Start every engine, together. Raises ModelLoadError; then those that did start are closed."""
        started = await asyncio.gather(*(engine.start() for engine in self.engines), return_exceptions=True)
        for failure in started:
            if isinstance(failure, BaseException):
                await self.close()
                raise failure
        by_name = defaultdict(list)
        for engine in self.engines:
            for name in engine.model.names:
                by_name[name].append(engine)
        # Names of the same engines share one scheduler: an alias must not be a second queue.
        shared: dict[tuple[int, ...], Scheduler] = {}
        for name, engines in by_name.items():
            same = tuple(id(engine) for engine in engines)
            self._schedulers[name] = shared[same] = shared.get(same) or Scheduler(engines, self._policy)
        self._flights = {scheduler: Flights(scheduler.promote) for scheduler in shared.values()}

    async def close(self) -> None:
        """Cancel every run, close every session and engine."""
        for run in tuple(self._runs.values()):
            run.cancel("the server is shutting down")
        for session_id in tuple(self._sessions):
            self.close_session(session_id)
        await asyncio.gather(*(engine.close() for engine in self.engines))
        await asyncio.gather(*(flights.close() for flights in self._flights.values()))

    @property
    def models(self) -> dict[str, ModelInfo]:
        """Every name that a request may use for a model."""
        return {name: scheduler.engines[0].model for name, scheduler in self._schedulers.items()}

    # Runs and sessions.

    def submit(self, program: Program) -> Run:
        """Check the whole program, then start it. Raises ParrotError with the place; then nothing ran."""
        declared = [name for name, value in program.inputs.items() if value is None]
        if declared and program.parrot.session is None:
            raise InvalidRequest("an input without a value needs a session to set it in", where=f"inputs.{declared[0]}")
        wanted = program.parrot.session
        return self._start(program, self._new_session() if wanted is None else self.session(wanted))

    def _start(self, program: Program, session: Session) -> Run:
        checked: set[str] = set()
        for where, node in program.places():
            if isinstance(node, Call):
                self._check(node, f"{where}.request", checked)
            elif not isinstance(node, Map | Branch):
                check_transform(node, where)
        for name, value in program.inputs.items():
            refuse_large_input(f"inputs.{name}", value)
        known = {node.output for node in program.nodes()} | set(program.inputs) | set(session.graph.variables)
        for place in ("outputs", "parrot.objectives"):
            for name in (program.outputs or ()) if place == "outputs" else program.parrot.objectives:
                if name not in known:
                    raise InvalidRequest(f"{place} names the unknown variable {name!r}", where=place)
        run = Run(program, session, self.generate, self._grace)
        run.on_done(self._ended)
        session.join(program, run)
        self._runs[run.id] = run
        if program.parrot.deadline_ms is not None:
            expiry = asyncio.get_running_loop().call_later(program.parrot.deadline_ms / 1e3, run.expire)
            run.on_done(lambda _: expiry.cancel())
        return run

    @property
    def runs(self) -> tuple[Run, ...]:
        """Those under way and those that ended within the grace, oldest first."""
        return tuple(self._runs.values())

    def run(self, run_id: str) -> Run:
        """Raises NotFound: the run never was, or ended longer ago than the grace."""
        try:
            return self._runs[run_id]
        except KeyError:
            raise NotFound(f"no run {run_id!r}", where=run_id) from None

    def release(self, run: Run, unclaimed: Collection[str]) -> None:
        """The client is done with `run`: cancel what is left of it, count what it never used."""
        self.counters.unclaimed_tokens += run.tokens(unclaimed)
        run.cancel()

    def open_session(self) -> Session:
        session = self._new_session()
        self._sessions[session.id] = session
        return self.session(session.id)

    def _new_session(self) -> Session:
        # With several engines there is no telling yet which one will get the request.
        ahead = self._policy.on("prefill-ahead") and len(self.engines) == 1
        return Session(self._start, self._plan, self._prefill if ahead else None)

    def session(self, session_id: str) -> Session:
        """Raises NotFound: the session never was, was closed or expired."""
        try:
            session = self._sessions[session_id]
        except KeyError:
            raise NotFound(f"no session {session_id!r}", where=session_id) from None
        if session_id in self._expiry:
            self._expiry[session_id].cancel()
        loop = asyncio.get_running_loop()
        self._expiry[session_id] = loop.call_later(self._session_idle, self._expire, session_id)
        return session

    def close_session(self, session_id: str) -> None:
        """Raises NotFound."""
        self.session(session_id).close()
        self._expiry.pop(session_id).cancel()
        del self._sessions[session_id]

    def _expire(self, session_id: str) -> None:
        if self._sessions[session_id].busy:
            self.session(session_id)  # another turn of the clock
        else:
            self.close_session(session_id)

    def _ended(self, run: Run) -> None:
        self.counters.runs[run.status] += 1
        asyncio.get_running_loop().call_later(self._grace, self._runs.pop, run.id, None)

    # Single calls.

    def generate(self, body: Mapping[str, Any], hints: Hints | None = None) -> AsyncGenerator[Delta | Done, None]:
        """Execute one rendered request. Raises InvalidRequest or UnknownModel here, other errors on the way."""
        request = parse_request(body)
        scheduler = self._scheduler(request.model)
        hints = hints or Hints()
        prompt = hints.skeleton or skeleton(body)
        objectives = self._policy.on("objectives")
        task = hints.task(prompt, scheduler.decider.estimates, time.monotonic(), objectives=objectives)

        def execute(task: Task) -> AsyncGenerator[Delta | Done, None]:
            return self._generate(request, scheduler, task)

        if request.sampling.temperature == 0 and self._policy.on("single-flight"):
            key = (hints.tenant, hints.content_key or content_key(body))
            return self._flights[scheduler].join(key, task, execute)
        return execute(task)

    async def _generate(
        self, request: ModelRequest, scheduler: Scheduler, task: Task
    ) -> AsyncGenerator[Delta | Done, None]:
        placement = await scheduler.acquire(task)
        engine, done = scheduler.engines[placement.engine], None
        try:
            self.counters.calls_executed += 1
            async with aclosing(engine.generate(request, self._directions(task))) as items:
                async for item in items:
                    if placement.filled is None:
                        scheduler.filled(placement)
                    if isinstance(item, Done):
                        done = item
                    else:
                        yield item
        finally:
            scheduler.release(placement, done)
        if done is not None:
            timings = done.timings.model_copy(update={"queued": done.timings.queued + placement.queued})
            placed = Placed(engine.name, placement.why, placement.cached, placement.seconds)
            yield replace(done, timings=timings, placed=placed)

    def _directions(self, task: Task) -> Directions:
        return Directions(rank=RANKS[task.objective]) if self._policy.on("preemption") else UNDIRECTED

    def _prefill(self, key: Hashable, body: Mapping[str, Any] | None) -> None:
        """Engine.prefill of the one engine, for a body as it came."""
        with suppress(ParrotError):  # the call itself will say so
            self.engines[0].prefill(key, None if body is None else parse_request(body, allow_empty=True))

    async def tokenize(self, model: str, content: str | tuple[Message, ...]) -> list[int]:
        """Raises UnknownModel."""
        return await self._scheduler(model).engines[0].tokenize(content)

    def _scheduler(self, model: str, where: str = "model") -> Scheduler:
        try:
            return self._schedulers[model]
        except KeyError:
            known = ", ".join(sorted(self._schedulers))
            raise UnknownModel(f"no model {model!r} here; there is: {known}", where=where) from None

    def _plan(self, call: Call) -> tuple[Skeleton, float]:
        """What is expected of a call that has been checked."""
        prompt = skeleton(call.request)
        return prompt, self._scheduler(call.request["model"]).decider.estimates.seconds(prompt)

    def _check(self, call: Call, where: str, checked: set[str]) -> None:
        """What can be known of a call before its inputs have values. `checked`: shapes that are valid."""
        call.inputs()  # refuses malformed templates
        shape = _shape(call.request)
        if shape is None or shape not in checked:
            request = parse_request(render(call.request, _AnyText()), prefix=where, allow_empty=True)
            self._scheduler(request.model, f"{where}.model")
            if shape is not None:
                checked.add(shape)


def _shape(request: Mapping[str, Any]) -> str | None:
    """All of a chat request that its validity can depend on, once its templates are known to be well-formed; None if
    that is not plain to see. A program's calls have few shapes, and validating one costs more than all the rest."""
    kinds = []
    messages = request.get("messages")
    if not isinstance(messages, list):
        return None
    for message in messages:
        if not isinstance(message, dict) or len(message) != 2 or "content" not in message:
            return None
        content = message["content"]
        if not isinstance(content, str) and not (isinstance(content, dict) and TEMPLATE in content):
            return None
        kinds.append(message.get("role"))
    return repr(({key: value for key, value in request.items() if key != "messages"}, kinds))
