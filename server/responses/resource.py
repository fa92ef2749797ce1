"""The response object, in every state that it goes through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from semantic_parrot.core.engines.protocol import Done, Usage
from semantic_parrot.core.errors import ParrotError
from semantic_parrot.core.response import made
from semantic_parrot.server.responses.body import Format, ResponsesBody

#: What is the same in every response: nothing of it is served.
_FIXED: dict[str, Any] = {
    "background": False,
    "conversation": None,
    "max_tool_calls": None,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": None,
    "safety_identifier": None,
    "service_tier": "default",
    "store": False,
    "truncation": "disabled",
}


class Resource:
    """One response, told by `state` as it is at the time. What was sent comes back with OpenAI's defaults."""

    def __init__(self, body: ResponsesBody, *, id: str, created: int) -> None:
        self.id = id
        choice = body.tool_choice or "auto"
        self._said: dict[str, Any] = {
            "id": id,
            "object": "response",
            "created_at": created,
            "model": body.model,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "presence_penalty": body.presence_penalty or 0.0,
            "frequency_penalty": body.frequency_penalty or 0.0,
            "temperature": 1.0 if body.temperature is None else body.temperature,
            "text": {"format": _format(body.format)},
            "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
            "tools": [tool.model_dump() for tool in body.tools or ()],
            "top_logprobs": body.top_logprobs or 0,
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "user": body.user,
            **_FIXED,
        }

    def state(
        self,
        status: str,
        output: Sequence[dict[str, Any]],
        *,
        done: Done | None = None,
        ended: int | None = None,
        error: ParrotError | None = None,
    ) -> dict[str, Any]:
        """`ended`: when, in Unix time, if it is complete."""
        found = {
            **self._said,
            "status": status,
            "completed_at": ended,
            "output": list(output),
            "usage": None if done is None else _usage(done.usage),
            "error": None if error is None else {"code": error.code, "message": error.message},
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        }
        return found if done is None else {**found, "parrot": made(done)}


def _format(format: Format) -> dict[str, Any]:
    if format.type != "json_schema":
        return {"type": format.type}
    return {"strict": None, "description": None, **format.model_dump(by_alias=True)}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt,
        # Nothing is paid for what is written into the cache.
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt + usage.completion,
    }
