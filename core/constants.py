"""One object for each constant of a program: an app's calls repeat their system prompts, and thousands may wait."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from semantic_parrot.core.wire import TEMPLATE


def share(requests: Iterable[dict[str, Any]]) -> None:
    """Replace equal texts and equal constant messages of `requests`, in place, by the first of each; `requests` mean
    what they meant, and nobody changes a request."""
    seen: dict[Hashable, Any] = {}
    once = seen.setdefault
    for request in requests:
        for key, value in request.items():
            if type(value) is str:
                request[key] = once(value, value)
        messages: Any = request.get("messages")
        for i, message in enumerate(messages if type(messages) is list else ()):
            if type(message) is not dict:
                continue
            content = message.get("content")
            if type(content) is str and all(type(value) is str for value in message.values()):
                messages[i] = once(tuple(message.items()), message)
            elif type(content) is dict and type(parts := content.get(TEMPLATE)) is list:
                for j, part in enumerate(parts):
                    if type(part) is str:
                        parts[j] = once(part, part)
