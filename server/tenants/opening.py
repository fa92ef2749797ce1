"""What a server with tenants has, put together as it starts."""

from __future__ import annotations

from dataclasses import dataclass

from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.tenants import Terms
from semantic_parrot.server.tenants.keys import Keyring
from semantic_parrot.server.tenants.ledger import Ledger
from semantic_parrot.server.tenants.limits import Limits
from semantic_parrot.server.tenants.store import TenantStore


@dataclass(frozen=True, slots=True)
class Tenants:
    """`keyring` None: no keys are asked for, and all are one tenant. `ledger`: what they have used is written down."""

    limits: Limits
    keyring: Keyring | None
    ledger: Ledger | None

    async def close(self) -> None:
        if self.ledger is not None:
            await self.ledger.close()


def open_tenants(terms: Terms, runtime: Runtime, store: TenantStore | None) -> Tenants:
    """`runtime` has not started: what it does from the first moment on is counted, as when runs in its journal go on.
    Raises StoreError."""
    ledger = None if store is None else Ledger(store)
    limits = Limits(
        terms,
        lambda tenant: runtime.calls.queue(tenant),
        {} if store is None else store.used(),
        (lambda: None) if ledger is None else ledger.changed,
    )
    if ledger is not None:
        ledger.keep(limits)
    limits.watch(runtime)
    return Tenants(limits, None if store is None else Keyring(store), ledger)
