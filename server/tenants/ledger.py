"""What tenants have used outlives the server: written down soon after it has changed, and at the end."""

from __future__ import annotations

import asyncio
import logging

from semantic_parrot.server.tenants.limits import Limits
from semantic_parrot.server.tenants.store import StoreError, TenantStore

log = logging.getLogger(__name__)

#: Seconds that a crash may forget of.
SOON = 1.0


class Ledger:
    """Owned by the event loop; a thread writes."""

    def __init__(self, store: TenantStore) -> None:
        self._store = store
        self._limits: Limits | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def keep(self, limits: Limits) -> None:
        self._limits = limits

    def changed(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SOON, self._begin)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._begin()
        if self._writing is not None:
            await self._writing

    def _begin(self) -> None:
        self._timer = None
        self._writing = asyncio.create_task(self._write(self._writing))

    async def _write(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await before
        assert self._limits is not None
        try:
            await asyncio.to_thread(self._store.put_used, dict(self._limits.used))
        except StoreError as error:
            log.error("what tenants have used can't be written: %s", error)
