"""What an app gives a model and what the environment holds, as the arguments of an OpenAI client of LangChain."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from semantic_parrot.adapters.embedded import EmbeddedOptions
from semantic_parrot.adapters.endpoint import EMBEDDED_URL, NO_KEY, Endpoint, is_embedded, pairs, resolve_base_url

CLIENT_ARGUMENTS = (
    "http_client",
    "http_async_client",
    "client",
    "async_client",
    "root_client",
    "root_async_client",
    "openai_proxy",
)
_ALIASES = {
    "model": "model_name",
    "base_url": "openai_api_base",
    "api_key": "openai_api_key",
    "organization": "openai_organization",
}


def settings_of(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by their field names, with Parrot's defaults in place of OpenAI's."""
    settings = {_ALIASES.get(name, name): value for name, value in kwargs.items()}
    settings["model_name"] = settings.get("model_name") or os.environ.get("PARROT_MODEL") or "default"
    settings["openai_api_base"] = resolve_base_url(settings.get("openai_api_base"))
    key = settings.get("openai_api_key") or os.environ.get("PARROT_API_KEY") or NO_KEY
    settings["openai_api_key"] = key
    settings.setdefault("openai_proxy", None)  # or it is looked for in OPENAI_PROXY
    if is_embedded(settings["openai_api_base"]):
        settings["openai_api_base"] = EMBEDDED_URL
    return settings


def endpoint_of(settings: Mapping[str, Any]) -> Endpoint:
    key = settings["openai_api_key"]
    if isinstance(key, SecretStr):
        key = key.get_secret_value()
    base_url = settings["openai_api_base"]
    embedded = None
    if base_url == EMBEDDED_URL:
        name = settings["model_name"]
        embedded = EmbeddedOptions(None if name == "default" else name, tuple(settings.get("embedded_flags") or ()))
    return Endpoint(
        base_url=base_url,
        api_key=None if key == NO_KEY else key,
        headers=pairs(settings.get("default_headers")),
        params=pairs(settings.get("default_query")),
        embedded=embedded,
    )
