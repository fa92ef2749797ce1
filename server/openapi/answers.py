"""What the routes answer, for their description: answers are made elsewhere, and tests hold them against these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, JsonValue

from semantic_parrot.core.events import RunUsage, Status

Count = Annotated[int, Field(ge=0)]


class ErrorBody(BaseModel):
    """`code` is stable; `param` names the place, a path into the body as a rule."""

    message: str
    type: str
    param: str | None
    code: str


class Error(BaseModel):
    error: ErrorBody


class PromptDetails(BaseModel):
    cached_tokens: Count


class Usage(BaseModel):
    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: PromptDetails


class Made(BaseModel):
    """`engine` and seconds of a call."""

    engine: str | None
    cached_tokens: Count
    queued: float
    prefill: float
    decode: float


class Function(BaseModel):
    name: str
    arguments: str


class FunctionCall(BaseModel):
    id: str
    type: Literal["function"]
    function: Function


class Message(BaseModel):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[FunctionCall] = []


class _Choice(BaseModel):
    index: Count
    logprobs: dict[str, Any] | None


class ChatChoice(_Choice):
    message: Message
    finish_reason: Literal["stop", "length", "tool_calls"]


class TextChoice(_Choice):
    text: str
    finish_reason: Literal["stop", "length"]


class _Completion(BaseModel):
    id: str
    created: int
    model: str
    usage: Usage
    parrot: Made


class ChatCompletion(_Completion):
    object: Literal["chat.completion"]
    choices: Annotated[list[ChatChoice], Field(min_length=1)]


class TextCompletion(_Completion):
    object: Literal["text_completion"]
    choices: Annotated[list[TextChoice], Field(min_length=1)]


class ResponseObject(BaseModel):
    """OpenAI's, as far as it is served."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["completed", "incomplete"]
    model: str
    output: Annotated[list[dict[str, Any]], Field(min_length=1)]
    error: None
    usage: dict[str, Any]
    parrot: Made


class Model(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    max_model_len: int


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[Model]


class EngineInfo(BaseModel):
    id: str
    object: Literal["engine"]
    model: str
    up: bool
    trouble: str
    abilities: list[str]
    without: list[str]


class EngineList(BaseModel):
    object: Literal["list"]
    data: list[EngineInfo]


class Tokens(BaseModel):
    tokens: list[int]
    count: Count
    max_model_len: int


class Health(BaseModel):
    status: Literal["ok"]


class Ready(BaseModel):
    status: Literal["ready", "not ready"]
    models: dict[str, bool]


class RunResult(BaseModel):
    id: str
    status: Status
    outputs: dict[str, JsonValue]
    errors: dict[str, dict[str, Any]]
    calls: dict[str, dict[str, Any]]
    usage: RunUsage


class ListedRun(BaseModel):
    id: str
    status: Status
    created: float
    ended: float | None


class RunList(BaseModel):
    object: Literal["list"]
    data: list[ListedRun]


class Report(BaseModel):
    id: str
    status: Status
    calls: list[dict[str, Any]]


class Trace(BaseModel):
    traceEvents: list[dict[str, Any]]


class SessionOpened(BaseModel):
    id: str


class SessionClosed(BaseModel):
    id: str
    closed: Literal[True]


class Submitted(BaseModel):
    """The ids of the variables by their names."""

    variables: dict[str, str]


class VariableValue(BaseModel):
    id: str
    name: str
    value: JsonValue


class VariableSet(BaseModel):
    id: str
    name: str
