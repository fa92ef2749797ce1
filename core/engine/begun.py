"""The tokens of a prompt's beginning, which grows at its end: what is new is tokenised, and a little before it.

All of it is a hint: the prompt itself is tokenised whole, and what was filled is found as far as its tokens agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from semantic_parrot.core.engine.prefix_node import common

#: Characters at the end of a text in which a further character may change the tokens; some that may follow.
TAIL = 64
GOING_ON = ("a", " a", "\n\n", "1", ".")


@dataclass(frozen=True, slots=True)
class Begun:
    """A text and its tokens, of which `stable` stay whatever may follow; the last ones may come out otherwise."""

    text: str
    tokens: list[int]
    stable: int

    @property
    def sure(self) -> list[int]:
        return self.tokens[: self.stable]


def begin(
    text: str,
    before: Begun | None,
    whole: Callable[[str], list[int]],
    parts: Callable[[list[str]], list[list[int]]],
) -> Begun:
    """`before`: what was found for a beginning of `text`, or for any other text. `whole` tokenises a text, and `parts`
    pieces of one."""
    tokens = _grown(text, before, parts) or whole(text)
    tail = text[-TAIL:]
    own, *longer = parts([tail, *(tail + more for more in GOING_ON)])
    stable = min(common(own, other) for other in longer)
    return Begun(text, tokens, max(len(tokens) - (len(own) - stable), 0))


def _grown(text: str, before: Begun | None, parts: Callable[[list[str]], list[list[int]]]) -> list[int] | None:
    """The tokens of `text` from those of its beginning; None where the end of that, alone, has other tokens."""
    if before is None or not text.startswith(before.text):
        return None
    tail = before.text[-TAIL:]
    old, new = parts([tail, tail + text[len(before.text) :]])
    # The tail may begin within a word, so its first tokens are its own; the latter half must be those of the whole.
    half, at, kept = len(old) // 2, len(before.tokens) - len(old), common(old, new)
    if at < 0 or kept <= half or before.tokens[at + half :] != old[half:]:
        return None
    return before.tokens[: at + kept] + new[kept:]
