"""Requests that wait for their grammar: compiled beside the loop, which runs everybody else meanwhile."""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from semantic_parrot.core.engine.grammar import Grammars
from semantic_parrot.core.engine.sequence import Sequence
from semantic_parrot.core.errors import InvalidRequest
from semantic_parrot.core.grammar import Grammar

#: Seconds that a grammar may take.
COMPILING = 10.0
#: Seconds for which a loop that has nothing else to do waits for one at most: it hears no commands meanwhile.
WAITING = 0.05


class Compiling:
    """Owned by the loop's thread."""

    def __init__(self, grammars: Grammars) -> None:
        self._grammars = grammars
        self._waiting: dict[int, tuple[Sequence, Grammar, Future[Any], float]] = {}

    def add(self, sequence: Sequence, grammar: Grammar) -> None:
        future = self._grammars.compile(grammar, sequence.directions.salt)
        self._waiting[sequence.id] = sequence, grammar, future, time.monotonic() + COMPILING

    def remove(self, id: int) -> bool:
        """Whether it was here."""
        return self._waiting.pop(id, None) is not None

    def ready(self, eos: frozenset[int]) -> list[tuple[Sequence, InvalidRequest | None]]:
        """The sequences that wait no more: those with a constraint, and those whose grammar is refused."""
        found: list[tuple[Sequence, InvalidRequest | None]] = []
        for id, (sequence, grammar, future, until) in list(self._waiting.items()):
            error: InvalidRequest | None = None
            if future.done():
                try:
                    ignore = sequence.sampling.ignore_eos
                    compiled = future.result()
                    sequence.constraint = self._grammars.constraint(compiled, grammar, eos, ignore_eos=ignore)
                except InvalidRequest as refusal:
                    error = refusal
            elif time.monotonic() > until:
                error = InvalidRequest("the grammar takes too long to compile", where=grammar.where)
            else:
                continue
            del self._waiting[id]
            found.append((sequence, error))
        return found

    def wait(self) -> None:
        """Until one is ready, or a moment has passed."""
        wait([future for _, _, future, _ in self._waiting.values()], WAITING, FIRST_COMPLETED)
