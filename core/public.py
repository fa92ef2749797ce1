"""Public prefixes: beginnings of prompts that whoever runs the server lets all tenants share."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from semantic_parrot.core.errors import ParrotError
from semantic_parrot.core.model import Value
from semantic_parrot.core.request import UNKNOWN, ModelRequest, parse_request


class PublicPrefix(Value):
    """The first messages of a chat, with its tools, or the beginning of a prompt: OpenAI's fields."""

    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    prompt: str | None = None

    @model_validator(mode="after")
    def _is_one(self) -> PublicPrefix:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("give messages, or a prompt")
        try:
            self.request()
        except ParrotError as error:
            raise ValueError(error.message) from None
        return self

    def request(self) -> ModelRequest:
        """A request that begins so, and goes on with UNKNOWN."""
        body: dict[str, Any] = {"model": "default", "max_tokens": 1}
        if self.messages is None:
            body["prompt"] = f"{self.prompt}{UNKNOWN}"
        else:
            body["messages"] = [*self.messages, {"role": "user", "content": UNKNOWN}]
        return parse_request(body if self.tools is None else {**body, "tools": self.tools})
