"""A call whose engine was lost is run again on another one, and its caller notices nothing."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from semantic_parrot.core.engines.protocol import Delta, Done, Usage
from semantic_parrot.core.errors import EngineFailed
from semantic_parrot.core.usage import NOTHING, Payer

#: Times that one call is executed, at most: it may be what its engines die of. Where they die of something else, and a
#: fifth of all executions is lost (benchmarks/soak_fleet.py), one call in 10^7 is lost so often.
ATTEMPTS = 10


class Told:
    """What the caller was told of each choice, and can't be taken back: an answer that is made again must begin with
    it. Tool calls and log-probabilities can't be resumed once any were told. `engine`: that tells now."""

    def __init__(self) -> None:
        self.engine: int | None = None
        self._parts: defaultdict[int, list[str]] = defaultdict(list)
        self._before: dict[int, str] = {}  # by choice, what this attempt has to say again
        self._at: dict[int, int] = {}  # characters of it that it has said
        self._whole = True

    @property
    def resumable(self) -> bool:
        return self._whole or not self._parts

    def again(self) -> None:
        """Another attempt begins."""
        self._before = {index: self._text(index) for index in self._parts}
        self._at = dict.fromkeys(self._before, 0)

    def new(self, item: Delta | Done) -> Delta | Done | None:
        """`item` without what was told before; None: that is nothing. Raises EngineFailed where it says something
        else."""
        if isinstance(item, Done):
            for index, choice in enumerate(item.choices):
                if not choice.text.startswith(self._text(index)):
                    self._differs(index)
            return item
        at, before = self._at.get(item.index, 0), self._before.get(item.index, "")
        if at < len(before):
            repeated, fresh = item.text[: len(before) - at], item.text[len(before) - at :]
            if not before.startswith(repeated, at):
                self._differs(item.index)
            self._at[item.index] = at + len(repeated)
            if not fresh:
                return None
            item = replace(item, text=fresh)
        self._parts[item.index].append(item.text)
        self._whole = self._whole and not item.calls and not item.logprobs
        return item

    def _text(self, index: int) -> str:
        return "".join(self._parts[index])

    def _differs(self, index: int) -> None:
        message = f"the engine was lost after {len(self._text(index))} characters, and another one answers otherwise"
        raise EngineFailed(message)


class Bill:
    """What all attempts of one call take, told to its payer: once, and not again for what is made again."""

    def __init__(self, payer: Payer) -> None:
        self._payer = payer
        self._told = NOTHING
        self._began = False

    def began(self) -> None:
        if not self._began:
            self._began = True
            self._payer.began()

    def took(self, usage: Usage) -> None:
        """`usage`: of the present attempt so far."""
        told = self._told
        if usage.prompt == told.prompt and usage.cached == told.cached:  # a token more, as a rule
            if usage.completion > told.completion:
                self._told = usage
                self._payer.took(Usage(0, 0, usage.completion - told.completion))
            return
        prompt, cached = (usage.prompt, usage.cached) if usage.prompt > told.prompt else (told.prompt, told.cached)
        now = Usage(prompt, cached, max(usage.completion, told.completion))
        if now != told:
            self._payer.took(now - told)
            self._told = now
