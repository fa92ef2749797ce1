"""Every route: what it takes and what it answers. A table, for the description alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, WithJsonSchema

from semantic_parrot.core.eager import EagerOptions
from semantic_parrot.core.model import Name
from semantic_parrot.core.program import Body, Program
from semantic_parrot.core.request import ChatBody, CompletionBody
from semantic_parrot.server.openapi import answers
from semantic_parrot.server.responses.body import ResponsesBody

__all__ = ["OPERATIONS", "Operation"]


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ChatRequest(ChatBody):
    parrot: EagerOptions | None = None


#: Where one text is wanted, some clients send a list of it.
_ONE_TEXT = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 1}]
}


class CompletionRequest(CompletionBody):
    prompt: Annotated[str, WithJsonSchema(_ONE_TEXT)]
    parrot: EagerOptions | None = None


class ResponsesRequest(ResponsesBody):
    parrot: EagerOptions | None = None  # type: ignore[assignment]


class SessionCalls(Body):
    """Nodes that join the session, and variables: with a value, or null for one that is set later."""

    inputs: dict[Name, JsonValue] = Field(default={})


class Nothing(_Input):
    """No field at all."""


class Unclaimed(_Input):
    """Ids of calls whose results the client never used."""

    unclaimed: list[str] = []


class NewValue(_Input):
    value: Annotated[JsonValue, Field(json_schema_extra={"not": {"type": "null"}})]


class TokenizePrompt(_Input):
    prompt: str
    model: str = "default"


@dataclass(frozen=True, slots=True)
class Operation:
    """`body`: its model, None if it takes none. `answer`: the model of its JSON. `streams`: the answer is an event
    stream if that is asked for. `others`: media types that it may answer with besides. `statuses`: with which it
    answers so. `query`, `headers`: the schemas of parameters."""

    summary: str
    answer: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    body_required: bool = True
    streams: bool = False
    others: tuple[str, ...] = ()
    statuses: tuple[int, ...] = (200,)
    query: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    headers: Mapping[str, dict[str, Any]] = field(default_factory=dict)


_CRITERIA = {"type": "string", "pattern": r"^(latency|throughput|deadline_ms=[0-9]{1,8})$"}
_KEY = {"type": "string", "pattern": "^[!-~]{1,255}$"}
_LIMIT = {"type": "string", "pattern": "^[1-9][0-9]{0,2}$"}
_EVENT_ID = {"type": "string", "pattern": "^[0-9]{1,18}$"}

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("post", "/v1/chat/completions"): Operation(
        "A chat completion.", answers.ChatCompletion, ChatRequest, streams=True
    ),
    ("post", "/v1/completions"): Operation("A completion.", answers.TextCompletion, CompletionRequest, streams=True),
    ("post", "/v1/responses"): Operation(
        "A response, not stored.", answers.ResponseObject, ResponsesRequest, streams=True
    ),
    ("post", "/v1/embeddings"): Operation("Refused: there are no embeddings.", statuses=()),
    ("get", "/v1/models"): Operation("Every name that a request may use.", answers.ModelList),
    ("get", "/v1/models/{name}"): Operation("One of them.", answers.Model),
    ("get", "/v1/engines"): Operation("What runs the calls.", answers.EngineList),
    ("post", "/v1/runs"): Operation(
        "Run a program; 202: in the background.",
        answers.RunResult,
        Program,
        streams=True,
        statuses=(200, 202),
        headers={"Idempotency-Key": _KEY},
    ),
    ("get", "/v1/runs"): Operation("The newest runs that can be read.", answers.RunList, query={"limit": _LIMIT}),
    ("get", "/v1/runs/{run_id}"): Operation(
        "A run's state, or its events.", answers.RunResult, streams=True, headers={"Last-Event-ID": _EVENT_ID}
    ),
    ("delete", "/v1/runs/{run_id}"): Operation("Cancel a run.", answers.RunResult, Unclaimed, body_required=False),
    ("get", "/v1/runs/{run_id}/report"): Operation(
        "What was planned, what happened, and why.",
        answers.Report,
        others=("text/html",),
        query={"format": {"enum": ["json", "html"]}},
    ),
    ("get", "/v1/runs/{run_id}/trace"): Operation("The report as a Chrome trace, for Perfetto.", answers.Trace),
    ("post", "/v1/sessions"): Operation("Open a session.", answers.SessionOpened, Nothing, body_required=False),
    ("delete", "/v1/sessions/{session_id}"): Operation("Close a session.", answers.SessionClosed),
    ("post", "/v1/sessions/{session_id}/calls"): Operation("Submit.", answers.Submitted, SessionCalls),
    ("get", "/v1/variables/{variable_id}"): Operation(
        "Wait for a variable.", answers.VariableValue, query={"criteria": _CRITERIA}
    ),
    ("put", "/v1/variables/{variable_id}"): Operation("Set a variable.", answers.VariableSet, NewValue),
    ("post", "/tokenize"): Operation("Token ids of a prompt.", answers.Tokens, TokenizePrompt),
    ("get", "/healthz"): Operation("The server answers.", answers.Health),
    ("get", "/readyz"): Operation("Every model has an engine that takes requests.", answers.Ready, statuses=(200, 503)),
    ("get", "/metrics"): Operation("Prometheus' text format.", others=("text/plain",)),
}
