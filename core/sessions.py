"""The sessions that clients have opened, until they are closed or nobody uses them any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from semantic_parrot.core.errors import NotFound, SessionClosed
from semantic_parrot.core.session import Session

#: Closed sessions of which it is still known why; the oldest are forgotten first.
REMEMBERED = 10_000


class Sessions:
    """Owned by the event loop. `make` gives a new session; `idle`: seconds after which one that nobody uses, and in
    which nothing runs, is closed."""

    def __init__(self, make: Callable[[], Session], idle: float) -> None:
        self._make = make
        self._idle = idle
        self._open: dict[str, Session] = {}
        self._closed: dict[str, str] = {}
        self._expiry: dict[str, asyncio.TimerHandle] = {}

    def open(self) -> Session:
        session = self._make()
        self._open[session.id] = session
        return self.get(session.id)

    def get(self, session_id: str) -> Session:
        """Its time starts anew. Raises SessionClosed, or NotFound if there is no trace of it."""
        try:
            session = self._open[session_id]
        except KeyError:
            raise self._gone(session_id) from None
        if session_id in self._expiry:
            self._expiry[session_id].cancel()
        self._expiry[session_id] = asyncio.get_running_loop().call_later(self._idle, self._expire, session_id)
        return session

    def close(self, session_id: str, why: str = "was closed") -> None:
        """Raises as `get`."""
        session = self.get(session_id)
        self._expiry.pop(session_id).cancel()
        del self._open[session_id]
        self._closed[session_id] = why
        if len(self._closed) > REMEMBERED:
            del self._closed[next(iter(self._closed))]
        session.close(f"the session {why}")

    def _gone(self, session_id: str) -> NotFound:
        why = self._closed.get(session_id)
        if why is None:
            return NotFound(f"no session {session_id!r}", where=session_id)
        return SessionClosed(f"the session {session_id!r} {why}; open another one", where=session_id)

    def close_all(self) -> None:
        for session_id in tuple(self._open):
            self.close(session_id)

    def _expire(self, session_id: str) -> None:
        if self._open[session_id].busy:
            self.get(session_id)  # another turn of the clock
        else:
            self.close(session_id, f"was not used for {self._idle:g} s and is closed")
