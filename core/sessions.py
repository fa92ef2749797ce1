"""The sessions that clients have opened, until they are closed or nobody uses them any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from semantic_parrot.core.errors import NotFound, SessionClosed
from semantic_parrot.core.session import Session

#: Closed sessions of which it is still known why; the oldest are forgotten first.
REMEMBERED = 10_000


class Sessions:
    """Owned by the event loop. `make` gives a tenant's new session; `idle`: seconds after which one that nobody uses,
    and in which nothing runs, is closed."""

    def __init__(self, make: Callable[[str], Session], idle: float) -> None:
        self._make = make
        self._idle = idle
        self._open: dict[str, Session] = {}
        self._closed: dict[str, tuple[str, str]] = {}  # tenant, why
        self._expiry: dict[str, asyncio.TimerHandle] = {}

    def open(self, tenant: str = "") -> Session:
        session = self._make(tenant)
        self._open[session.id] = session
        self._wind(session)
        return session

    def get(self, session_id: str, tenant: str = "") -> Session:
        """Its time starts anew. Raises SessionClosed, or NotFound if there is no trace of it that is the tenant's."""
        session = self._open.get(session_id)
        if session is None or session.tenant != tenant:
            raise self._gone(session_id, tenant)
        self._wind(session)
        return session

    def close(self, session_id: str, tenant: str = "") -> None:
        """Raises as `get`."""
        self._close(self.get(session_id, tenant), "was closed")

    def _wind(self, session: Session) -> None:
        if session.id in self._expiry:
            self._expiry[session.id].cancel()
        self._expiry[session.id] = asyncio.get_running_loop().call_later(self._idle, self._expire, session)

    def _close(self, session: Session, why: str) -> None:
        self._expiry.pop(session.id).cancel()
        del self._open[session.id]
        self._closed[session.id] = session.tenant, why
        if len(self._closed) > REMEMBERED:
            del self._closed[next(iter(self._closed))]
        session.close(f"the session {why}")

    def _gone(self, session_id: str, tenant: str) -> NotFound:
        owner, why = self._closed.get(session_id, (None, ""))
        if owner != tenant:
            return NotFound(f"no session {session_id!r}", where=session_id)
        return SessionClosed(f"the session {session_id!r} {why}; open another one", where=session_id)

    def close_all(self) -> None:
        for session in tuple(self._open.values()):
            self._close(session, "was closed")

    def _expire(self, session: Session) -> None:
        if session.busy:
            self._wind(session)  # another turn of the clock
        else:
            self._close(session, f"was not used for {self._idle:g} s and is closed")
