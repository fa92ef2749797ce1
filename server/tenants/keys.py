"""API keys: made, hashed, looked up.

A key is 256 random bits, so one round of SHA-256 is enough to keep it: there is no dictionary to try, which is what
slow hashes (bcrypt, scrypt) are for, and a slow one would let anybody keep the server busy with wrong keys. It is
looked up by its hash: how long that takes depends on the hash of what was sent, from which nobody can work towards a
key.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Mapping

from semantic_parrot.core.errors import InvalidKey
from semantic_parrot.server.tenants.store import Key, TenantStore

#: So that those who search code for secrets can find one.
PREFIX = "parrot-sk-"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def make(store: TenantStore, tenant: str, *, operator: bool = False) -> tuple[str, Key]:
    """(a new key, what is kept of it). The key itself is kept nowhere. Raises ValueError for a bad name; StoreError."""
    if not NAME.fullmatch(tenant):
        raise ValueError(
            f"{tenant!r} is no name: letters, digits, '.', '_' and '-', 64 at most, a letter or digit first"
        )
    secret = PREFIX + secrets.token_urlsafe(32)
    key = Key(f"key_{secrets.token_hex(6)}", tenant, operator, time.time())
    store.add(digest(secret), key)
    return secret, key


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


class Keyring:
    """The keys of `store`, as they are now: one that is revoked there opens nothing from the next request on."""

    def __init__(self, store: TenantStore) -> None:
        self._store = store
        self._seen = -1
        self._keys: Mapping[str, Key] = {}
        self._read()

    def find(self, secret: str) -> Key:
        """Raises InvalidKey; StoreError if the store can't be read."""
        return self.known(digest(secret))

    def known(self, key_hash: str) -> Key:
        """The key that has this `digest`. Raises as `find`."""
        self._read()
        key = self._keys.get(key_hash)
        if key is None or key.revoked is not None:
            raise InvalidKey("this API key is not known here, or was revoked")
        return key

    @property
    def empty(self) -> bool:
        """Whether no key opens anything."""
        self._read()
        return all(key.revoked is not None for key in self._keys.values())

    def _read(self) -> None:
        seen = self._store.changes()
        if seen != self._seen:
            self._keys = self._store.keys()
            self._seen = seen
