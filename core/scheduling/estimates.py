"""What a call will take, before it runs: for one model, learned from the calls that ended."""

from __future__ import annotations

from semantic_parrot.core.analysis.lengths import Lengths
from semantic_parrot.core.analysis.pieces import Skeleton
from semantic_parrot.core.scheduling.costs import DECAY, CostModel

#: Tokens per character before any prompt was counted by an engine.
PER_CHARACTER = 0.25


class Estimates:
    def __init__(self) -> None:
        self.lengths = Lengths()
        self.costs = CostModel()
        self.per_character = PER_CHARACTER
        self._tokens = self._chars = 0.0

    def output(self, skeleton: Skeleton, mark: int = 0) -> float:
        """Tokens of the answer. `mark`: of the tenant, whose own answers they are expected from."""
        return self.lengths.expect(skeleton.site ^ mark, skeleton.limit, exact=skeleton.exact)

    def seconds(self, skeleton: Skeleton, mark: int = 0) -> float:
        """On an idle engine, of a call whose variables may be unknown yet: their text is not counted."""
        costs = self.costs
        return skeleton.constant * self.per_character * costs.prefill + self.output(skeleton, mark) * costs.step(1)

    def saw(self, site: int, chars: int, prompt: int, completion: int) -> None:
        """A call ended: `chars` of prompt were `prompt` tokens, and its answer had `completion`."""
        self.lengths.observe(site, completion)
        if chars and prompt:
            self._tokens = self._tokens * DECAY + prompt
            self._chars = self._chars * DECAY + chars
            self.per_character = self._tokens / self._chars
