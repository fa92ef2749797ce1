"""How the next tokens are chosen: the options of a request, each obeyed or refused by name.

OpenAI's names where it has one, else vLLM's. What neither has, and what is not served, is an unknown field.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from semantic_parrot.core.errors import InvalidRequest

#: Choices that one request may have.
MOST_CHOICES = 16

_TokenId = Annotated[int, Field(ge=0, lt=2**31)]
_TokenKey = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,8})$")]


@dataclass(frozen=True, slots=True)
class Sampling:
    """`max_tokens` None means up to the model's context. `temperature` 0 is greedy. `top_k` 0: all tokens.
    `logit_bias`: (token, what is added to its logit). `logprobs`: how many of the likeliest tokens are told beside each
    token's own log-probability; None: nothing is told. `n`: choices, each an answer of its own."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    min_tokens: int = 0
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    n: int = 1

    def choices(self) -> tuple[Sampling, ...]:
        """What each choice is sampled by: the first with the request's own seed, the others with seeds that follow from
        it. Greedy choices are equal."""
        return tuple(replace(self, n=1, seed=_seed(self.seed, i)) for i in range(self.n))

    @property
    def penalised(self) -> bool:
        """Whether logits depend on the tokens before them."""
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1, 0, 0)

    @property
    def cut(self) -> bool:
        """Whether unlikely tokens are left out."""
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0


class Options(BaseModel):
    """The fields of a body that say how to sample."""

    model_config = ConfigDict(extra="forbid", strict=True)

    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    # From outside these bounds logits would overflow, and nothing be left to choose from.
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: (
        Annotated[
            dict[_TokenKey, Annotated[float, Field(ge=-100, le=100)]],
            Field(json_schema_extra={"additionalProperties": False}),
        ]
        | None
    ) = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    stop_token_ids: Annotated[list[_TokenId], Field(max_length=128)] | None = None
    ignore_eos: bool = False
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None

    def logprobs_wanted(self) -> int | None:
        """See Sampling.logprobs; the two kinds of bodies say it in two ways."""
        return None

    def sampling(self, max_tokens: int | None) -> Sampling:
        """`max_tokens`: the request's, or its default. Raises InvalidRequest where options contradict each other."""
        if max_tokens is not None and (self.min_tokens or 0) > max_tokens:
            message = f"min_tokens {self.min_tokens} is more than max_tokens, which is {max_tokens}"
            raise InvalidRequest(message, where="min_tokens")
        stop = () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        return Sampling(
            temperature=_given(self.temperature, 1.0),
            top_p=_given(self.top_p, 1.0),
            seed=secrets.randbits(63) if self.seed is None else self.seed,
            max_tokens=max_tokens,
            stop=tuple(s for s in stop if s),
            ignore_eos=self.ignore_eos,
            top_k=max(self.top_k or 0, 0),
            min_p=_given(self.min_p, 0.0),
            repetition_penalty=_given(self.repetition_penalty, 1.0),
            presence_penalty=_given(self.presence_penalty, 0.0),
            frequency_penalty=_given(self.frequency_penalty, 0.0),
            logit_bias=tuple((int(token), float(bias)) for token, bias in (self.logit_bias or {}).items()),
            min_tokens=self.min_tokens or 0,
            stop_token_ids=tuple(dict.fromkeys(self.stop_token_ids or ())),
            logprobs=self.logprobs_wanted(),
            n=self.n or 1,
        )


def _given(value: float | None, default: float) -> float:
    return default if value is None else float(value)


def _seed(seed: int, choice: int) -> int:
    if choice == 0:
        return seed
    digest = hashlib.blake2b(choice.to_bytes(8, "little"), key=seed.to_bytes(8, "little", signed=True), digest_size=8)
    return int.from_bytes(digest.digest(), "little") >> 1
