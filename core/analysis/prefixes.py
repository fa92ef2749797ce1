"""Which calls share which prefixes, known before the first token is run, and when each prefix is last used."""

from __future__ import annotations

from collections.abc import Callable, Collection

from semantic_parrot.core.analysis.pieces import Skeleton, boundaries


class PrefixUses:
    """The open calls by the prefixes they will read. A variable without a value stands for itself: two calls that
    read it after the same text share a prefix, whatever its value will be. A prefix that only one call will read, as
    most are, is one entry.
    """

    def __init__(self) -> None:
        self._by_call: dict[str, tuple[int, ...]] = {}
        self._by_prefix: dict[int, str | dict[str, None]] = {}

    def join(self, output: str, skeleton: Skeleton, text_of: Callable[[str], str]) -> None:
        """The call that produces `output` will read these prefixes. `text_of` a variable: its value, or else a name for
        it that begins with \\1."""
        names = boundaries(skeleton.pieces, text_of)
        self._by_call[output] = names
        for name in names:
            there = self._by_prefix.setdefault(name, output)
            if isinstance(there, dict):
                there[output] = None
            elif there != output:
                self._by_prefix[name] = {there: None, output: None}

    def prefixes(self, output: str) -> tuple[int, ...]:
        """Of an open call, shortest first."""
        return self._by_call.get(output, ())

    def sharers(self, prefix: int) -> Collection[str]:
        """The open calls that will read `prefix`, in the order in which they joined."""
        there = self._by_prefix.get(prefix, ())
        return (there,) if isinstance(there, str) else there

    def shared(self, output: str) -> tuple[int, Collection[str]]:
        """(the longest prefix that an open call shares with another one, all its sharers); (0, ()) if there is none."""
        for name in reversed(self.prefixes(output)):
            if len(sharers := self.sharers(name)) > 1:
                return name, sharers
        return 0, ()

    def leave(self, output: str) -> list[int]:
        """The call has ended: the prefixes of which this was the last use."""
        last: list[int] = []
        for name in self._by_call.pop(output, ()):
            there = self._by_prefix.get(name)
            if isinstance(there, dict):
                there.pop(output, None)
            if there == output or there == {}:
                del self._by_prefix[name]
                last.append(name)
        return last
