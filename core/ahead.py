"""Pipelined prefill and warm-up: a prompt that waits for a variable is filled as far as it is known, while it waits.

Its constant beginning first, nearest calls first, as soon as something that it depends on runs; then the producer's
text as that comes. All of it is a hint to the engine, which compares tokens in the end: what was filled for nothing
costs idle time, and changes no answer.
"""

from __future__ import annotations

import asyncio
import time

from semantic_parrot.core.analysis import Analysis, NextUses
from semantic_parrot.core.analysis.pieces import SHORTEST
from semantic_parrot.core.engines.protocol import Keep
from semantic_parrot.core.fills import Beginning, Fills
from semantic_parrot.core.graph import Graph, Variable
from semantic_parrot.core.instance import Node, Owner
from semantic_parrot.core.keeping import keep_ahead
from semantic_parrot.core.known import Known, Speech
from semantic_parrot.core.request import UNKNOWN
from semantic_parrot.core.shape import Prompt
from semantic_parrot.core.value import JSON, as_text
from semantic_parrot.core.wire import render

#: Characters that a producer's text grows by before its readers are filled on; and at least by this part of itself, so
#: that all the fills of a text of n characters cost n, not its square. Each takes time from who decodes (tokens, a step
#: with prefill in it), and the fewer there are, the more is left for when the text ends: a quarter of it at most.
EVERY, PART = 900, 3

#: Calls whose producers do not run yet that a session has filled at the same time, and how many steps ahead they are.
WARM, REACH = 8, 8

#: Prefixes of one beginning that the scheduler is told of: the longest.
NAMES = 16

#: Seconds that what has become ready has to itself before anything is filled, and calls looked at in one go.
PAUSE, SLICE = 0.005, 32


class Ahead:
    """For the calls of one graph of a tenant, named `scope`. Owned by the event loop; its methods return at once,
    and the work is done in slices once what is ready has gone.

    `fills` None: nothing is filled, and nothing is done for it. `uses` None: no engine is told what to keep.
    """

    def __init__(
        self,
        graph: Graph[Owner],
        analysis: Analysis,
        scope: str,
        fills: Fills | None,
        uses: NextUses | None = None,
        tenant: str = "",
    ) -> None:
        self._graph = graph
        self._analysis = analysis
        self._scope = scope
        self._tenant = tenant
        self._fills = fills
        self._uses = uses
        self._known: dict[str, Known] = {}
        self._twins: dict[tuple[str, int, int, str], str] = {}  # -> the one call that is filled for all of them
        self._texts: dict[str, Speech] = {}
        self._due: dict[str, int] = {}  # calls to look at, nearest first: steps ahead of what runs
        self._timer: asyncio.TimerHandle | None = None

    def started(self, name: str) -> None:
        """The producer of variable `name` runs, or `name` is about to be set: its readers are next."""
        if self._fills is not None:
            self._look(name, 1)

    def grew(self, name: str, text: str) -> None:
        """The producer of variable `name` has generated more `text`."""
        if self._fills is None or not self._graph.variables[name].consumers:
            return
        known = self._texts.get(name)
        if known is None:
            known = self._texts[name] = Speech()
        known.parts.append(text)
        known.chars += len(text)
        if known.chars - known.told >= max(EVERY, known.told // PART):
            known.told = known.chars
            self._look(name, 1)

    def filled(self, name: str) -> tuple[int, int] | None:
        """(engine, characters) of the prompt of the call that makes `name`, where some of it was filled."""
        return None if self._fills is None else self._fills.filled((self._scope, name))

    def over(self, name: str) -> None:
        """Variable `name` is made, or being made now: nothing is to be filled for its call any more."""
        known = self._known.pop(name, None)
        if known is not None:
            self._leave(name, known)
            if known.sent and self._fills is not None:
                self._fills.drop((self._scope, name))

    def settled(self, variable: Variable[Owner]) -> None:
        self.over(variable.name)
        self._texts.pop(variable.name, None)
        if self._fills is not None and variable.error is None:
            self._look(variable.name, 1)

    def _look(self, name: str, steps: int) -> None:
        """Look at the calls that read `name`, soon."""
        for node in self._graph.variables[name].consumers:
            if node.missing and steps < self._due.get(node.output, REACH + 1):
                self._due[node.output] = steps
        if self._due and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PAUSE, self._slice)

    def _slice(self) -> None:
        self._timer = None
        for _ in range(SLICE):
            if not self._due:
                return
            name = next(iter(self._due))
            steps = self._due.pop(name)
            node = self._graph.variables[name].producer
            if node is None or not node.missing or self._graph.variables[name].settled:
                continue
            if isinstance(node.spec, Prompt):
                self._consider(node, steps)
            if self._room():
                self._look(name, steps + 1)
        if self._due and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PAUSE, self._slice)

    def _room(self) -> bool:
        return sum(known.warm for known in self._known.values()) < WARM

    def _consider(self, node: Node[Owner], steps: int) -> None:
        """Fill the beginning of `node`, if there is one, or more of it than before."""
        name, known = node.output, self._known.get(node.output)
        if steps > 1 and (known is not None or not self._room()):
            return
        if known is None:
            prompt = self._analysis.step(name).planned.skeleton
            assert prompt is not None
            known = Known(prompt)
        self._leave(name, known)
        unknown = self._advance(node, known)
        if unknown is None:
            return
        assert isinstance(node.spec, Prompt)
        known.twin = (node.spec.shape.model, known.chars, known.crc, unknown)
        if self._twins.setdefault(known.twin, name) != name:
            return  # its beginning is that of another one
        self._known[name] = known
        known.warm = known.warm and steps > 1
        text = self._texts.get(unknown)
        chars = known.chars + (text.chars if text is not None else 0)
        if chars - known.sent >= (EVERY // 2 if known.sent else SHORTEST) and self._fill(node, known, unknown, chars):
            known.sent, known.warm = chars, steps > 1

    def _advance(self, node: Node[Owner], known: Known) -> str | None:
        """Take in what is known by now; the first variable that is not."""
        for piece in known.skeleton.pieces[known.at :]:
            if isinstance(piece, str):
                known.add(piece)
                continue
            variable = self._graph.variables[node.reads[int(piece.name)]]
            if not variable.settled:
                return variable.name
            known.add(as_text(variable.value))
        return None

    def _fill(self, node: Node[Owner], known: Known, unknown: str, chars: int) -> bool:
        assert isinstance(node.spec, Prompt)
        assert self._fills is not None
        values: dict[str, JSON] = {}
        for local, name in zip(node.spec.awaits(), node.reads, strict=True):
            variable, text = self._graph.variables[name], self._texts.get(name)
            values[local] = variable.value if variable.settled else "".join(text.parts if text else ()) + UNKNOWN
        body = render(node.spec.shape.request, values)
        producer = (self._scope, unknown)
        names = tuple(known.names[-NAMES:])
        keep: tuple[Keep, ...] = ()
        if self._uses is not None:
            latest = self._analysis.step(node.output).latest
            keep = keep_ahead(self._uses, latest, names, chars, time.monotonic())
        beginning = Beginning(body, known.skeleton, chars, names, producer, keep, self._tenant)
        return self._fills.fill((self._scope, node.output), beginning)

    def _leave(self, name: str, known: Known) -> None:
        if self._twins.get(known.twin) == name:
            del self._twins[known.twin]
