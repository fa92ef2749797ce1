"""Which call of a run waited for which, as it really was: through transforms, maps and branches too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf

from semantic_parrot.core.trace import CallTrace, Link


class Dependencies:
    """Of calls and links by output. `waited`: by call, the one whose end it waited for. `depth`: calls on the longest
    chain that ends with it. `slack`: seconds by which a call could have ended later, and the run no later; of those
    that ended, once the run has (`end`: then, in its seconds). All linear in the edges; keys are outputs."""

    def __init__(self, calls: Mapping[str, CallTrace], links: Mapping[str, Link], end: float | None) -> None:
        self._calls = calls
        self._links = links
        self.depth: dict[str, int] = {}
        self.waited: dict[str, str] = {}
        self.slack: dict[str, float] = {}
        self._last: dict[str, str] = {}
        order = self._in_order()
        for output in order:
            self._look_back(output)
        if end is not None:
            self._look_ahead(order, end)

    def reads(self, output: str) -> tuple[str, ...]:
        """The variables that a call or link goes by."""
        call = self._calls.get(output)
        if call is None:
            return self._links[output].reads
        return call.reads if call.after is None else (*call.reads, call.after)

    def needs(self, output: str) -> Iterator[str]:
        """The outputs of the calls that a call reads, directly or through links, each once."""
        seen, todo = {output}, list(reversed(self.reads(output)))
        while todo:
            name = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in self._calls:
                yield name
            elif name in self._links:
                todo.extend(reversed(self._links[name].reads))

    def path(self) -> list[str]:
        """The critical path: the call that ended last, before it the one that it waited for ...; in order."""
        ended = [call for call in self._calls.values() if call.ready is not None and call.ended is not None]
        if not ended:
            return []
        path = [max(ended, key=lambda call: call.ended or 0.0).output]
        while path[-1] in self.waited:
            path.append(self.waited[path[-1]])
        return path[::-1]

    def _in_order(self) -> list[str]:
        """Every call and link after what it reads."""
        nodes = dict.fromkeys((*self._links, *self._calls))
        waits = {output: sum(name in nodes for name in set(self.reads(output))) for output in nodes}
        readers: dict[str, list[str]] = {}
        for output in nodes:
            for name in set(self.reads(output)):
                if name in nodes:
                    readers.setdefault(name, []).append(output)
        order = [output for output in nodes if not waits[output]]
        for output in order:  # grows while it is read
            for reader in readers.get(output, ()):
                waits[reader] -= 1
                if not waits[reader]:
                    order.append(reader)
        return order

    def _look_back(self, output: str) -> None:
        reads = self.reads(output)
        sources = [self._last[name] for name in reads if name in self._last]
        deepest = max((self.depth[name] for name in reads if name in self.depth), default=0)
        last = max(sources, key=lambda name: self._calls[name].ended or 0.0, default=None)
        call = self._calls.get(output)
        self.depth[output] = deepest + (call is not None)
        if call is None:
            if last is not None:
                self._last[output] = last
            return
        if last is not None:
            self.waited[output] = last
        if call.ended is not None:
            self._last[output] = output

    def _look_ahead(self, order: list[str], end: float) -> None:
        needed = dict.fromkeys(order, end)
        for output in reversed(order):
            call = self._calls.get(output)
            by = needed[output]
            if call is not None:
                if call.ended is None:
                    continue
                self.slack[output] = max(0.0, by - call.ended)
                by = inf if call.ready is None else call.ready + self.slack[output]
            for name in self.reads(output):
                if name in needed:
                    needed[name] = min(needed[name], by)
