"""The scope of one outermost framework call: what was planned and submitted on its behalf, until it returns."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol

from semantic_parrot.adapters.answers import Answer, Lost
from semantic_parrot.adapters.book import Book
from semantic_parrot.adapters.courier import Courier
from semantic_parrot.adapters.endpoint import Endpoint
from semantic_parrot.adapters.hints import NO_HINTS, Hints, defaults
from semantic_parrot.adapters.plan import Plan, Site, program_of
from semantic_parrot.adapters.stats import SiteLedger, Statistics, wasted
from semantic_parrot.adapters.tracing import trace_headers


class Scope:
    """Answers are handed out once, to the request they answer, and only until the scope is closed. Thread-safe.

    `streaming`: the app reads the text of its last calls as it comes. `stated`: the app's hints. `inputs`: of the
    outermost call. `max_concurrency`: so many calls of each program at a time.
    """

    def __init__(
        self,
        courier: Courier,
        ledger: SiteLedger,
        statistics: Statistics,
        *,
        streaming: bool,
        stated: Hints = NO_HINTS,
        inputs: int = 1,
        max_concurrency: int | None = None,
    ) -> None:
        self._most = max_concurrency
        self.streaming = streaming
        self.stated = stated
        self._hints = defaults(stated, inputs)
        self.closed = False
        self._courier = courier
        self._ledger = ledger
        self._statistics = statistics
        self._lock = threading.Lock()
        self._books: list[Book] = []
        self._covered: Counter[int] = Counter()
        self._alone: Counter[Site] = Counter()

    def submit(self, plan: Plan, reserved: str | None = None, max_concurrency: int | None = None) -> Answer | None:
        """Send what of `plan` is worth it. The answer that makes the variable `reserved` is the caller's, if sent.
        `max_concurrency`: of this plan, beside that of the scope."""
        mine = None
        most = min(filter(None, (self._most, max_concurrency)), default=None)
        for nodes, calls in plan.submissions():
            if nodes.endpoint in self._courier.strangers:
                continue
            hints = plan.hints if plan.hints and calls[-1] is plan.calls[-1] else self._hints.told()
            program = program_of(nodes, hints, streaming=self.streaming, max_concurrency=most)
            book = Book(nodes.endpoint, calls, program, trace_headers())
            with self._lock:
                if self.closed:
                    return mine
                # Taken before anybody else can see it: another thread may be about to send the same request.
                mine = book.reserve(reserved) or mine
                self._books.append(book)
            self._courier.submit(book)
            self._statistics.add(programs=1, calls_planned=len(calls))
        return mine

    def claim(self, endpoint: Endpoint, key: str) -> Answer | None:
        """The answer to the request that `key` names, for the caller alone; or None."""
        with self._lock:
            if self.closed:
                return None
            books = tuple(self._books)
        for book in books:
            # Learned now, not at the end: the caller is about to plan anew, and would send the same again.
            if book.refused is not None:
                self._refuse(book)
            if book.endpoint == endpoint and (answer := book.take(key)) is not None:
                return answer
        return None

    def held(self) -> Counter[str]:
        """How many answers to each request, by its key, nobody has claimed yet."""
        with self._lock:
            return _unclaimed(tuple(self._books))

    def kept(self) -> Counter[str]:
        """Those of programs of which something was lost: what is planned anew must not contain them again."""
        with self._lock:
            books = tuple(self._books)
        return _unclaimed(book for book in books if book.damaged())

    def count(self, *, claimed: bool) -> None:
        if claimed:
            self._statistics.add(claimed=1)
        else:
            self._statistics.add(misses=1)

    # What is planned already: a call must not be submitted twice, nor planned again to the same end.

    def leave_alone(self, plan: Plan) -> None:
        """What of `plan` was not worth a program: each of these calls is about to be made by itself."""
        sent = {call.variable for _, calls in plan.submissions() for call in calls}
        with self._lock:
            self._alone.update(call.site for call in plan.calls if call.variable not in sent)

    @property
    def empty(self) -> bool:
        """Whether no program was sent: then there is nothing to claim."""
        return not self._books

    def is_alone(self, site: Site) -> bool:
        """Whether it is known that nothing can be planned together with the call that `site` makes now."""
        with self._lock:
            known = self._alone[site] > 0
            self._alone[site] -= known
        return known

    def cover(self, covered: Counter[int]) -> None:
        with self._lock:
            self._covered.update(covered)

    def consume(self, runnable: int, executions: int) -> bool:
        """Whether any of the next `executions` of a runnable (by id) are part of a plan; they are then used up."""
        with self._lock:
            planned = min(self._covered[runnable], executions)
            self._covered[runnable] -= planned
            return planned > 0

    def close(self) -> None:
        """The outermost call has returned: cancel and count what nobody claimed."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            books, self._books = self._books, []
        for book in books:
            unclaimed = book.unclaimed()
            answers, tokens = wasted(unclaimed)
            dropped = self._ledger.record(book.answers())
            if book.refused is not None:
                self._refuse(book)
            self._statistics.add(
                unclaimed=answers, unclaimed_tokens=tokens, sites_dropped=dropped, refused=book.refused is not None
            )
            if unclaimed:
                self._courier.release(book)
            for answer in book.answers():
                if answer.taken and answer.outcome is None:
                    answer.on_abandon = partial(self._courier.release, book)

    def _refuse(self, book: Book) -> None:
        """Never again plan the call because of which the server refused the program, if it named one."""
        assert book.refused is not None
        call = book.call_at(book.refused.where or "")
        if call is not None:
            self._ledger.refuse(call.site, book.refused.message)


def _unclaimed(books: Iterable[Book]) -> Counter[str]:
    answers = (answer for book in books for answer in book.answers())
    return Counter(
        answer.key
        for answer in answers
        if answer.key is not None and not answer.taken and not isinstance(answer.outcome, Lost)
    )


class CallSite(Protocol):
    """Where a model call sits in the framework's objects."""

    def alone(self, scope: Scope) -> bool:
        """Whether it is known that nothing can be planned together with the next call; asked once for each call."""

    def replan(self, scope: Scope, request: Mapping[str, Any]) -> Answer | None:
        """`request` is about to go out unplanned: plan it and what follows. Its answer, if a plan was sent. Not to be
        asked where `alone` was true."""


# The scope and the call site of the running code. Context variables, as these follow the app's threads and tasks.
SCOPE: ContextVar[Scope | None] = ContextVar("parrot_scope", default=None)
SITE: ContextVar[CallSite | None] = ContextVar("parrot_site", default=None)
