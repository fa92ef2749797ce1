"""How a service reaches its Parrot server. Only PARROT_* variables are read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from openai import AsyncOpenAI
from semantic_kernel.exceptions import ServiceInitializationError
from semantic_kernel.utils.telemetry.user_agent import APP_INFO, prepend_semantic_kernel_to_user_agent

from semantic_parrot.adapters.embedded import EmbeddedOptions
from semantic_parrot.adapters.endpoint import EMBEDDED_URL, NO_KEY, Endpoint, is_embedded, pairs, resolve_base_url
from semantic_parrot.adapters.openai_http import forget_environment
from semantic_parrot.adapters.transport import AsyncClaimingTransport, AsyncClient


def model_of(ai_model_id: str | None) -> str:
    """What was given, else PARROT_MODEL, else the first model of the server."""
    return ai_model_id or os.environ.get("PARROT_MODEL") or "default"


def connect(
    model: str,
    async_client: AsyncOpenAI | None,
    *,
    base_url: str | None,
    api_key: str | None,
    org_id: str | None,
    default_headers: Mapping[str, str] | None,
    embedded_flags: Sequence[str],
) -> tuple[Endpoint | None, AsyncOpenAI]:
    """The server, and a client for it whose calls may be answered by a plan; or the app's own client, which has its
    own server and key. Raises ServiceInitializationError if both are given."""
    if async_client is not None:
        others = {"base_url": base_url, "api_key": api_key, "org_id": org_id, "default_headers": default_headers}
        for name in (name for name, value in others.items() if value):
            raise ServiceInitializationError(f"With an async_client, {name} is that of the client.")
        return None, async_client
    url = resolve_base_url(base_url)
    embedded = None
    if is_embedded(url):
        url, embedded = EMBEDDED_URL, EmbeddedOptions(None if model == "default" else model, tuple(embedded_flags))
    key = api_key or os.environ.get("PARROT_API_KEY") or None
    endpoint = Endpoint(url, key, pairs(default_headers), embedded=embedded)
    sent: dict[str, Any] = dict(default_headers or {})
    if APP_INFO:  # as the stock service does
        sent = prepend_semantic_kernel_to_user_agent({**sent, **APP_INFO})
    transport: Any = AsyncClaimingTransport(endpoint)
    http_client = AsyncClient(transport=transport)
    client = AsyncOpenAI(api_key=key or NO_KEY, base_url=url, organization=org_id, http_client=http_client)
    forget_environment(client, org_id, sent)
    return endpoint, client
