"""The stock service and ours on one server, and what an app sees of them, comparable."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Any

from openai import AsyncOpenAI
from pydantic import BaseModel
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion, OpenAITextCompletion

from semantic_parrot.adapters.semantic_kernel import ParrotChatCompletion, ParrotTextCompletion

_ID = re.compile(r"(chatcmpl|cmpl)-[0-9a-f]{32}")


def stock(url: str, **settings: Any) -> OpenAIChatCompletion:
    client = AsyncOpenAI(api_key="x", base_url=url, max_retries=0)
    return OpenAIChatCompletion(**{"ai_model_id": "default", **settings}, async_client=client)


def parrot(url: str, **settings: Any) -> ParrotChatCompletion:
    found = ParrotChatCompletion(base_url=url, **settings)
    found.client.max_retries = 0
    return found


def stock_text(url: str) -> OpenAITextCompletion:
    client = AsyncOpenAI(api_key="x", base_url=url, max_retries=0)
    return OpenAITextCompletion(ai_model_id="default", async_client=client)


def parrot_text(url: str) -> ParrotTextCompletion:
    found = ParrotTextCompletion(base_url=url)
    found.client.max_retries = 0
    return found


def seen(value: Any) -> Any:
    """`value` as plain data, without ids, times and the names of the two classes."""
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name) for name in type(value).model_fields if name not in _VARYING}
        return (type(value).__name__, seen(fields), seen(value.__pydantic_extra__ or {}))
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): seen(item) for key, item in value.items() if key not in _VARYING}
    if isinstance(value, list | tuple):
        return [seen(item) for item in value]
    if isinstance(value, BaseException):
        return raised(value)
    if value is None or isinstance(value, int | float | bool):
        return value
    return _plain(str(value))


#: `parrot`: the seconds that an answer took. `id` is that of a response or tool call; the last two are of agents.
_VARYING = ("id", "created", "execution_settings", "parrot", "agent_id", "thread_id")


def _plain(text: str) -> str:
    text = re.sub(r"<class '[\w.]*\.(OpenAI|Parrot)(Chat|Text)Completion'>", r"<class \2>", text)
    return re.sub(r"0x[0-9a-f]+", "0x", _ID.sub("ID", text))


def raised(error: BaseException) -> list[tuple[str, str]]:
    """The chain of causes, outermost first: each one's type and message."""
    found = []
    cause: BaseException | None = error
    while cause is not None:
        found.append((type(cause).__name__, _plain(str(cause))))
        cause = cause.__cause__
    return found


async def outcome(service: Any, work: Callable[[Any], Any]) -> Any:
    """What `work(service)` gives, or the errors it raises. The service is of no use afterwards."""
    try:
        return seen(await work(service))
    except Exception as error:
        return raised(error)
    finally:
        await service.client.close()
