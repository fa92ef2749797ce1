"""What the core asks of an engine. `core.engines.native` runs our own in a process; tests script one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Hashable
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from semantic_parrot.core.events import Timings
from semantic_parrot.core.logprobs import TokenLogprob
from semantic_parrot.core.request import Message, ModelRequest
from semantic_parrot.core.tools import CallDelta, ToolCall


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """`names`: what requests may call the model, the first one canonical. `context`: prompt + output, in tokens."""

    names: tuple[str, ...]
    context: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens. `cached` is the part of `prompt` that was reused from the prefix tree rather than computed."""

    prompt: int
    cached: int
    completion: int

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt + other.prompt, self.cached + other.cached, self.completion + other.completion)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.prompt - other.prompt, self.cached - other.cached, self.completion - other.completion)


@dataclass(frozen=True, slots=True)
class Delta:
    """More text of the answer, or more of the tool calls in it. `usage`: of the whole request so far, if the engine
    says. `index`: of the choice. `logprobs`: of the tokens that begin in `text`, where they were asked for."""

    text: str
    usage: Usage | None = None
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    calls: tuple[CallDelta, ...] = ()


@dataclass(frozen=True, slots=True)
class Placed:
    """Where and why an answer was made there. Predicted for it: `seconds`, and tokens of `prompt` (of them `cached` to
    be found there) and `output`. `room`: how many of the `engines` had room for it; `together`: how many calls were
    placed as one. `shared`: it was made for an equal call, which was under way. With `engines` 0, of these only engine,
    `why`, `cached`, `seconds` and `shared` are known any more."""

    engine: str
    why: str
    cached: float
    seconds: float
    shared: bool = False
    prompt: float = 0.0
    output: float = 0.0
    room: int = 1
    engines: int = 1
    together: int = 1


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer: its text and tool calls, and `reason` "stop", "length" or "tool_calls", as OpenAI's finish_reason.
    `logprobs`: of each of its tokens, if they were asked for."""

    text: str
    reason: str
    logprobs: tuple[TokenLogprob, ...] | None = None
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The end of an answer: of its first choice, as in Choice, and the `others` that were asked for. `usage`: of all of
    them, the prompt counted once. `placed` is the scheduler's, not the engine's."""

    text: str
    reason: str
    usage: Usage
    timings: Timings = field(default_factory=Timings)
    placed: Placed | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    others: tuple[Choice, ...] = ()
    calls: tuple[ToolCall, ...] = ()

    @property
    def choices(self) -> tuple[Choice, ...]:
        return (Choice(self.text, self.reason, self.logprobs, self.calls), *self.others)


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters since the start, but for the gauges: `kv_blocks_used` (held by live sequences), `kv_blocks_cached`
    (resident in the prefix tree, free to be evicted), `kv_blocks_offloaded` (evicted, and kept in the second tier),
    `kv_blocks_total`, `running` and `waiting` sequences. `kv_blocks_restored`: copied back from the second tier."""

    prompt_tokens_computed: int = 0
    prompt_tokens_reused: int = 0
    generated_tokens: int = 0
    steps: int = 0
    kv_blocks_used: int = 0
    kv_blocks_cached: int = 0
    kv_blocks_offloaded: int = 0
    kv_blocks_restored: int = 0
    kv_blocks_total: int = 0
    running: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class CachedPrefix:
    """A stretch of tokens in the prefix tree that does not branch: `blocks` hold it, `sequences` read its beginning.
    `text`: how it begins, if that was asked for. Of its `branches` the last used ones; `more` are not told."""

    tokens: int
    blocks: int
    sequences: int
    text: str = ""
    branches: tuple[CachedPrefix, ...] = ()
    more: int = 0


@runtime_checkable
class Outlined(Protocol):
    """An engine that can tell what is in its prefix tree."""

    async def outline(self, *, text: bool) -> tuple[CachedPrefix, ...]:
        """The last used prefixes, `text` with how they begin. Raises EngineFailed."""
        ...


@runtime_checkable
class Elastic(Protocol):
    """An engine that comes and goes with the load."""

    def scale_by(self, waiting: Callable[[], int]) -> None:
        """`waiting` says how many calls wait for an engine of its model."""
        ...


#: What an engine may be able to do beyond answering. The scheduler's optimisations that need an ability it lacks have
#: no effect there, which is said at start-up.
#: "salt" is none of these: it obeys Directions.salt, without which it can't serve several tenants.
Ability = Literal["preemption", "prefill-ahead", "retention", "salt"]


#: A next use of which nothing is known: least recently used goes first.
UNSAID = -1e9


@dataclass(frozen=True, slots=True)
class Keep:
    """The first `share` (0 to 1) of a prompt's text, past what a shorter one says, is read again at about `next_use`
    (time.monotonic() seconds; None: by nobody that is known, and nothing suggests that anybody will). A time well
    past, such as UNSAID, says nothing."""

    share: float
    next_use: float | None


@dataclass(frozen=True, slots=True)
class Mark:
    """The first `share` (0 to 1) of a prompt's text is the prefix that the scheduler calls `name`."""

    share: float
    name: int


