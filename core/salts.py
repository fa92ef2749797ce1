"""Tenants are kept apart in what is cached of their requests, and in what is learned from them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from functools import lru_cache
from zlib import crc32


class Salts:
    """`secret`: the server's own, which no client knows; None: there is one tenant, and nothing to keep apart."""

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = secret

    def __bool__(self) -> bool:
        return self._secret is not None

    def of(self, tenant: str) -> str:
        """For the engines: KV that has this salt is the tenant's. Who knows the tenant's name can't make it."""
        if self._secret is None:
            return ""
        return hmac.new(self._secret, tenant.encode(), hashlib.sha256).hexdigest()


@lru_cache(4096)
def mark(tenant: str) -> int:
    """Of 32 bits; 0 where there are no tenants. For what the scheduler believes: a collision costs a poor guess."""
    return crc32(tenant.encode())


def own(names: Iterable[int], tenant: str) -> tuple[int, ...]:
    """Names of prefixes (`analysis.boundaries`), as the tenant's: who holds another's holds nothing of it."""
    marked = mark(tenant)
    return tuple(name ^ marked for name in names)
