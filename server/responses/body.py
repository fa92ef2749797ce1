"""The body of POST /v1/responses, and the chat completion that it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from semantic_parrot.core.errors import InvalidRequest
from semantic_parrot.core.program import explain
from semantic_parrot.core.sampling import Options
from semantic_parrot.core.tools import MAX_TOOLS
from semantic_parrot.core.unserved import Unserved
from semantic_parrot.server.responses.items import chat_messages


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Format(_Body):
    """How the answer is to look; beside its type, the fields are those of a `json_schema`."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    body: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None

    @model_validator(mode="after")
    def _fields_where_they_belong(self) -> Format:
        if self.type == "json_schema" and (self.name is None or self.body is None):
            raise ValueError("a json_schema needs a name and a schema")
        if self.type != "json_schema" and self.model_fields_set > {"type"}:
            raise ValueError("name, description, schema and strict belong to type 'json_schema'")
        return self

    def response_format(self) -> dict[str, Any]:
        """As chat completions have it."""
        if self.type != "json_schema":
            return {"type": self.type}
        said = self.model_dump(by_alias=True, exclude_none=True, exclude={"type"})
        return {"type": "json_schema", "json_schema": said}


class Text(_Body):
    format: Format | None = None
    verbosity: Unserved = None


class FunctionTool(_Body):
    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def tool(self) -> dict[str, Any]:
        """As chat completions have it."""
        return {"type": "function", "function": self.model_dump(exclude_none=True, exclude={"type"})}


class NamedTool(_Body):
    type: Literal["function"]
    name: str


class StreamOptions(_Body):
    include_obfuscation: Literal[False] | None = None


class ResponsesBody(Options):
    """OpenAI's fields, and those of chat completions that say how to sample."""

    model: str
    input: Any
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    text: Text | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    include: list[Literal["message.output_text.logprobs"]] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    parrot: dict[str, Any] | None = None
    # What is the case here, whether a client says so or not.
    store: Literal[False] | None = None
    background: Literal[False] | None = None
    truncation: Literal["disabled"] | None = None
    # Of chat completions: an answer has one choice, and its limit another name.
    n: Unserved = None
    max_tokens: Unserved = None
    access_programs: Unserved = None
    context_management: Unserved = None
    conversation: Unserved = None
    image: Unserved = None
    max_tool_calls: Unserved = None
    moderation: Unserved = None
    previous_response_id: Unserved = None
    prompt: Unserved = None
    prompt_cache_key: Unserved = None
    prompt_cache_options: Unserved = None
    prompt_cache_retention: Unserved = None
    reasoning: Unserved = None
    safety_identifier: Unserved = None
    service_tier: Unserved = None

    @property
    def format(self) -> Format:
        return (self.text and self.text.format) or Format(type="text")


#: Fields that chat completions have under the same name and with the same meaning.
_SAME = frozenset({*Options.model_fields, "model", "user", "metadata", "parrot", "stream"}) - {"n", "max_tokens"}

#: A field of chat completions, and what it is here. The longest come first.
_RENAMED = (
    ("max_completion_tokens", "max_output_tokens"),
    ("response_format.json_schema", "text.format"),
    ("response_format", "text.format"),
    ("tool_choice.function", "tool_choice"),
    ("messages", "input"),
)


def parse_body(body: Mapping[str, Any]) -> ResponsesBody:
    """Raises InvalidRequest with the field's path."""
    try:
        parsed = ResponsesBody.model_validate(body)
    except ValidationError as error:
        message, where = explain(error)
        raise InvalidRequest(message, where=where) from None
    if parsed.top_logprobs is not None and not parsed.include:
        message = "top_logprobs: it needs include: ['message.output_text.logprobs']"
        raise InvalidRequest(message, where="top_logprobs")
    if parsed.stream_options is not None and not parsed.stream:
        raise InvalidRequest("stream_options needs stream: true", where="stream_options")
    return parsed


def chat_body(parsed: ResponsesBody, body: Mapping[str, Any]) -> dict[str, Any]:
    """The chat completion that `body` asks for. Raises InvalidRequest, Unsupported."""
    chat = {name: value for name, value in body.items() if name in _SAME}
    chat["messages"] = chat_messages(parsed.input, parsed.instructions)
    if parsed.max_output_tokens is not None:
        chat["max_completion_tokens"] = parsed.max_output_tokens
    if parsed.include:
        chat |= {"logprobs": True, "top_logprobs": parsed.top_logprobs or 0}
    if parsed.format.type != "text":
        chat["response_format"] = parsed.format.response_format()
    if parsed.tools:
        chat["tools"] = [tool.tool() for tool in parsed.tools]
        if parsed.parallel_tool_calls is not None:
            chat["parallel_tool_calls"] = parsed.parallel_tool_calls
    if isinstance(parsed.tool_choice, NamedTool):
        chat["tool_choice"] = {"type": "function", "function": {"name": parsed.tool_choice.name}}
    elif parsed.tool_choice is not None:
        chat["tool_choice"] = parsed.tool_choice
    return chat


def own_names(error: InvalidRequest) -> InvalidRequest:
    """`error`, of the chat completion, in the words of the request that was sent."""
    where, message = error.where or "", error.message
    if where.startswith("tools["):
        message, where = message.replace(".function", "", 1), where.replace(".function", "", 1)
    for chat, own in _RENAMED:
        if where.startswith(chat):
            where = own + where.removeprefix(chat)
            message = message.replace(chat, own)
            break
    return type(error)(message, where=where or None)