@dataclass(frozen=True, slots=True)
class PrefixChange:
    """Prefixes, by the names of their marks, that an engine holds since it last told, and that it holds no more."""

    added: tuple[int, ...]
    evicted: tuple[int, ...]


@runtime_checkable
class Telling(Protocol):
    """An engine that tells what becomes of the prefixes whose marks it is given (`Directions.marks`): so routing goes
    by what is there. What other engines hold is guessed from what they were sent."""

    def watch_prefixes(self, told: Callable[[PrefixChange], None]) -> None:
        """`told` is called soon after each change, with several at a time. All is gone when the engine goes down,
        which is not told here."""
        ...


@dataclass(frozen=True, slots=True)
class Directions:
    """What the scheduler asks of the engine for one request; no answer depends on it.

    `salt`: what is cached of this request is for those of the same salt and for nobody else.

    `rank`: 0 latency, 1 deadline, 2 throughput; a lower one goes first, and may preempt a higher. `cap`: while this
    request runs, at most so many sequences decode together; those of a higher rank pause. `keep`: how long the KV of
    its prompt is worth keeping, shortest prefix first.

    Of one rank, the higher `priority` is admitted and filled first, then the earlier latest start: `slack` is the time
    from now until then, in seconds (negative: it is late), so that it means the same on any clock.

    `marks`: the prefixes of its prompt, shortest first, for an engine that tells which it holds (`Telling`).

    `feeds`: names of calls that are ready once this request and others that run have ended: they follow at once.
    """

    rank: int = 0
    cap: int | None = None
    keep: tuple[Keep, ...] = ()
    priority: int = 0
    slack: float = 0.0
    salt: str = ""
    marks: tuple[Mark, ...] = ()
    feeds: tuple[str, ...] = ()


#: Of a request that nobody schedules.
UNDIRECTED = Directions()


class Engine(Protocol):
    """Fills prompts and generates tokens. Owned by the event loop: every method is called there.

    `window` is how many requests the scheduler may have in flight here at once; with the ability "preemption", as many
    of rank 0, whatever else is there.
    """

    name: str
    window: int
    abilities: frozenset[Ability]

    @property
    def model(self) -> ModelInfo: ...

    @property
    def healthy(self) -> bool:
        """False while the engine can take no requests (it died and is being restarted)."""
        ...

    @property
    def trouble(self) -> str:
        """Why it is not healthy, in a line; "" if it is."""
        ...

    @property
    def coming(self) -> bool:
        """Unhealthy, and expected back by itself: where a model has other engines too, its calls wait for it rather
        than be refused."""
        ...

    def watch(self, told: Callable[[], None]) -> None:
        """`told` is called after each change of `healthy` or `coming`."""
        ...

    async def start(self) -> None:
        """Load the model. Raises ModelLoadError with one clear line; NotUp, if the engine may be kept all the same."""
        ...

    async def close(self) -> None:
        """Stop; requests in flight end with EngineFailed."""
        ...

    def check(self, request: ModelRequest) -> None:
        """Raises Unsupported, by name, for an option that no request here can have."""
        ...

    def generate(
        self, request: ModelRequest, directions: Directions = UNDIRECTED
    ) -> AsyncGenerator[Delta | Done, None]:
        """Zero or more Delta of each choice, then one Done. Closing the generator cancels the request. `directions` are
        hints.

        Raises ContextOverflow, EmptyPrompt or EngineFailed.
        """
        ...

    def prefill(self, key: Hashable, request: ModelRequest | None, keep: tuple[Keep, ...] = (), salt: str = "") -> None:
        """Fill what is known of a request that is still to come, up to the first UNKNOWN in its text, in idle time;
        `keep`, `salt`: as in Directions, of that beginning.

        A hint: it returns at once and changes no answer. It replaces an earlier one with the same `key`; `request`
        None takes that back. An engine that can't ignores it.
        """
        ...

    async def tokenize(self, content: str | tuple[Message, ...]) -> list[int]:
        """Token ids of a text, or of messages as the chat template renders them for generation."""
        ...

    async def stats(self) -> Stats: ...

    async def forget_prefixes(self) -> None:
        """Drop every cached prefix that no live sequence holds: for measurements that must start cold."""
        ...


class ModelLoadError(Exception):
    """The model can't be served: a missing, truncated or unsupported directory. The message is one line."""


class NotUp(ModelLoadError):
    """The engine is down, and is looked after from now on: it may be up later."""
