"""Execution settings with Parrot's hints, which travel beside the request and are no part of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from semantic_kernel.connectors.ai.open_ai import OpenAIChatPromptExecutionSettings, OpenAITextPromptExecutionSettings
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings


class _Hints(PromptExecutionSettings):
    """`objective`: what the answer is for; else latency. `deadline_ms`: milliseconds from the request on. `priority`:
    the higher one goes first, from -100 to 100."""

    objective: Literal["latency", "throughput"] | None = None
    deadline_ms: Annotated[float | None, Field(gt=0)] = None
    priority: Annotated[int | None, Field(ge=-100, le=100)] = None

    def hints(self) -> dict[str, Any]:
        """Those that are stated, as the field `parrot` of a request."""
        stated = {"objective": self.objective, "deadline_ms": self.deadline_ms, "priority": self.priority}
        return {name: value for name, value in stated.items() if value is not None}

    def prepare_settings_dict(self, **kwargs: Any) -> dict[str, Any]:
        prepared: dict[str, Any] = super().prepare_settings_dict(**kwargs)
        hints = self.hints()
        for name in hints:
            prepared.pop(name, None)
        if hints:
            body = prepared.get("extra_body") or {}
            prepared["extra_body"] = {**body, "parrot": {**hints, **(body.get("parrot") or {})}}
        return prepared


class ParrotChatPromptExecutionSettings(_Hints, OpenAIChatPromptExecutionSettings):
    """OpenAI's chat settings, and the hints."""


class ParrotTextPromptExecutionSettings(_Hints, OpenAITextPromptExecutionSettings):
    """OpenAI's settings of text completion, and the hints."""
