"""One request on its way through the engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from semantic_parrot.core.engine.grammar import Constraint
from semantic_parrot.core.engine.penalties import Penalties
from semantic_parrot.core.engine.residents import Marks
from semantic_parrot.core.engine.scores import Scores
from semantic_parrot.core.engine.text import TextStream
from semantic_parrot.core.engines.protocol import UNDIRECTED, Directions
from semantic_parrot.core.sampling import Sampling

#: Ranks of requests (see Directions), and the one past them: of a prefill ahead, which yields to all.
RANKS = 3
LAST = RANKS


@dataclass(slots=True, eq=False)
class Sequence:
    """`tokens`: the prompt's, then the generated ones; the last has no KV yet while it decodes."""

    id: int
    tokens: list[int]
    prompt: int  # how many of them are the prompt
    limit: int  # tokens in all at which the answer is full
    sampling: Sampling
    text: TextStream
    arrived: float  # time.monotonic() seconds, as all times below
    directions: Directions = UNDIRECTED
    ahead: bool = False  # a prefill for a request that is still to come: nothing is sampled
    ends: frozenset[int] = frozenset()  # tokens that end the answer
    penalties: Penalties | None = None
    constraint: Constraint | None = None  # what the answer must look like
    scores: Scores | None = None  # where log-probabilities were asked for

    # These fields are the planner's.
    blocks: list[int] = field(default_factory=list)
    computed: int = 0  # tokens whose KV stands in `blocks`
    long: bool = False  # computed with LongRoPE's long factors
    public: tuple[int, ...] | None = None  # the blocks of the public prefix that it begins with; None: not looked for
    cached: int | None = None  # prompt tokens that its first admission found in the prefix tree, or in its second tier
    begun: bool = False  # some of it was computed
    followed: bool = False  # a step that is under way computes one token more than `computed`
    admitted: float = 0.0
    alone: bool = False  # its logits were no numbers once: it is computed anew, and shares nothing
    held_up: float | None = None  # since when it has been preempted, passed over, paused or slowed; None: it goes on
    held: float = 0.0  # seconds that it was before
    overdue: bool = False  # that was too long: nothing holds it up any more
    marks: Marks | None = None  # those of its directions; None: not looked for
    told: float = 0.0  # as of when its directions say what to keep
    leader: Sequence | None = None  # whose prefill it waits for, to share
    common: int = 0  # tokens that it has in common with that one

    # These are the loop's.
    finite: bool = False  # its last logits were numbers, and so is the KV behind them
    first: float = 0.0  # when the first token came

    @property
    def pending(self) -> int:
        """Tokens without KV: one while it decodes, more in prefill."""
        return len(self.tokens) - self.computed

    def hold_up(self, now: float) -> None:
        """It does not go on, or not as fast as it could, for the sake of others."""
        if self.held_up is None:
            self.held_up = now

    def go_on(self, now: float) -> None:
        if self.held_up is not None:
            self.held += now - self.held_up
            self.held_up = None

    def held_for(self, now: float) -> float:
        """Seconds in all that it was held up, until now."""
        return self.held + (0.0 if self.held_up is None else now - self.held_up)

    @property
    def rank(self) -> int:
        """Who goes first, and is preempted or paused last: the lower one."""
        if self.ahead:
            return LAST
        return 0 if self.overdue else self.directions.rank

    @property
    def order(self) -> tuple[int, int, float, int]:
        """Who is admitted and filled first: the least one. What is overdue comes before all ranks, oldest first."""
        if self.overdue:
            return -1, 0, self.arrived, self.id
        return self.rank, -self.directions.priority, self.arrived + self.directions.slack, self.id
