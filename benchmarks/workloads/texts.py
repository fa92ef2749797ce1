"""Texts of a known length, seeded."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from engines.model import prompt


class Texts:
    """`words`: each is one token where a space stands before it. `count`: tokens of a text."""

    def __init__(self, words: Sequence[str], count: Callable[[str], int]) -> None:
        self._words, self.count = list(words), count

    def text(self, tokens: int, *seed: object) -> str:
        """Exactly so many tokens, where it follows a word, a line's end or nothing."""
        return prompt(self._words, tokens, *seed)


def of_model(checkpoint: Path) -> Texts:
    """For a checkpoint of `engines.model`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    return Texts(json.loads((checkpoint / "words.json").read_text()), lambda text: len(tokenizer.encode(text).ids))


class Outline(Texts):
    """For who wants to know sizes before there is a model: a constant text has as many tokens as letters, at most."""

    def __init__(self) -> None:
        super().__init__((), len)

    def text(self, tokens: int, *seed: object) -> str:
        return ""
