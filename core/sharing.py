"""Who shares a prefix with whom, across all runs of a tenant that can be read: for their reports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

#: Calls of one run that are named for one prefix, and other runs.
CALLS, RUNS = 8, 8


@dataclass(slots=True)
class Sharers:
    """The calls of one run that read a prefix: how many, how many of them are still `present`, the ids of the first."""

    count: int = 0
    present: int = 0
    calls: list[str] = field(default_factory=list)

    def add(self, call: str) -> None:
        self.count += 1
        self.present += 1
        if len(self.calls) <= CALLS:  # one more than are named: the one who asks is not
            self.calls.append(call)


@dataclass(slots=True, eq=False)
class Readers:
    """Everybody who has read one prefix since somebody first did, by run; of runs that left, the last few."""

    count: int = 0
    present: int = 0
    runs: dict[str, Sharers] = field(default_factory=dict)

    def copy(self) -> Readers:
        runs = {run: Sharers(own.count, own.present, list(own.calls)) for run, own in self.runs.items()}
        return Readers(self.count, self.present, runs)

    def add(self, run: str, call: str) -> None:
        self.count += 1
        self.present += 1
        sharers = self.runs.get(run)
        if sharers is None:
            sharers = self.runs[run] = Sharers()
        sharers.add(call)

    def leave(self, run: str) -> None:
        self.present -= 1
        sharers = self.runs[run]
        sharers.present -= 1
        if not sharers.present and len(self.runs) > RUNS:
            del self.runs[run]


#: A prefix that several calls read, they, and those among them of the run that asked.
Shared = tuple[int, Readers, Sharers]

#: (run id, call id)
Member = tuple[str, str]


class Sharing:
    """By the prefixes' names (`analysis.boundaries`). A prefix that only one call reads, as most do, is one entry and
    no object. Owned by the event loop; each method costs O(names)."""

    def __init__(self) -> None:
        self._by_prefix: dict[int, Member | Readers] = {}

    def __len__(self) -> int:
        return len(self._by_prefix)

    def join(self, run: str, call: str, names: Iterable[int]) -> None:
        """The call reads the prefixes `names`."""
        member = run, call
        for name in set(names):
            there = self._by_prefix.setdefault(name, member)
            if there is member:
                continue
            if isinstance(there, tuple):
                readers = self._by_prefix[name] = Readers()
                readers.add(*there)
                there = readers
            there.add(run, call)

    def leave(self, run: str, names: Iterable[int]) -> None:
        """A call that joined with `names` is there no longer; whoever shared with it still knows."""
        for name in set(names):
            there = self._by_prefix[name]
            if isinstance(there, Readers) and there.present > 1:
                there.leave(run)
            else:
                del self._by_prefix[name]

    def find(self, run: str, names: Iterable[int]) -> tuple[Shared, ...]:
        """Those of `names` that several calls read; a call of `run` is one of them."""
        found = ((name, self._by_prefix.get(name)) for name in names)
        return tuple((name, there, there.runs[run]) for name, there in found if isinstance(there, Readers))

    def count(self, name: int) -> int:
        """How many have read prefix `name` since somebody first did."""
        there = self._by_prefix.get(name)
        return there.count if isinstance(there, Readers) else int(there is not None)

    def readers(self, name: int) -> Readers:
        """A copy of what is known of prefix `name`."""
        there = self._by_prefix.get(name, Readers())
        if isinstance(there, Readers):
            return there.copy()
        readers = Readers()
        readers.add(*there)
        return readers
