"""Single calls: from one rendered request, through the scheduler of its model, to an engine and back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from semantic_parrot.core.analysis import skeleton
from semantic_parrot.core.analysis.pieces import length_of
from semantic_parrot.core.config import ConfigError
from semantic_parrot.core.engines.protocol import Delta, Directions, Done, Engine, Mark, ModelInfo, Placed
from semantic_parrot.core.errors import EngineFailed, UnknownModel, Unsupported
from semantic_parrot.core.fills import Fills
from semantic_parrot.core.flight import Flights
from semantic_parrot.core.hints import Hints
from semantic_parrot.core.observer import Execution, Observer
from semantic_parrot.core.request import ModelRequest, parse_request
from semantic_parrot.core.rerun import ATTEMPTS, Bill, Told
from semantic_parrot.core.salts import Salts, mark
from semantic_parrot.core.scheduler import Scheduler
from semantic_parrot.core.scheduling import Placement, Policy, Task
from semantic_parrot.core.shape import Shape
from semantic_parrot.core.usage import NOTHING, Meter, Payer, Price
from semantic_parrot.core.wire import content_key

Items = AsyncGenerator[Delta | Done, None]

log = logging.getLogger(__name__)


class Calls:
    """Owned by the event loop. `engines` have started: what they are called is known. `executed`: handed to an engine,
    since the start. `prices` by model, under any of its names; raises ConfigError for one that is not here.
    `observers`: the runtime's, who may still come. `salts`: of its tenants. `afford` raises InsufficientQuota for a
    tenant that may have no more."""

    def __init__(
        self,
        engines: Sequence[Engine],
        policy: Policy,
        prices: Mapping[str, Price] | None = None,
        observers: Sequence[Observer] = (),
        salts: Salts | None = None,
        afford: Callable[[str], None] = lambda tenant: None,
    ) -> None:
        self.executed = 0
        self.observers = observers
        self._engines = tuple(engines)
        self._policy = policy
        self._afford = afford
        by_name = defaultdict(list)
        for engine in engines:
            for name in engine.model.names:
                by_name[name].append(engine)
        # Names of the same engines share one scheduler: an alias must not be a second queue.
        shared: dict[tuple[int, ...], Scheduler] = {}
        self._schedulers: dict[str, Scheduler] = {}
        for name, serving in by_name.items():
            same = tuple(id(engine) for engine in serving)
            self._schedulers[name] = shared[same] = shared.get(same) or Scheduler(serving, policy)
        if engines:  # every server has its first model under this name
            self._schedulers.setdefault("default", self._schedulers[engines[0].model.names[0]])
        self.schedulers = tuple(shared.values())
        self._prices: dict[Scheduler, Price] = {}
        self._waiting: WeakKeyDictionary[Meter, tuple[Scheduler, Callable[[], Task | None]]] = WeakKeyDictionary()
        for name, price in (prices or {}).items():
            if name not in self._schedulers:
                raise ConfigError(f"prices name the model {name!r}; there is: {', '.join(sorted(self._schedulers))}")
            self._prices[self._schedulers[name]] = price
        self._salts = salts or Salts()
        self.fills = Fills(self.scheduler, self._salts)
        self._flights = {scheduler: Flights(scheduler.promote) for scheduler in self.schedulers}

    async def close(self) -> None:
        """Wait for the executions that nobody listens to any more."""
        await asyncio.gather(*(flights.close() for flights in self._flights.values()))

    @property
    def models(self) -> dict[str, ModelInfo]:
        """Every name that a request may use for a model."""
        return {name: scheduler.engines[0].model for name, scheduler in self._schedulers.items()}

    def scheduler(self, model: str, where: str = "model") -> Scheduler:
        """Raises UnknownModel."""
        try:
            return self._schedulers[model]
        except KeyError:
            known = ", ".join(sorted(self._schedulers))
            raise UnknownModel(f"no model {model!r} here; there is: {known}", where=where) from None

    def check(self, request: ModelRequest, where: str = "") -> Scheduler:
        """The engines that serve it; every one of them must be able to. Raises UnknownModel, or Unsupported, with the
        field's path (after `where`)."""
        scheduler = self.scheduler(request.model, f"{where}.model" if where else "model")
        try:
            for engine in scheduler.engines:
                engine.check(request)
        except Unsupported as error:
            raise Unsupported(error.message, where=".".join(filter(None, (where, error.where)))) from None
        return scheduler

    def price(self, model: str) -> Price | None:
        """What the model's tokens cost; None where that is not configured. Raises UnknownModel."""
        return self._prices.get(self.scheduler(model))

    def plan(self, shape: Shape, tenant: str = "") -> float:
        """Seconds that a call, of a shape that has been checked, is expected to take on an idle engine."""
        return self.scheduler(shape.model).decider.estimates.seconds(shape.skeleton, mark(tenant))

    def queue(self, tenant: str) -> tuple[int, int, float, float]:
        """Of all models' schedulers: see Decider.queue. The slowest counts."""
        queues = [scheduler.decider.queue(tenant) for scheduler in self.schedulers]
        own, every, soon, later = zip(*queues, strict=True) if queues else ((0,),) * 4
        return sum(own), sum(every), max(soon), max(later)

    def generate(self, body: Mapping[str, Any], hints: Hints) -> Items:
        """Execute one rendered request. Raises InvalidRequest or UnknownModel here, other errors on the way."""
        request = parse_request(body)
        scheduler = self.check(request)
        prompt = hints.skeleton or skeleton(body)
        objectives = self._policy.on("objectives")
        task = hints.task(prompt, scheduler.decider.estimates, time.monotonic(), objectives=objectives)

        def execute(task: Task, payer: Payer) -> Items:
            return self._execute(request, scheduler, task, payer, hints)

        if request.sampling.temperature == 0 and self._policy.on("single-flight"):
            key = (hints.tenant, hints.content_key or content_key(body))
            items = self._flights[scheduler].join(key, task, execute, hints.meter, hints.leave)
            self._waiting[hints.meter] = scheduler, partial(self._flights[scheduler].task, key)
        else:
            items = execute(task, hints.meter)
            self._waiting[hints.meter] = scheduler, lambda: task
        return self._within_quota(request, scheduler, hints.meter, items) if hints.meter.tally.limited else items

    def hurry(self, meter: Meter) -> bool:
        """Somebody waits for the call that `meter` belongs to: whether that made a latency call of it. One that has
        had its turn, or is one already, stays as it is."""
        scheduler, find = self._waiting.get(meter, (None, None))
        task = find and find()
        if scheduler is None or task is None or task.state != "waiting" or task.objective == "latency":
            return False
        scheduler.promote(task)
        return True

    @staticmethod
    async def _within_quota(request: ModelRequest, scheduler: Scheduler, meter: Meter, items: Items) -> Items:
        """`items`, once the prompt has been counted and fits into what the quota leaves. Raises QuotaExceeded."""
        engine = next((engine for engine in scheduler.engines if engine.healthy), scheduler.engines[0])
        try:
            tokens = len(await engine.tokenize(request.content))
        except Unsupported:  # of a server that does not tell its tokens, usage alone counts, once it says so
            tokens = 0
        try:
            meter.reserve(tokens)
            async with aclosing(items):
                async for item in items:
                    yield item
        finally:
            meter.release()

    async def _execute(
        self, request: ModelRequest, scheduler: Scheduler, task: Task, payer: Payer, hints: Hints
    ) -> Items:
        """On one engine after another, while the one that has it is lost."""
        bill, told = Bill(payer), Told()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with aclosing(self._attempt(request, scheduler, task, hints, bill, told)) as items:
                    async for item in items:
                        if (new := told.new(item)) is not None:
                            yield new
                return
            except EngineFailed as error:
                if attempt == ATTEMPTS or told.engine is None or not told.resumable:
                    raise
                if not scheduler.elsewhere(told.engine):
                    raise
                log.warning("a call is run again: %s", error.message)
                told.again()
                task.state, task.lost = "new", (*task.lost, told.engine)

    async def _attempt(
        self, request: ModelRequest, scheduler: Scheduler, task: Task, hints: Hints, bill: Bill, told: Told
    ) -> Items:
        placement = await scheduler.acquire(task)
        engine, done, usage = scheduler.engines[placement.engine], None, NOTHING
        try:
            if told.engine is None:  # what was begun is finished
                self._afford(hints.tenant)
            told.engine = placement.engine
            self.executed += 1
            bill.began()
            self.fills.started(hints.call, placement.engine)
            directions = self._directions(placement, hints, scheduler)
            async with aclosing(engine.generate(request, directions)) as items:
                async for item in items:
                    if placement.filled is None:
                        scheduler.filled(placement)
                    if item.usage is not None:
                        usage = item.usage
                        bill.took(usage)
                    if isinstance(item, Done):
                        done = item
                    else:
                        yield item
        finally:
            self.fills.ended(hints.call)
            scheduler.release(placement, done)
            if usage is not NOTHING:
                price = self._prices.get(scheduler)
                for observer in self.observers:
                    observer.took(hints.tenant, usage, None if price is None else price.of(usage))
        if done is not None:
            timings = done.timings.model_copy(update={"queued": done.timings.queued + placement.queued})
            done = replace(done, timings=timings, placed=_placed(placement, engine, len(scheduler.engines)))
            execution = Execution(hints.tenant, engine.model.names[0], hints.objective, done)
            for observer in self.observers:
                observer.executed(execution)
            yield done

    def _directions(self, placement: Placement, hints: Hints, scheduler: Scheduler) -> Directions:
        rank, cap = (placement.rank, placement.cap) if self._policy.on("preemption") else (0, None)
        keep, salt = hints.keep(time.monotonic()), self._salts.of(hints.tenant)
        task, marks = placement.task, list[Mark]()
        if placement.engine in scheduler.telling and task.chars:
            marks = [Mark(length_of(name) / task.chars, name) for name in task.prefixes]
        # Of several engines, what follows may go to another one.
        feeds = hints.feeds() if len(scheduler.engines) == 1 else ()
        return Directions(rank, cap, keep, placement.priority, placement.slack, salt, tuple(marks), feeds)


def _placed(placement: Placement, engine: Engine, engines: int) -> Placed:
    task = placement.task
    return Placed(
        engine.name,
        placement.why,
        placement.cached,
        placement.seconds,
        prompt=task.prompt,
        output=task.output,
        room=placement.room,
        engines=engines,
        together=placement.together,
    )
