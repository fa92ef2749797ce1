"""What a run tells its client, in order; the claim protocol (docs/architecture.md) rests on this order.

`call.ready` (or `call.aborted`) of every consumer comes *before* its producer's `call.finished`: a client that
has a result in hand knows already which requests follow from it, so a claim is a look-up and never a race.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Status = Literal["queued", "running", "finished", "failed", "cancelled"]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Timings(_Event):
    """Seconds. `ready`: from the run's start until the call had its inputs; then, one after the other, `queued`: to
    the engine's admission, `prefill`: to the first token, `decode`: to the last."""

    ready: float = 0.0
    queued: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0


class Prefix(_Event):
    """`tokens`: of the prompt, expected to be resident where the call went. `calls`: that were to share its longest
    shared prefix when it became ready (the first few ids), `count` in all, itself included."""

    tokens: int = 0
    count: int = 0
    calls: list[str] = []


class Schedule(_Event):
    """How the call was scheduled. `because`: whose objective it has. `task_group`, `group_size`: the parallel calls it
    belongs to. `why`: of the choice of `engine`. `predicted`: seconds from dispatch to the end, to hold against the sum
    of the real prefill and decode. `single_flight`: it shared the execution of an equal call."""

    objective: str
    because: str
    task_group: int | None = None
    group_size: int = 1
    prefix: Prefix = Prefix()
    engine: str = ""
    why: str = ""
    predicted: float = 0.0
    real: float = 0.0
    single_flight: bool = False


class RunStarted(_Event):
    type: Literal["run.started"] = "run.started"
    id: str


class CallReady(_Event):
    """Every input of the call has arrived: the server executes the request that `content_key` names."""

    type: Literal["call.ready"] = "call.ready"
    id: str
    content_key: str


class CallAborted(_Event):
    """The call will never run, because of `reason`; nothing can be claimed from it."""

    type: Literal["call.aborted"] = "call.aborted"
    id: str
    reason: str


class VariableDelta(_Event):
    """More text of the variable that call `id` produces. `logprobs`: of its tokens, in the shape of a chunk of the
    call's response, if the call asks for them."""

    type: Literal["variable.delta"] = "variable.delta"
    id: str
    variable: str
    text: str
    logprobs: dict[str, Any] | None = None


class CallFinished(_Event):
    """`response` is the whole OpenAI response body."""

    type: Literal["call.finished"] = "call.finished"
    id: str
    content_key: str
    response: dict[str, Any]
    timings: Timings
    schedule: Schedule | None = None


class CallFailed(_Event):
    """`body` is the OpenAI error body that an eager call would have got with HTTP `status`."""

    type: Literal["call.failed"] = "call.failed"
    id: str
    content_key: str
    status: int
    body: dict[str, Any]


class RunUsage(_Event):
    """What a run has taken. `calls`: executions that it paid for, finished or not; `cached_tokens`: the part of its
    prompt tokens that was reused. `shared_calls`, `shared_tokens` (prompt and completion): of equal calls that ran for
    somebody else, who paid for them. `cost`: by the configured prices; None if one of them is missing."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    calls: int = 0
    shared_calls: int = 0
    shared_tokens: int = 0
    cost: float | None = None


class RunFinished(_Event):
    type: Literal["run.finished"] = "run.finished"
    id: str
    status: Status
    outputs: dict[str, Any]
    errors: dict[str, dict[str, Any]]
    usage: RunUsage = RunUsage()


Event = RunStarted | CallReady | CallAborted | VariableDelta | CallFinished | CallFailed | RunFinished

_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])


def parse(data: str | bytes) -> Event:
    """The event in one SSE `data` field. Raises pydantic.ValidationError for anything else."""
    return _EVENT.validate_json(data)
