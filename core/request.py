"""One rendered OpenAI request, validated, as the engines take it.

Every field is either obeyed or refused by name; the fields that say how to deliver an answer are the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from semantic_parrot.core.errors import EmptyPrompt, InvalidRequest
from semantic_parrot.core.grammar import Grammar, ResponseFormat, StructuredOutputs, grammar_of
from semantic_parrot.core.program import explain
from semantic_parrot.core.sampling import Options, Sampling
from semantic_parrot.core.tools import CallBody, ToolCall, ToolChoice, ToolList, Tools, tools_of
from semantic_parrot.core.unserved import Unserved

#: Stands in a request's text for what is not known yet, where a prompt is filled ahead of its last words.
UNKNOWN = "\ue00f\ue00e\ue00f"

Role = Literal["system", "developer", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """`calls`: an assistant's. `call_id`: of the call that a tool's message answers; `name`: of its function,
    or of who speaks, for chat templates that write it."""

    role: str
    content: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What an engine executes: chat `messages`, or a `prompt` for a completion; never both."""

    model: str
    messages: tuple[Message, ...] | None
    prompt: str | None
    sampling: Sampling
    grammar: Grammar | None = None
    tools: Tools | None = None

    @property
    def content(self) -> str | tuple[Message, ...]:
        """The prompt, of either kind."""
        return self.messages if self.messages is not None else self.prompt or ""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _TextPart(_Body):
    type: Literal["text"]
    text: str


class _Message(_Body):
    role: Role
    content: str | list[_TextPart] | None = None
    tool_calls: list[CallBody] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    # Clients send an answer's message back as it came, and OpenAI's has these.
    refusal: Unserved = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    audio: Unserved = None
    function_call: Unserved = None

    @model_validator(mode="after")
    def _fits_its_role(self) -> _Message:
        if self.tool_calls is not None and self.role != "assistant":
            raise ValueError("tool_calls belongs to an assistant's message")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise ValueError("tool_call_id belongs to a tool's message, which needs it")
        if self.content is None and not self.tool_calls:
            raise ValueError("content is missing")
        return self

    def message(self, where: str) -> Message:
        text = self.content if isinstance(self.content, str) else "".join(p.text for p in self.content or ())
        calls = tuple(
            c.call(f"{where}.tool_calls[{i}].function.arguments") for i, c in enumerate(self.tool_calls or ())
        )
        return Message(self.role, text, calls, self.tool_call_id, self.name)


class _StreamOptions(_Body):
    include_usage: bool = False


class _Common(Options):
    model: str
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    # Nothing is stored, whether a client says so or not.
    store: Literal[False] | None = None
    service_tier: Unserved = None
    safety_identifier: Unserved = None
    prompt_cache_key: Unserved = None
    prompt_cache_retention: Unserved = None

    def grammar(self) -> Grammar | None:
        return grammar_of(self.response_format, self.structured_outputs)


class ChatBody(_Common):
    messages: Annotated[list[_Message], Field(min_length=1)]
    tools: ToolList | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    audio: Unserved = None
    function_call: Unserved = None
    functions: Unserved = None
    modalities: Unserved = None
    moderation: Unserved = None
    prediction: Unserved = None
    reasoning_effort: Unserved = None
    verbosity: Unserved = None
    web_search_options: Unserved = None

    @field_validator("top_logprobs")
    @classmethod
    def _only_beside(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and not info.data.get("logprobs"):
            raise ValueError("it needs logprobs: true")
        return value

    def logprobs_wanted(self) -> int | None:
        return self.top_logprobs or 0 if self.logprobs else None

    @model_validator(mode="after")
    def _one_limit(self) -> ChatBody:
        both = self.max_tokens is not None and self.max_completion_tokens is not None
        if both and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens disagree")
        return self


class CompletionBody(_Common):
    prompt: str
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    #: Clients send it as what it is by default: the prompt is not repeated.
    echo: Literal[False] | None = False
    best_of: Unserved = None
    suffix: Unserved = None

    def logprobs_wanted(self) -> int | None:
        return self.logprobs


def is_chat(body: Mapping[str, Any]) -> bool:
    """Whether a body is for chat completions (it has messages) rather than completions (it has a prompt)."""
    return "messages" in body


def parse_request(body: Mapping[str, Any], *, prefix: str = "", allow_empty: bool = False) -> ModelRequest:
    """A rendered OpenAI body as a ModelRequest.

    Raises InvalidRequest with the field's path (after `prefix`), EmptyPrompt if there is no text at all
    (`allow_empty`: a program is checked so before its variables have values).
    """
    try:
        if is_chat(body):
            chat = ChatBody.model_validate(body)
            messages = tuple(m.message(f"messages[{i}]") for i, m in enumerate(chat.messages))
            empty = not any(m.content or m.calls for m in messages)
            limit = chat.max_completion_tokens if chat.max_tokens is None else chat.max_tokens
            grammar = chat.grammar()
            tools = tools_of(chat.tools, chat.tool_choice, chat.parallel_tool_calls, constrained=grammar is not None)
            request = ModelRequest(chat.model, messages, None, chat.sampling(limit), grammar, tools)
        else:
            text = CompletionBody.model_validate(body)
            empty = not text.prompt
            # OpenAI's completions stop after 16 tokens unless told otherwise; chat has no such default.
            limit = 16 if text.max_tokens is None else text.max_tokens
            request = ModelRequest(text.model, None, text.prompt, text.sampling(limit), text.grammar())
    except ValidationError as error:
        message, where = explain(error, prefix=prefix)
        raise InvalidRequest(message, where=where) from None
    except InvalidRequest as error:
        raise InvalidRequest(error.message, where=".".join(filter(None, (prefix, error.where)))) from None
    if empty and not allow_empty:
        where = ".".join(filter(None, (prefix, "messages" if is_chat(body) else "prompt")))
        raise EmptyPrompt("the prompt is empty", where=where)
    return request
