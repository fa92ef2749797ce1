"""What goes into the journal and comes out of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from semantic_parrot.core.config import ConfigError
from semantic_parrot.core.events import Event


class JournalError(ConfigError):
    """The journal that is configured can't be had. The message is one line."""


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key, as its tenant sent it, with the `digest` of what was sent under it."""

    text: str
    digest: str

    @classmethod
    def of(cls, text: str, body: Any) -> Key:
        """`body`: the JSON that came with it; the order of its keys is nothing that it says."""
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return cls(text, hashlib.sha256(canonical.encode()).hexdigest())


@dataclass(frozen=True, slots=True)
class Listed:
    """A run in a list. `created`, `ended`: Unix time; an open run has neither `ended` nor `status`."""

    id: str
    tenant: str
    created: float
    status: str | None
    ended: float | None


@dataclass(frozen=True, slots=True)
class Stored:
    """A run in the journal: `body` is the program as JSON, `events` all that it has told, from number 1 on."""

    run: Listed
    body: Any
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Retention:
    """How long a run that has ended is kept: `days`, and as one of so many `runs`. None: without bound."""

    days: float | None = 7.0
    runs: int | None = 10_000
