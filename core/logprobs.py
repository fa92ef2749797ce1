"""Log-probabilities of an answer's tokens, and OpenAI's shapes for them.

They are those of the model's own distribution: before temperature, penalties, biases, masks and cuts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: Instead of minus infinity, which JSON lacks.
LOWEST = -9999.0


@dataclass(frozen=True, slots=True)
class Ranked:
    """A token that could have come: its text, its bytes (a token may be part of a character), its log-probability."""

    token: str
    bytes: tuple[int, ...]
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob(Ranked):
    """A token of the answer. `offset`: characters of the answer before it, or before the character it is a
    part of. `top`: the likeliest at its place."""

    offset: int
    top: tuple[Ranked, ...]


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """The `logprobs` of a choice of a chat completion."""
    content = [{**_entry(t), "top_logprobs": [_entry(other) for other in t.top]} for t in tokens]
    return {"content": content, "refusal": None}


def completion_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """The `logprobs` of a choice of a completion: a token's own stands among the likeliest, wherever it ranks."""
    return {
        "tokens": [t.token for t in tokens],
        "token_logprobs": [t.logprob for t in tokens],
        "top_logprobs": [_by_text((*t.top, t)) for t in tokens],
        "text_offset": [t.offset for t in tokens],
    }


def _by_text(ranked: Sequence[Ranked]) -> dict[str, float]:
    """Likeliest first. Of tokens with one text (parts of characters), the likeliest stands for all."""
    found: dict[str, float] = {}
    for one in sorted(ranked, key=lambda one: -one.logprob):
        found.setdefault(one.token, one.logprob)
    return found


def _entry(ranked: Ranked) -> dict[str, Any]:
    return {"token": ranked.token, "logprob": ranked.logprob, "bytes": list(ranked.bytes)}
