"""Where the texts of a prompt came from: values that calls have made, recognised when they come back in another one.

A hint for the server's reports, by which no answer changes: a text may be the same by chance.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Any

from semantic_parrot.core.program import Program, Source
from semantic_parrot.core.wire import TEMPLATE

#: Characters: shorter values come back by chance, longer ones are not searched for.
SHORTEST, LONGEST = 24, 65_536
#: Values that are remembered; of them, the newest are searched for inside longer texts; sources that are named.
REMEMBERED, SEARCHED, NAMED = 512, 32, 16
#: Characters of a call's id: a server that gives longer ones is told nothing of it.
NAME = 1024


class Origins:
    """Of the values of one process. `place`: whose they are; what came from elsewhere is not recognised.
    Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: OrderedDict[tuple[Hashable, str], Source] = OrderedDict()

    @property
    def empty(self) -> bool:
        return not self._values

    def remember(self, place: Hashable, value: object, run: str | None, call: str) -> None:
        """Call `call` of `run` has made `value`; None: it came alone, and `call` is the id of its answer."""
        if not isinstance(value, str) or not SHORTEST <= len(value.strip()) <= LONGEST or not 0 < len(call) <= NAME:
            return
        with self._lock:
            self._values[place, value.strip()] = Source(run=run, call=call)
            self._values.move_to_end((place, value.strip()))
            if len(self._values) > REMEMBERED:
                self._values.popitem(last=False)

    def sources(self, place: Hashable, request: Any) -> list[Source]:
        """The calls whose values stand in the texts of `request` (JSON)."""
        found: dict[Source, None] = {}
        with self._lock:
            newest = [(value, source) for (owner, value), source in _newest(self._values, SEARCHED) if owner == place]
        for text in _texts(request):
            whole = self._values.get((place, text.strip()))
            if whole is not None:
                found[whole] = None
                continue
            if len(text) > LONGEST:
                continue
            for value, source in newest:
                if len(value) < len(text) and value in text:
                    found[source] = None
        return list(found)[:NAMED]

    def told(self, place: Hashable, program: Program) -> Program:
        """`program` with its `parrot.sources`."""
        if self.empty:
            return program
        named = {call.id: found for call in program.calls if (found := self.sources(place, call.request))}
        if not named:
            return program
        return program.model_copy(update={"parrot": program.parrot.model_copy(update={"sources": named})})


def _newest(values: OrderedDict[Any, Source], most: int) -> Iterator[tuple[Any, Source]]:
    for key, _ in zip(reversed(values), range(most), strict=False):
        yield key, values[key]


def _texts(request: Any) -> Iterator[str]:
    """Of messages or of a prompt: what might hold a value, of constants and templates alike."""
    todo = [request.get("messages"), request.get("prompt")]
    while todo:
        node = todo.pop()
        if isinstance(node, str):
            if len(node) >= SHORTEST:
                yield node
        elif isinstance(node, list):
            todo.extend(node)
        elif isinstance(node, dict):
            todo.extend(node.values() if TEMPLATE not in node else node[TEMPLATE])


def first_text(response: Any) -> object:
    """The text of the first choice of a response, whatever that is."""
    try:
        choice = response["choices"][0]
        return choice["message"]["content"] if "message" in choice else choice.get("text")
    except (KeyError, IndexError, TypeError, AttributeError):
        return None
