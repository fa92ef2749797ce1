"""What the server process and the engine process say to each other: one JSON list of messages a line, no pickle.

Imported on both sides, so nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from semantic_parrot.core.engines.protocol import (
    UNDIRECTED,
    CachedPrefix,
    Directions,
    Done,
    Keep,
    PrefixChange,
    Stats,
    Usage,
)
from semantic_parrot.core.logprobs import TokenLogprob
from semantic_parrot.core.request import Message, ModelRequest


@dataclass(frozen=True, slots=True)
class Options:
    """How an engine process is set up; see `core.engines.native.NativeEngine` for the fields. `runtime`: what computes
    the model (see `core.engine.process`)."""

    model_dir: str
    runtime: Literal["torch", "openvino"] = "torch"
    deterministic: bool = False
    threads: int = 1
    kv_tokens: int | None = None
    kv_offload_tokens: int | None = None
    max_batch: int = 64
    chunk: int = 512
    prefix_cache: bool = True
    dtype: str = "auto"
    device: str = "auto"
    kernels: str = "auto"
    overlap: bool | None = None
    public: tuple[ModelRequest, ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """The first message to the engine."""

    options: Options
    kind: Literal["load"] = "load"


@dataclass(frozen=True, slots=True)
class Generate:
    """`arrived`: time.monotonic() of the sender, which the processes of one machine share."""

    id: int
    request: ModelRequest
    arrived: float
    directions: Directions = UNDIRECTED
    kind: Literal["generate"] = "generate"


@dataclass(frozen=True, slots=True)
class Prefill:
    """Fill the beginning of `request`, up to the first UNKNOWN in it, ahead of the request itself, in idle time.
    `keep`, `salt`: as in Directions, of that beginning.

    It has no reply. It replaces an earlier one with its id, and Cancel ends it.
    """

    id: int
    request: ModelRequest
    keep: tuple[Keep, ...] = ()
    salt: str = ""
    kind: Literal["prefill"] = "prefill"


@dataclass(frozen=True, slots=True)
class Cancel:
    id: int
    kind: Literal["cancel"] = "cancel"


@dataclass(frozen=True, slots=True)
class Tokenize:
    id: int
    content: str | tuple[Message, ...]
    kind: Literal["tokenize"] = "tokenize"


@dataclass(frozen=True, slots=True)
class GetStats:
    id: int
    kind: Literal["stats"] = "stats"


@dataclass(frozen=True, slots=True)
class ForgetPrefixes:
    """Answered by a Report, as GetStats is."""

    id: int
    kind: Literal["forget_prefixes"] = "forget_prefixes"


@dataclass(frozen=True, slots=True)
class GetOutline:
    """Of the prefix tree; answered by an Outlined. `text`: with how prefixes begin."""

    id: int
    text: bool
    kind: Literal["outline"] = "outline"


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded; `context` in tokens. `calls`: the format of its tool calls, if that is known."""

    context: int
    calls: str | None = None
    kind: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True)
class Refused:
    """The model can't be served, in one line; the process ends."""

    message: str
    kind: Literal["refused"] = "refused"


@dataclass(frozen=True, slots=True)
class Text:
    """More text of request `id`, which has taken `usage` so far. `logprobs`: see Delta."""

    id: int
    text: str
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] = ()
    kind: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class Finished:
    id: int
    done: Done
    kind: Literal["finished"] = "finished"


@dataclass(frozen=True, slots=True)
class Failed:
    """Request `id` ended with the error of core/errors.py that `code` names."""

    id: int
    code: str
    message: str
    where: str | None = None
    kind: Literal["failed"] = "failed"


@dataclass(frozen=True, slots=True)
class Tokens:
    id: int
    tokens: list[int]
    kind: Literal["tokens"] = "tokens"


@dataclass(frozen=True, slots=True)
class Report:
    id: int
    stats: Stats
    kind: Literal["report"] = "report"


@dataclass(frozen=True, slots=True)
class Outlined:
    id: int
    prefixes: tuple[CachedPrefix, ...]
    kind: Literal["outlined"] = "outlined"


@dataclass(frozen=True, slots=True)
class PrefixesChanged:
    """The answer to no command. See `core.engines.protocol.Telling`."""

    change: PrefixChange
    kind: Literal["prefixes"] = "prefixes"


Command = Load | Generate | Prefill | Cancel | Tokenize | GetStats | GetOutline | ForgetPrefixes
Reply = Ready | Refused | Text | Finished | Failed | Tokens | Report | Outlined | PrefixesChanged


@cache
def _commands() -> TypeAdapter[list[Command]]:
    return TypeAdapter(list[Annotated[Command, Field(discriminator="kind")]])


@cache
def _replies() -> TypeAdapter[list[Reply]]:
    return TypeAdapter(list[Annotated[Reply, Field(discriminator="kind")]])


def _line(adapter: TypeAdapter[Any], messages: Sequence[Any]) -> bytes:
    return adapter.dump_json(list(messages)) + b"\n"


def encode_commands(commands: Sequence[Command]) -> bytes:
    return _line(_commands(), commands)


def encode_replies(replies: Sequence[Reply]) -> bytes:
    return _line(_replies(), replies)


def decode_commands(line: bytes) -> list[Command]:
    return _commands().validate_json(line)


def decode_replies(line: bytes) -> list[Reply]:
    return _replies().validate_json(line)
