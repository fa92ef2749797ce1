"""What planning has saved and what it has wasted; and which call sites are no longer worth a plan."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from semantic_parrot.adapters.answers import Answer, Finished, Lost
from semantic_parrot.adapters.plan import Site

#: A site is judged by its last so many plans, and dropped when fewer than this share of its answers were used.
PLANS_JUDGED = 20
SHARE_NEEDED = 0.5


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the start of the process.

    `programs` sent, with `calls_planned` calls; `claimed` answers were used by the app. `misses`: calls inside a
    planned run that went out by themselves. `unclaimed`: answers that the server worked on for nothing, and the tokens
    they cost as far as known. `sites_dropped`: call sites no longer planned. `last_error`: of the planner.
    """

    programs: int = 0
    calls_planned: int = 0
    claimed: int = 0
    misses: int = 0
    unclaimed: int = 0
    unclaimed_tokens: int = 0
    refused: int = 0
    sites_dropped: int = 0
    planner_errors: int = 0
    last_error: str | None = None


class Statistics:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._last_error: str | None = None

    def add(self, **counts: int) -> None:
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count

    def planner_failed(self, error: BaseException) -> None:
        with self._lock:
            self._counts["planner_errors"] += 1
            self._last_error = f"{type(error).__name__}: {error}"

    def snapshot(self) -> Stats:
        with self._lock:
            return Stats(**self._counts, last_error=self._last_error)


class SiteLedger:
    """How often the planned answers of each call site are used. Thread-safe."""

    def __init__(self) -> None:
        #: How often a site was dropped, or forgotten that was: until then, plans are as they were.
        self.changes = 0
        self._lock = threading.Lock()
        self._uses: dict[Site, deque[tuple[int, int]]] = {}
        self._dropped: dict[Site, str] = {}

    def reason(self, site: Site) -> str | None:
        """Why `site` is not planned, or None."""
        return self._dropped.get(site)

    def record(self, answers: Sequence[Answer]) -> int:
        """A plan has ended: learn from its answers. Returns the number of sites dropped for it."""
        used: dict[Site, tuple[int, int]] = {}
        for answer in answers:
            # Nobody could have claimed what the server never started, or what was lost with a connection.
            if answer.taken or (answer.confirmed and not isinstance(answer.outcome, Lost)):
                claimed, planned = used.get(answer.call.site, (0, 0))
                used[answer.call.site] = (claimed + answer.taken, planned + 1)
        dropped = 0
        with self._lock:
            for site, use in used.items():
                plans = self._uses.setdefault(site, deque(maxlen=PLANS_JUDGED))
                plans.append(use)
                claimed, planned = (sum(column) for column in zip(*plans, strict=True))
                if len(plans) == PLANS_JUDGED and claimed < SHARE_NEEDED * planned and site not in self._dropped:
                    self._dropped[site] = f"only {claimed} of its last {planned} planned answers were used"
                    dropped += 1
            self.changes += dropped
        return dropped

    def refuse(self, site: Site, message: str) -> None:
        """The server does not take this call in a program."""
        with self._lock:
            self._dropped[site] = f"the server refused it: {message}"
            self.changes += 1

    def forget(self, site: Site) -> None:
        with self._lock:
            self._uses.pop(site, None)
            self.changes += self._dropped.pop(site, None) is not None


class SiteNames:
    """Names for places in an app's objects that are unique while the object lives, and are forgotten with it."""

    def __init__(self, ledger: SiteLedger) -> None:
        self._ledger = ledger
        self._named: dict[int, set[Site]] = {}

    def name(self, owner: object, place: object) -> Site:
        site = (id(owner), place)
        sites = self._named.get(id(owner))
        if sites is None:
            sites = self._named[id(owner)] = set()
            # Without weak references to it, its name may be used again: that costs a few plans.
            with contextlib.suppress(TypeError):
                weakref.finalize(owner, self._forget, id(owner)).atexit = False
        sites.add(site)
        return site

    def _forget(self, number: int) -> None:
        for site in self._named.pop(number, ()):
            self._ledger.forget(site)


def wasted(answers: Sequence[Answer]) -> tuple[int, int]:
    """(answers, tokens) that the server made for nothing."""
    tokens = 0
    for answer in answers:
        if isinstance(answer.outcome, Finished):
            tokens += int((answer.outcome.response.get("usage") or {}).get("completion_tokens") or 0)
    return len(answers), tokens
