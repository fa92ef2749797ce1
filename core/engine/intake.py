"""From a request to a sequence; what only the model can tell of it, and refuse, is refused here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from semantic_parrot.core.engine.penalties import Penalties
from semantic_parrot.core.engine.scores import Scores
from semantic_parrot.core.engine.sequence import Sequence
from semantic_parrot.core.engine.text import TextModel
from semantic_parrot.core.engines.protocol import Directions
from semantic_parrot.core.errors import ContextOverflow, EmptyPrompt, InvalidRequest
from semantic_parrot.core.request import ModelRequest
from semantic_parrot.core.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Intake:
    """`context`: prompt and output together, in tokens. `vocabulary`: tokens that have a logit. `held`: tokens that the
    KV cache holds."""

    text: TextModel
    context: int
    vocabulary: int
    held: int

    def tokens(self, request: ModelRequest) -> list[int]:
        """Of its prompt, on any thread. Raises EmptyPrompt, and InvalidRequest as `TextModel.encode` does."""
        if not request.content:
            raise EmptyPrompt("the prompt is empty")
        return self.text.encode(request.content, request.tools)

    def sequence(
        self,
        id: int,
        request: ModelRequest,
        tokens: list[int],
        arrived: float,
        directions: Directions,
        eos: frozenset[int],
    ) -> Sequence:
        """`tokens`: of its prompt. `eos`: the model's own that end an answer.

        Raises ContextOverflow, InvalidRequest."""
        sampling = request.sampling
        self._refuse_unknown("logit_bias", (token for token, _ in sampling.logit_bias))
        self._refuse_unknown("stop_token_ids", sampling.stop_token_ids)
        limit = self._limit(len(tokens), sampling)
        ends = frozenset(sampling.stop_token_ids) | (frozenset() if sampling.ignore_eos else eos)
        stream = self.text.stream(sampling.stop, calls=request.tools is not None)
        sequence = Sequence(id, tokens, len(tokens), limit, sampling, stream, arrived, directions, ends=ends)
        if sampling.logprobs is not None:
            sequence.scores = Scores(sampling.logprobs, self.text.vocabulary)
        if Penalties.needed(sampling):
            sequence.penalties = Penalties(sampling, tokens, ends)
        return sequence

    def _limit(self, length: int, sampling: Sampling) -> int:
        """Tokens at which a prompt of `length` with its answer is full."""
        bound = f"the model's context of {self.context}"
        if self.context >= self.held:
            bound = f"the {self.held} tokens that the KV cache holds"
        if length >= self.context:
            # LangChain knows an overflow by these first words.
            raise ContextOverflow(f"the prompt is too long: it has {length} tokens, which leaves no room in {bound}")
        for name, room in (("max_tokens", sampling.max_tokens), ("min_tokens", sampling.min_tokens)):
            if room is not None and length + room > self.context:
                raise ContextOverflow(
                    f"the prompt is too long: its {length} tokens and {name} {room} exceed {bound}",
                    where=name,
                )
        return self.context if sampling.max_tokens is None else length + sampling.max_tokens

    def _refuse_unknown(self, field: str, tokens: Iterable[int]) -> None:
        for token in tokens:
            if token >= self.vocabulary:
                message = f"{field}: the model has {self.vocabulary} tokens, and none with the id {token}"
                raise InvalidRequest(message, where=field)
