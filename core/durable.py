"""Runs that outlive their server: accepted, found again and gone on with, by what the journal has of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from functools import partial
from typing import Any

from semantic_parrot.core.ended import EndedRun
from semantic_parrot.core.errors import IdempotencyKeyReused, JournalUnavailable, ParrotError
from semantic_parrot.core.events import Event, RunFinished
from semantic_parrot.core.journal.journal import Journal
from semantic_parrot.core.journal.values import JournalError, Key, Listed, Stored
from semantic_parrot.core.program import Program, parse_program
from semantic_parrot.core.run import Run

log = logging.getLogger(__name__)

#: Seconds between two looks for runs whose time is over.
PRUNING = 3600.0

#: Starts a run of a program for a tenant, or goes on with the one that is stored. Raises ParrotError.
Start = Callable[[Program, str, Stored | None], Run]


class Durable:
    """Owned by the event loop. `runs`: those in memory, by id; `start` adds one."""

    def __init__(self, journal: Journal, runs: MutableMapping[str, Run], start: Start) -> None:
        self.journal = journal
        self._runs = runs
        self._start = start
        self._keys: dict[tuple[str, str], tuple[str, str]] = {}  # (run, digest) of runs in memory
        self._lost: dict[str, EndedRun] = {}  # could not go on, which the journal need not know yet
        self._pruning: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Go on with all that has not ended. Raises JournalError."""
        await self.journal.open()
        try:
            unfinished = await self.journal.unfinished()
        except JournalUnavailable as error:
            raise JournalError(error.message) from None
        for stored in unfinished:
            self._resume(stored)
            await asyncio.sleep(0)  # who is served already is not to wait for all of them
        if unfinished:
            log.warning("the journal %s: %d unfinished runs go on", self.journal.name, len(unfinished))
        self._pruning = asyncio.create_task(self._prune())

    async def close(self) -> None:
        """Runs in the background are left as they are."""
        if self._pruning is not None:
            self._pruning.cancel()
        await self.journal.close()

    async def accept(self, program: Program, body: Any, tenant: str, key: Key | None) -> tuple[Run | EndedRun, bool]:
        """(the run, whether it is new): the one that holds `key`, or one that begins now, and is durable.

        Raises ParrotError, among them JournalUnavailable and IdempotencyKeyReused; then nothing runs.
        """
        if key is not None:
            holder = await self._holder(tenant, key)
            if holder is not None:
                await holder.settle()
                return holder, False
        if self.journal.trouble is not None:
            raise JournalUnavailable(f"a durable run can't be written down: {self.journal.trouble}")
        run = self._start(program, tenant, None)
        refusals: list[str] = []

        def refused(why: str) -> None:
            refusals.append(why)
            run.drop("it could not be written down")
            del self._runs[run.id]

        self.journal.accept(Listed(run.id, tenant, run.trace.created, None, None), body, key, refused)
        run.keep(partial(self._keep, run.id))
        if key is not None:
            name = (tenant, key.text)
            self._keys[name] = (run.id, key.digest)
            run.on_forgotten(lambda: self._release(name, run.id))
        await run.settle()
        if refusals:
            raise JournalUnavailable(f"a durable run can't be written down: {refusals[0]}")
        return run, True

    async def find(self, run_id: str, tenant: str) -> EndedRun | None:
        """One that is not in memory."""
        lost = self._lost.get(run_id)
        if lost is not None and lost.tenant == tenant:
            return lost
        stored = await self.journal.find(run_id, tenant)
        return None if stored is None or stored.run.status is None else EndedRun(stored)

    async def listing(self, tenant: str, most: int) -> dict[str, Listed]:
        """By id. What is open in the journal alone could not go on."""
        found = await self.journal.listing(tenant, most)
        return {run.id: replace(run, status=run.status or "failed") for run in found}

    async def _holder(self, tenant: str, key: Key) -> Run | EndedRun | None:
        """The run that `key` stands for. One that was cancelled gives its key back."""
        name = (tenant, key.text)
        while True:
            held = self._keys.get(name) or await self.journal.held(tenant, key.text)
            held = self._keys.get(name, held)  # as it is by now
            if held is None:
                return None
            run_id, digest = held
            if digest != key.digest:
                raise IdempotencyKeyReused("this key came with another request before", where="Idempotency-Key")
            run = self._runs.get(run_id) or await self.find(run_id, tenant)
            if run is not None and run.status != "cancelled":
                return run
            if self._keys.get(name, held) == held:
                return None

    def _release(self, name: tuple[str, str], run_id: str) -> None:
        if self._keys[name][0] == run_id:
            del self._keys[name]

    def _keep(self, run_id: str, number: int, event: Event, told: Callable[[], None]) -> None:
        self.journal.append(run_id, number, event, told)
        if isinstance(event, RunFinished):
            self.journal.end(run_id, event.status)

    def _resume(self, stored: Stored) -> None:
        keeper = partial(self._keep, stored.run.id)
        try:
            run = self._start(parse_program(stored.body), stored.run.tenant, stored)
        except ParrotError as error:
            log.error("run %s can't go on: %s", stored.run.id, error.message)
            end = RunFinished(id=stored.run.id, status="failed", outputs={}, errors={"run": error.body()["error"]})
            keeper(len(stored.events) + 1, end, lambda: None)
            self._lost[stored.run.id] = EndedRun(replace(stored, events=(*stored.events, end)))
            return
        run.keep(keeper)
        run.audience.attach()
        run.audience.detach()  # whoever read it before the start has a grace to come back in

    async def _prune(self) -> None:
        while True:
            try:
                forgotten = await self.journal.prune()
            except JournalUnavailable as error:
                log.warning("old runs are kept for now: %s", error.message)
            else:
                if forgotten:
                    log.info("the journal %s: %d runs of old were forgotten", self.journal.name, forgotten)
                    continue
            await asyncio.sleep(PRUNING)
