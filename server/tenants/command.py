"""`parrot keys`: add, ls, revoke."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from semantic_parrot.server.tenants.keys import make
from semantic_parrot.server.tenants.store import Key, StoreError, TenantStore


def add(directory: Path, tenant: str, *, operator: bool) -> int:
    """Print a new key, alone on standard output; the exit code."""
    try:
        with closing(TenantStore(directory)) as store:
            secret, key = make(store, tenant, operator=operator)
    except (StoreError, ValueError) as error:
        return _failed(error)
    print(f"{key.id}: a key of {_owner(key)}. It is shown this once, and kept as a hash:", file=sys.stderr, flush=True)
    print(secret)
    return 0


def ls(directory: Path, *, as_json: bool) -> int:
    try:
        with closing(TenantStore(directory)) as store:
            keys = list(store.keys().values())
    except StoreError as error:
        return _failed(error)
    if as_json:
        print(json.dumps([asdict(key) for key in keys]))
        return 0
    table = Table("key", "of", "made", "state")
    for key in keys:
        state = "open" if key.revoked is None else f"revoked {_date(key.revoked)}"
        table.add_row(key.id, _owner(key), _date(key.created), state)
    Console().print(table)
    return 0


def revoke(directory: Path, name: str) -> int:
    """The key of that id, or all keys of that tenant; exit code 1 if there is none that opens anything."""
    try:
        with closing(TenantStore(directory)) as store:
            gone = store.revoke(name)
    except StoreError as error:
        return _failed(error)
    if not gone:
        print(f"parrot: no key that opens anything is called {name!r}, or belongs to such a tenant", file=sys.stderr)
        return 1
    print("\n".join(f"{key} is revoked" for key in gone))
    return 0


def _owner(key: Key) -> str:
    return f"{key.tenant} (operator)" if key.operator else key.tenant


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _failed(error: Exception) -> int:
    print(f"parrot: {error}", file=sys.stderr)
    return 2
