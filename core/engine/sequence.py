"""One request on its way through the engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from semantic_parrot.core.engine.grammar import Constraint
from semantic_parrot.core.engine.penalties import Penalties
from semantic_parrot.core.engine.text import TextStream
from semantic_parrot.core.engines.protocol import UNDIRECTED, Directions
from semantic_parrot.core.sampling import Sampling


@dataclass(slots=True, eq=False)
class Sequence:
    """`tokens`: the prompt's, then the generated ones; the last has no KV yet while it decodes."""

    id: int
    tokens: list[int]
    prompt: int  # how many of them are the prompt
    limit: int  # tokens in all at which the answer is full
    sampling: Sampling
    text: TextStream
    arrived: float  # time.monotonic() seconds, as the two below
    directions: Directions = UNDIRECTED
    ahead: bool = False  # a prefill for a request that is still to come: nothing is sampled
    ends: frozenset[int] = frozenset()  # tokens that end the answer
    penalties: Penalties | None = None
    constraint: Constraint | None = None  # what the answer must look like

    # These fields are the planner's.
    blocks: list[int] = field(default_factory=list)
    computed: int = 0  # tokens whose KV stands in `blocks`
    long: bool = False  # computed with LongRoPE's long factors
    cached: int | None = None  # prompt tokens that its first admission found in the prefix tree
    admitted: float = 0.0
    alone: bool = False  # its logits were no numbers once: it is computed anew, and shares nothing

    # These are the loop's.
    finite: bool = False  # its last logits were numbers, and so is the KV behind them
    first: float = 0.0  # when the first token came

    @property
    def pending(self) -> int:
        """Tokens without KV: one while it decodes, more in prefill."""
        return len(self.tokens) - self.computed
