"""The service without HTTP: engines, sessions and runs. One event loop owns it all."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from semantic_parrot.core.abilities import lacking, refuse_unpriced, refuse_unsalted, tell
from semantic_parrot.core.admission import admit
from semantic_parrot.core.analysis import NextUses
from semantic_parrot.core.calls import Calls
from semantic_parrot.core.config import ConfigError
from semantic_parrot.core.eager import Bound, take_options
from semantic_parrot.core.ended import EndedRun
from semantic_parrot.core.engines.protocol import Delta, Done, Engine, ModelInfo, NotUp
from semantic_parrot.core.errors import Draining, InvalidRequest, NotFound, Unsupported
from semantic_parrot.core.history import History
from semantic_parrot.core.journal.values import Key, Listed, Stored
from semantic_parrot.core.observer import Observer, watched
from semantic_parrot.core.program import Program
from semantic_parrot.core.request import Message, ModelRequest
from semantic_parrot.core.retold import trace_of
from semantic_parrot.core.run import Run
from semantic_parrot.core.salts import Salts
from semantic_parrot.core.scheduling import OPTIMISATIONS, Policy
from semantic_parrot.core.session import Session
from semantic_parrot.core.sessions import Sessions
from semantic_parrot.core.singles import Singles
from semantic_parrot.core.snapshot import Snapshot, snapshot, snapshot_of_past, snapshot_of_retold
from semantic_parrot.core.tenants import Terms
from semantic_parrot.core.trace import Trace
from semantic_parrot.core.usage import Price

if TYPE_CHECKING:
    from semantic_parrot.core.durable import Durable
    from semantic_parrot.core.journal.journal import Journal

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Counters:
    """Since the start. `runs` by final status; `unclaimed_tokens`: generated for results that nobody claimed."""

    unclaimed_tokens: int = 0
    runs: Counter[str] = field(default_factory=Counter)


def _policy(tpot: float | None, disable: frozenset[str], enable: frozenset[str], terms: Terms) -> Policy:
    if both := sorted(disable & enable):
        raise ConfigError(f"{both[0]} is both enabled and disabled")
    if unknown := sorted(enable - OPTIMISATIONS):
        raise ConfigError(f"no optimisation {unknown[0]!r} to enable; there is: {', '.join(sorted(OPTIMISATIONS))}")
    try:
        return Policy(tpot=tpot, disabled=disable, weights=terms.weights, weight=terms.weight)
    except ValueError as error:
        raise ConfigError(str(error)) from None


class Runtime:
    """`grace`: seconds that a foreground run outlives its last reader, and that an ended run can still be read.
    `session_idle`: seconds after which a session that nobody uses, and in which nothing runs, is closed. `disable`:
    names of `scheduling.OPTIMISATIONS` to do without; answers do not depend on them. `tpot`: seconds per token that
    latency calls are to keep (default: by what each engine does alone). `prices`: by model, under any of its names.
    `enable`: names of optimisations that at least one engine must be able to do. `secret`: the server's own, by which
    the tenants' caches are kept apart; None: there is one tenant. `terms`: their weights. Raises ConfigError for
    unknown names.

    `journal` has the runs that outlive the server; without one, there are none.

    `calls` executes single ones, once the runtime has started; `sessions` are those that clients opened; `observers`
    are told what happens from when they are added."""

    def __init__(
        self,
        engines: Sequence[Engine],
        *,
        grace: float = 10.0,
        session_idle: float = 3600.0,
        disable: Collection[str] = (),
        tpot: float | None = None,
        prices: Mapping[str, Price] | None = None,
        enable: Collection[str] = (),
        journal: Journal | None = None,
        secret: bytes | None = None,
        terms: Terms | None = None,
    ) -> None:
        self.engines = tuple(engines)
        self.counters = Counters()
        self.observers: list[Observer] = []
        self.sessions = Sessions(self._new_session, session_idle)
        self.history = History()
        self.singles = Singles()
        self._grace = grace
        self._runs: dict[str, Run] = {}
        self._uses: defaultdict[str, NextUses] = defaultdict(NextUses)  # by tenant
        self._terms = terms or Terms()
        self._policy = _policy(tpot, frozenset(disable), frozenset(enable), self._terms)
        self._enabled = frozenset(enable)
        self._prices = prices
        self._salts = Salts(secret)
        #: Raises InsufficientQuota for a tenant that has used up what it may have; put here by whoever counts that.
        self.afford: Callable[[str], None] = lambda tenant: None
        self.calls = Calls((), self._policy, observers=self.observers)
        self.draining = False
        self._durable: Durable | None = None
        if journal is not None:
            from semantic_parrot.core.durable import Durable  # needs SQLAlchemy

            self._durable = Durable(journal, self._runs, self._start_durable)

    async def start(self) -> None:
        """Start every engine, together, then go on with the runs in the journal. Raises ModelLoadError, or ConfigError
        for a journal that can't be had, the price of a model that is not here or an optimisation that was enabled in
        vain; then those that did start are closed. One that is down, and may come, is waited for if another is up."""
        started = await asyncio.gather(*(engine.start() for engine in self.engines), return_exceptions=True)
        failures = [failure for failure in started if failure is not None]
        fatal = [failure for failure in failures if not isinstance(failure, NotUp)]
        if fatal or (failures and len(failures) == len(started)):
            await self.close()
            raise (fatal or failures)[0]
        for failure in failures:
            log.warning("%s; the server starts without it, and uses it once it is up", failure)
        try:
            self.calls = Calls(
                self.engines,
                self._policy,
                self._prices,
                self.observers,
                self._salts,
                lambda tenant: self.afford(tenant),
            )
            refuse_unpriced(self._terms, [model for model in self.models if self.calls.price(model) is None])
            if self._salts:
                refuse_unsalted(self.engines)
            tell(self.engines, self._policy, self._enabled)
            if self._durable is not None:
                await self._durable.open()
        except ConfigError:
            await self.close()
            raise

    def drain(self) -> None:
        """Take no new work, and leave the runs in the background to a later server: the others may end."""
        self.draining = True
        for run in self._runs.values():
            if run.background:
                run.leave()

    def refuse_if_draining(self) -> None:
        """Raises Draining."""
        if self.draining:
            raise Draining("the server is ending, and takes no new work")

    async def close(self) -> None:
        """Cancel every run, but leave those in the background to a later server; close every session and engine."""
        for run in tuple(self._runs.values()):
            if run.background:
                run.leave()
            else:
                run.cancel("the server is shutting down")
        self.sessions.close_all()
        await asyncio.gather(*(engine.close() for engine in self.engines))
        await self.calls.close()
        if self._durable is not None:
            await self._durable.close()

    def lacking(self, engine: Engine) -> list[str]:
        """The optimisations that are on and have no effect on `engine`."""
        return lacking(engine, self._policy)

    @property
    def models(self) -> dict[str, ModelInfo]:
        """Every name that a request may use for a model."""
        return self.calls.models

    def _new_session(self, tenant: str) -> Session:
        able = any("prefill-ahead" in engine.abilities for engine in self.engines)
        ahead = able and self._policy.on("prefill-ahead")
        keeps = self._policy.on("retention") and any("retention" in engine.abilities for engine in self.engines)
        return Session(
            self._start,
            partial(self.calls.plan, tenant=tenant),
            self.calls.fills if ahead else None,
            self.history.sharing(tenant),
            self._uses[tenant] if keeps else None,
            tenant=tenant,
        )

    # Runs.

    def submit(self, program: Program, tenant: str = "") -> Run:
        """Check the whole program, then start it. Raises ParrotError with the place; then nothing ran."""
        assert program.parrot.lifetime != "background", "only what is accepted may be durable"
        wanted = program.parrot.session
        session = self._new_session(tenant) if wanted is None else self.sessions.get(wanted, tenant)
        return self._start(program, session)

    def _start_durable(self, program: Program, tenant: str, stored: Stored | None) -> Run:
        if stored is None:
            self.afford(tenant)
        return self._start(program, self._new_session(tenant), durable=True, stored=stored)

    def _start(self, program: Program, session: Session, *, durable: bool = False, stored: Stored | None = None) -> Run:
        quota = program.parrot.quota
        admit(program, session.graph.variables, partial(self._check_call, priced=bool(quota and quota.cost)))
        run = Run(program, session, self.calls, self._grace, durable=durable, stored=stored)
        run.on_done(self._ended)
        session.join(program, run)
        self._runs[run.id] = run
        for observer in self.observers:
            observer.run_began(run)
        run.recall()
        self._limit(run)
        return run

    @staticmethod
    def _limit(run: Run) -> None:
        deadline = run.terms.parrot.deadline_ms
        if deadline is None or run.ended:
            return
        left = deadline / 1e3 - run.trace.now()
        if left <= 0:
            run.expire()  # before any of its calls has a turn
        else:
            expiry = asyncio.get_running_loop().call_later(left, run.expire)
            run.on_done(lambda _: expiry.cancel())

    def _check_call(self, request: ModelRequest, where: str, *, priced: bool) -> None:
        self.calls.check(request, where)
        if priced and self.calls.price(request.model) is None:
            message = f"parrot.quota.cost: no price is configured for the model {request.model!r} of {where}.model"
            raise InvalidRequest(message, where="parrot.quota.cost")

    @property
    def runs(self) -> tuple[Run, ...]:
        """Those under way and those that ended within the grace, oldest first: everybody's."""
        return tuple(self._runs.values())

    def runs_of(self, tenant: str) -> tuple[Run, ...]:
        """Those of `runs` that are the tenant's."""
        return tuple(run for run in self._runs.values() if run.tenant == tenant)

    def run(self, run_id: str, tenant: str = "") -> Run:
        """Raises NotFound: the tenant's run never was, or ended longer ago than the grace."""
        run = self._runs.get(run_id)
        if run is None or run.tenant != tenant:
            raise NotFound(f"no run {run_id!r}", where=run_id)
        return run

    async def accept(
        self, program: Program, body: Any, tenant: str = "", key: str | None = None
    ) -> tuple[Run | EndedRun, bool]:
        """As `submit`, of a run that outlives the server: one in the background, or with an idempotency `key`. (the
        run, whether it is new: the one that has the key is not). `body`: the program as it came.

        Raises as `submit`, and Unsupported, JournalUnavailable, IdempotencyKeyReused or InsufficientQuota.
        """
        if self._durable is None:
            raise Unsupported("this server keeps no journal: nothing would outlive it", where="parrot.lifetime")
        if program.parrot.session is not None:
            message = "a run that outlives the server has a scope of its own: sessions do not"
            raise InvalidRequest(f"parrot.session: {message}", where="parrot.session")
        return await self._durable.accept(program, body, tenant, None if key is None else Key.of(key, body))

    async def find(self, run_id: str, tenant: str = "") -> Run | EndedRun:
        """As `run`, also of one that only the journal knows. Raises NotFound or JournalUnavailable."""
        ended = None
        if self._durable is not None and run_id not in self._runs:
            ended = await self._durable.find(run_id, tenant)
        return ended or self.run(run_id, tenant)

    async def listing(self, tenant: str, most: int) -> list[Listed]:
        """The newest of the tenant's runs that can be read, the oldest of them first."""
        found = {} if self._durable is None else await self._durable.listing(tenant, most)
        for run in self.runs_of(tenant):
            ended = None if run.trace.seconds is None else run.trace.created + run.trace.seconds
            found[run.id] = Listed(run.id, tenant, run.trace.created, run.status, ended)
        return sorted(found.values(), key=lambda run: run.created)[-most:]

    def snapshot(self, run_id: str, tenant: str = "") -> Snapshot:
        """What is known of a tenant's run, also of one that can't be read any more, if it is not long ago, and of a
        call that came alone and has ended, under the id of its answer; "latest": of the run that began last. Raises
        NotFound."""
        if run_id == "latest":
            run, trace = next(reversed(self.runs_of(tenant)), None), self.history.latest(tenant)
        else:
            run, trace = self._runs.get(run_id), self.history.find(run_id)
            run = run if run is not None and run.tenant == tenant else None
            trace = trace if trace is not None and trace.tenant == tenant else self._single(run_id, tenant)
        if run is not None:
            return snapshot(run)
        if trace is not None:
            return snapshot_of_past(trace)
        raise NotFound("there was no run yet" if run_id == "latest" else f"no run {run_id!r}", where=run_id)

    async def retell(self, run_id: str, tenant: str = "") -> Snapshot:
        """As `snapshot`, also of a run that only the journal knows. Raises NotFound or JournalUnavailable."""
        try:
            return self.snapshot(run_id, tenant)
        except NotFound:
            if self._durable is None:
                raise
            newest = await self._durable.listing(tenant, 1) if run_id == "latest" else {}
            ended = await self._durable.find(next(iter(newest), run_id), tenant)
            if ended is None:
                raise
            return snapshot_of_retold(await asyncio.to_thread(trace_of, ended.stored))

    def _single(self, id: str, tenant: str) -> Trace | None:
        call = self.singles.find(id, tenant)
        return None if call is None else call.trace(self.calls.price(call.model))

    def _known(self, run_id: str, tenant: str) -> bool:
        """Whether there is something to tell of the tenant's run, or call that came alone."""
        found = self._runs.get(run_id) or self.history.find(run_id) or self.singles.find(run_id, tenant)
        return found is not None and found.tenant == tenant

    def release(self, run: Run, unclaimed: Collection[str]) -> None:
        """The client is done with `run`: cancel what is left of it, count what it never used."""
        self.counters.unclaimed_tokens += run.tokens(unclaimed)
        for observer in self.observers:
            observer.run_released(run, unclaimed)
        run.cancel()

    def _ended(self, run: Run) -> None:
        self.counters.runs[run.status] += 1
        loop = asyncio.get_running_loop()
        loop.call_soon(self._tell_ended, run)  # one that has nothing to do ends before it was said to have begun
        loop.call_later(self._grace, self._forget, run)

    def _tell_ended(self, run: Run) -> None:
        for observer in self.observers:
            observer.run_ended(run)

    def _forget(self, run: Run) -> None:
        if run.id in self._runs and not run.safe:  # nobody else knows how it ended
            asyncio.get_running_loop().call_later(self._grace, self._forget, run)
            return
        self._runs.pop(run.id, None)
        run.forgotten()
        self.history.keep(run.trace)

    # Single calls.

    def generate(self, body: Mapping[str, Any], tenant: str = "", id: str = "") -> AsyncGenerator[Delta | Done, None]:
        """Execute one OpenAI body, for the answer `id`. Raises InvalidRequest or NotFound here, other errors on the
        way."""
        plain, options = take_options(body)
        session = None if options.session is None else self.sessions.get(options.session, tenant)
        hints = options.hints(tenant)
        items = self.calls.generate(plain, hints)
        if session is not None or hints.due is not None:
            bound = Bound(hints.due, options.deadline_ms)
            items = bound.over(items) if session is None else session.hold(bound, items)
        concerned = [observer for observer in self.observers if observer.singles]
        sources = tuple(source.place for source in options.sources if self._known(source.place[0], tenant))
        return watched(items, [self.singles, *concerned], id=id, body=body, hints=hints, sources=sources)

    async def tokenize(self, model: str, content: str | tuple[Message, ...]) -> list[int]:
        """Raises UnknownModel."""
        engines = self.calls.scheduler(model).engines
        return await next((engine for engine in engines if engine.healthy), engines[0]).tokenize(content)
