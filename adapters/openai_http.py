"""The HTTP library of the installed OpenAI client: what is handed to that client must be built from it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import openai

__all__ = ["forget_environment", "http"]


def _client_module() -> Any:
    """The HTTP library of the installed OpenAI client: httpx, or httpx2 from its version 3 on; alike in all we use."""
    base = next(cls for cls in openai.DefaultHttpxClient.__mro__ if cls.__name__ == "Client")
    return import_module(base.__module__.partition(".")[0])


if TYPE_CHECKING:
    import httpx as http
else:
    http = _client_module()


def forget_environment(client: Any, organization: str | None, headers: Mapping[str, str] | None) -> None:
    """Take out of an OpenAI client what it read from OPENAI_* variables: that is for other servers."""
    if client is None:
        return
    client.organization = organization
    client.project = None
    if hasattr(client, "admin_api_key"):
        client.admin_api_key = None
    client._custom_headers = dict(headers or {})  # holds OPENAI_CUSTOM_HEADERS; nothing public does
