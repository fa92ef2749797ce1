"""The HTTP library of the installed OpenAI client: what is handed to that client must be built from it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import openai

__all__ = ["http"]


def _client_module() -> Any:
    """The HTTP library of the installed OpenAI client: httpx, or httpx2 from its version 3 on; alike in all we use."""
    base = next(cls for cls in openai.DefaultHttpxClient.__mro__ if cls.__name__ == "Client")
    return import_module(base.__module__.partition(".")[0])


if TYPE_CHECKING:
    import httpx as http
else:
    http = _client_module()
