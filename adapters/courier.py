"""Takes programs to servers and brings their events back, on one event loop in a thread of its own.

So slow user code never looks like a slow reader to the server, and cancelling is closing a connection.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections import Counter
from collections.abc import Hashable

from pydantic import ValidationError

from semantic_parrot.adapters.book import Book
from semantic_parrot.adapters.endpoint import Endpoint
from semantic_parrot.adapters.provenance import Origins, first_text
from semantic_parrot.adapters.refusals import NotParrot
from semantic_parrot.adapters.run_client import RunClient
from semantic_parrot.core.errors import ParrotError
from semantic_parrot.core.events import CallFinished, Event

#: So many refusals in a row, for no call of the program, and an endpoint is sent no more.
REFUSALS = 3

log = logging.getLogger(__name__)


class Courier:
    """Owned by one process. Its methods may be called from any thread and never block. `origins`: of values."""

    def __init__(self, origins: Origins) -> None:
        self._loop = asyncio.new_event_loop()
        self._clients: dict[Hashable, RunClient] = {}
        self._drains: dict[Book, asyncio.Task[None]] = {}
        self._releases: set[asyncio.Task[None]] = set()
        self._origins = origins
        self._closed = False
        self._refusals: Counter[Endpoint] = Counter()
        #: Endpoints that take no programs: no Parrot servers, or they refuse each one.
        self.strangers: set[Endpoint] = set()
        self._thread = threading.Thread(target=self._run, name="parrot-courier", daemon=True)
        self._thread.start()

    def submit(self, book: Book) -> None:
        """Send the book's program; its events are recorded in the book until it has ended."""
        self._soon(lambda: self._start(book))

    def release(self, book: Book) -> None:
        """The app is done with the book: end the run, and tell the server what nobody used."""
        self._soon(lambda: self._start_release(book))

    def close(self) -> None:
        """Close every connection and end the thread."""
        if self._closed:
            return
        self._closed = True
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    # On the loop's thread.

    def _soon(self, work: object) -> None:
        assert callable(work)
        self._loop.call_soon_threadsafe(work)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _start(self, book: Book) -> None:
        task = self._loop.create_task(self._drain(book))
        self._drains[book] = task
        task.add_done_callback(lambda _: self._drains.pop(book, None))

    async def _client(self, endpoint: Endpoint) -> RunClient:
        if endpoint.embedded is None and not callable(endpoint.api_key):
            url, key = endpoint.base_url, endpoint.api_key
        else:  # may start a server, or ask somebody for a key
            url, key = await asyncio.to_thread(lambda: (endpoint.url(), endpoint.key()))
        name = (url, key, endpoint.headers, endpoint.params)
        if name not in self._clients:
            self._clients[name] = RunClient(url, key, dict(endpoint.headers), dict(endpoint.params))
        return self._clients[name]

    async def _drain(self, book: Book) -> None:
        reason = "the stream of events broke off"
        try:
            client = await self._client(book.endpoint)
            program = self._origins.told(book.endpoint, book.program)
            await client.stream(program, book.headers, lambda event: self._record(book, event))
            self._refusals.pop(book.endpoint, None)
        except asyncio.CancelledError:
            reason = "the session has ended"
            raise
        except NotParrot as error:
            reason = str(error)
            self._stranger(book.endpoint, "has no /runs: no Parrot server")
        except ParrotError as error:
            reason = f"the server refused the plan: {error}"
            book.refused = error
            self._refused(book, error)
        except (ValidationError, KeyError, ValueError, OSError) as error:
            reason = f"{reason}: {type(error).__name__}: {error}"
        finally:
            book.end(reason)

    def _record(self, book: Book, event: Event) -> None:
        if isinstance(event, CallFinished) and book.run_id is not None:  # before the app has it
            self._origins.remember(book.endpoint, first_text(event.response), book.run_id, event.id)
        book.record(event)

    def _refused(self, book: Book, error: ParrotError) -> None:
        """A program was refused; if that was for no call in it, the next one will fare no better."""
        if error.retryable or book.call_at(error.where or "") is not None:
            return
        endpoint = book.endpoint
        self._refusals[endpoint] += 1
        if self._refusals[endpoint] == REFUSALS:
            self._stranger(endpoint, f"refuses programs ({error})")

    def _stranger(self, endpoint: Endpoint, why: str) -> None:
        if endpoint not in self.strangers:
            self.strangers.add(endpoint)
            log.warning("%s %s, so calls go out one by one", endpoint.base_url, why)

    def _start_release(self, book: Book) -> None:
        task = self._loop.create_task(self._release(book))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    async def _release(self, book: Book) -> None:
        drain = self._drains.get(book)
        unclaimed = [answer.id for answer in book.unclaimed()]
        if book.run_id is not None and unclaimed:
            try:
                client = await self._client(book.endpoint)
                await client.cancel(book.run_id, unclaimed)
            except (ParrotError, OSError):
                pass  # closing the connection ends the run just as well
        if drain is not None and (unclaimed or book.run_id is None):
            drain.cancel()

    async def _shut(self) -> None:
        tasks = [*self._drains.values(), *self._releases]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in self._clients.values():
            client.close()
        self._clients.clear()


class Couriers:
    """The courier of this process: made when first needed, and made anew after a fork. `origins`: of the values that
    calls have made, planned or not."""

    def __init__(self) -> None:
        self.origins = Origins()
        self._lock = threading.Lock()
        self._courier: Courier | None = None

    def get(self) -> Courier:
        with self._lock:
            if self._courier is None:
                self._courier = Courier(self.origins)
            return self._courier

    def close(self) -> None:
        with self._lock:
            if self._courier is not None:
                self._courier.close()
                self._courier = None

    def forked(self) -> None:
        # Thread, loop and connections are the parent's, and who held a lock may not be here.
        self.origins = Origins()
        self._lock = threading.Lock()
        self._courier = None


# One per process, because it is a thread: all models of all frameworks share it.
COURIERS = Couriers()
atexit.register(COURIERS.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=COURIERS.forked)
