"""A chat completion as the OpenAI client's classes dump it, without building them: what most answers are.

Building `ChatCompletion` and dumping it again is a quarter of the client CPU of an answer that is there already.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

#: Of a message without tool calls, a thought or a sound: such ones are left to the classes.
_MESSAGE = {"role", "content", "refusal"}


class _Unset(NamedTuple):
    """The fields of each class, in its order, as they are dumped if a response says nothing of them."""

    completion: dict[str, Any]
    choice: dict[str, Any]
    message: dict[str, Any]
    usage: dict[str, Any]
    details: dict[str, dict[str, Any]]


@cache
def _unset() -> _Unset:
    from openai.types.chat import ChatCompletion, ChatCompletionMessage  # the client loads them when it is used
    from openai.types.chat.chat_completion import Choice
    from openai.types.completion_usage import CompletionTokensDetails, CompletionUsage, PromptTokensDetails

    def nothing(kind: Any) -> dict[str, Any]:
        found: dict[str, Any] = kind.construct().model_dump(warnings=False)
        return found

    return _Unset(
        nothing(ChatCompletion),
        nothing(Choice),
        nothing(ChatCompletionMessage),
        nothing(CompletionUsage),
        {
            "completion_tokens_details": nothing(CompletionTokensDetails),
            "prompt_tokens_details": nothing(PromptTokensDetails),
        },
    )


def dumped(response: Mapping[str, Any]) -> dict[str, Any] | None:
    """`ChatCompletion.construct(**response).model_dump()`; None if `response` is not of the plainest kind."""
    unset = _unset()
    choices, usage = response.get("choices"), response.get("usage")
    if type(choices) is not list or not choices or type(usage) is not dict:
        return None
    told = {**unset.completion, **response, "choices": [], "usage": {**unset.usage, **usage}}
    if not all(name in _OURS or _scalar(value) for name, value in told.items()):
        return None
    for name, value in told["usage"].items():
        if type(value) is dict and name in unset.details and all(map(_scalar, value.values())):
            told["usage"][name] = {**unset.details[name], **value}
        elif not _scalar(value):
            return None
    for choice in choices:
        if type(choice) is not dict or type(message := choice.get("message")) is not dict:
            return None
        if not message.keys() <= _MESSAGE or not all(map(_scalar, message.values())):
            return None
        if not all(name == "message" or _scalar(value) for name, value in choice.items()):
            return None
        told["choices"].append({**unset.choice, **choice, "message": {**unset.message, **message}})
    return told


#: Of a response: looked into one by one, or no field of the class, which leaves it as it is.
_OURS = {"choices", "usage", "parrot"}


def _scalar(value: object) -> bool:
    """Whether the classes leave it as it is, whatever the field."""
    return value is None or type(value) is str or type(value) is int
