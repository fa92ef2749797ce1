"""One rendered OpenAI request, validated, as the engines take it.

Every field is either obeyed or refused by name; the fields that say how to deliver an answer are the caller's.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from semantic_parrot.core.errors import EmptyPrompt, InvalidRequest
from semantic_parrot.core.program import explain

#: Stands in a request's text for what is not known yet, where a prompt is filled ahead of its last words.
UNKNOWN = "\ue00f\ue00e\ue00f"

Role = Literal["system", "developer", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """`max_tokens` None means up to the model's context. `temperature` 0 is greedy. `seed` is always set."""

    temperature: float
    top_p: float
    seed: int
    max_tokens: int | None
    stop: tuple[str, ...]
    ignore_eos: bool


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What an engine executes: chat `messages`, or a `prompt` for a completion; never both."""

    model: str
    messages: tuple[Message, ...] | None
    prompt: str | None
    sampling: Sampling


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _TextPart(_Body):
    type: Literal["text"]
    text: str


class _Message(_Body):
    role: Role
    content: str | list[_TextPart]

    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(p.text for p in self.content)


class _StreamOptions(_Body):
    include_usage: bool = False


class _Common(_Body):
    model: str
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    n: Literal[1] | None = None
    ignore_eos: bool = False
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None

    def sampling(self, max_tokens: int | None) -> Sampling:
        stop = () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        return Sampling(
            temperature=1.0 if self.temperature is None else float(self.temperature),
            top_p=1.0 if self.top_p is None else float(self.top_p),
            seed=secrets.randbits(63) if self.seed is None else self.seed,
            max_tokens=max_tokens,
            stop=tuple(s for s in stop if s),
            ignore_eos=self.ignore_eos,
        )


class _Chat(_Common):
    messages: Annotated[list[_Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_limit(self) -> _Chat:
        both = self.max_tokens is not None and self.max_completion_tokens is not None
        if both and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens disagree")
        return self


class _Completion(_Common):
    prompt: str


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
            chat = _Chat.model_validate(body)
            messages = tuple(Message(m.role, m.text()) for m in chat.messages)
            empty = not any(m.content for m in messages)
            limit = chat.max_completion_tokens if chat.max_tokens is None else chat.max_tokens
            request = ModelRequest(chat.model, messages, None, chat.sampling(limit))
        else:
            text = _Completion.model_validate(body)
            empty = not text.prompt
            # OpenAI's completions stop after 16 tokens unless told otherwise; chat has no such default.
            limit = 16 if text.max_tokens is None else text.max_tokens
            request = ModelRequest(text.model, None, text.prompt, text.sampling(limit))
    except ValidationError as error:
        message, where = explain(error, prefix=prefix)
        raise InvalidRequest(message, where=where) from None
    if empty and not allow_empty:
        where = ".".join(filter(None, (prefix, "messages" if is_chat(body) else "prompt")))
        raise EmptyPrompt("the prompt is empty", where=where)
    return request
