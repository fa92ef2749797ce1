"""Which server, with which credentials: two models may share a plan only if these are equal."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from semantic_parrot.adapters.embedded import EMBEDDED, EmbeddedOptions, embedded_url

DEFAULT_BASE_URL = "http://127.0.0.1:8765/v1"

#: The host that stands in URLs for an embedded server, whose port is known only once it runs.
EMBEDDED_URL = "http://embedded.parrot/v1"

#: What OpenAI clients are given where no key is needed; it is never sent.
NO_KEY = "no-key-needed"


@dataclass(frozen=True)
class Endpoint:
    """`base_url` ends in /v1. `embedded`: the child process that serves it. Compared and hashed by value."""

    base_url: str
    api_key: str | Callable[[], str] | None = None
    headers: tuple[tuple[str, str], ...] = ()
    params: tuple[tuple[str, object], ...] = ()
    embedded: EmbeddedOptions | None = None

    def url(self) -> str:
        """The server's base URL. Starts the embedded server if this process has none yet: that may take seconds."""
        return self.base_url if self.embedded is None else embedded_url(self.embedded)

    def key(self) -> str | None:
        return self.api_key() if callable(self.api_key) else self.api_key


def resolve_base_url(given: str | None) -> str:
    """The base URL of a model: what was given, else PARROT_BASE_URL, else the default port on loopback."""
    return (given or os.environ.get("PARROT_BASE_URL") or DEFAULT_BASE_URL).rstrip("/")


def is_embedded(base_url: str) -> bool:
    return base_url in (EMBEDDED, EMBEDDED_URL)


def pairs(mapping: Mapping[str, Any] | None) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((mapping or {}).items()))
