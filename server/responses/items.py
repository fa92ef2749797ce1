"""Items of a conversation, as clients send them: messages, function calls, and what the functions gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from semantic_parrot.core.errors import InvalidRequest, Unsupported
from semantic_parrot.core.program import explain
from semantic_parrot.core.tools import CallBody, ToolCall
from semantic_parrot.core.unserved import Unserved

Messages = list[dict[str, Any]]
Status = Literal["in_progress", "completed", "incomplete"]
M = TypeVar("M", bound=BaseModel)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class InputText(_Body):
    type: Literal["input_text"]
    text: str


class OutputText(_Body):
    """What the server sent, sent back. `logprobs` says nothing to a model."""

    type: Literal["output_text"]
    text: str
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    logprobs: list[dict[str, Any]] | None = None


PARTS: Mapping[str, type[InputText | OutputText]] = {"input_text": InputText, "output_text": OutputText}


class _Item(_Body):
    """`id` and `status` are the server's own: they stand in what is sent back, and say nothing to a model."""

    id: str | None = None
    status: Status | None = None


class MessageItem(_Item):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[dict[str, Any]]
    phase: Unserved = None

    def add(self, messages: Messages, where: str) -> None:
        messages.append({"role": self.role, "content": _text(self.content, f"{where}.content")})


class FunctionCallItem(_Item):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str

    def add(self, messages: Messages, where: str) -> None:
        """Part of the assistant's message before it, if there is one: an answer's text and calls are one turn."""
        if not messages or messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant", "content": None})
        call = ToolCall(self.call_id, self.name, self.arguments).body()
        CallBody.model_validate(call).call(f"{where}.arguments")  # here it is known where it came from
        messages[-1].setdefault("tool_calls", []).append(call)


class FunctionOutputItem(_Item):
    type: Literal["function_call_output"]
    call_id: str
    output: str | list[dict[str, Any]]

    def add(self, messages: Messages, where: str) -> None:
        content = _text(self.output, f"{where}.output")
        messages.append({"role": "tool", "tool_call_id": self.call_id, "content": content})


ITEMS: Mapping[str, type[MessageItem | FunctionCallItem | FunctionOutputItem]] = {
    "message": MessageItem,
    "function_call": FunctionCallItem,
    "function_call_output": FunctionOutputItem,
}


def chat_messages(given: object, instructions: str | None) -> Messages:
    """`instructions` and the input (a text, or a list of items) as messages of a chat completion.

    Raises InvalidRequest; Unsupported for an item or a part that is none of the above.
    """
    messages: Messages = [] if instructions is None else [{"role": "system", "content": instructions}]
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise InvalidRequest("input must be a text or a list of items, and not empty", where="input")
    for i, item in enumerate(given):
        where = f"input[{i}]"
        _parse(ITEMS, item, where, "message").add(messages, where)
    return messages


def _text(content: str | list[dict[str, Any]], where: str) -> str:
    if isinstance(content, str):
        return content
    return "".join(_parse(PARTS, part, f"{where}[{i}]", None).text for i, part in enumerate(content))


def _parse(kinds: Mapping[str, type[M]], value: object, where: str, default: str | None) -> M:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{where} must be an object", where=where)
    kind = value.get("type", default)
    if not isinstance(kind, str) or kind not in kinds:
        message = f"{where}.type: {str(kind)[:80]!r} is not supported; there is: {', '.join(kinds)}"
        raise Unsupported(message, where=f"{where}.type")
    try:
        return kinds[kind].model_validate(value)
    except ValidationError as error:
        message, place = explain(error, prefix=where)
        raise InvalidRequest(message, where=place) from None
