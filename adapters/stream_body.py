"""The body of a replayed stream: chunks as the answer comes, and the rest of the text if it is lost halfway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, closing
from typing import Any

from semantic_parrot.adapters.openai_http import http
from semantic_parrot.adapters.replay import AnswerLost, StreamReplay
from semantic_parrot.adapters.resume import Diverged, Rest, can_resume


def patience(request: Any) -> float | None:
    """Seconds that the caller would wait for an ordinary response."""
    seconds = request.extensions.get("timeout", {}).get("read")
    return None if seconds is None else float(seconds)


class StreamBody(http.SyncByteStream, http.AsyncByteStream):
    """The body of a replayed stream. If the answer is lost on the way, `again` makes the call as an ordinary one; if
    that can't give the same text, the body breaks off as a dead connection does."""

    def __init__(
        self, replay: StreamReplay, request: Any, body: Mapping[str, Any], again: Callable[[Any], Any]
    ) -> None:
        self._replay = replay
        self._request = request
        self._body = body
        self._again = again

    def _rest(self, error: AnswerLost) -> Rest:
        if not can_resume(self._body):
            raise self._broken(error)
        self._replay.done = True
        return Rest(error.text, error.told)

    def _broken(self, error: Exception) -> Exception:
        broken: Exception = http.RemoteProtocolError(str(error), request=self._request)
        return broken

    def _late(self) -> Exception:
        late: Exception = http.ReadTimeout("no more of the answer came in time", request=self._request)
        return late

    def __iter__(self) -> Iterator[bytes]:
        try:
            while True:
                if block := self._replay.advance():
                    yield block
                if self._replay.done:
                    return
                if not self._replay.answer.wait(self._replay.seen, patience(self._request)):
                    raise self._late()
        except AnswerLost as error:
            rest = self._rest(error)
        with closing(self._again(self._request)) as response:
            try:
                for line in response.iter_lines():
                    if block := rest.feed(line):
                        yield block
            except Diverged as error:
                raise self._broken(error) from None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while True:
                if block := self._replay.advance():
                    yield block
                if self._replay.done:
                    return
                if not await self._replay.answer.wait_async(self._replay.seen, patience(self._request)):
                    raise self._late()
        except AnswerLost as error:
            rest = self._rest(error)
        async with aclosing(await self._again(self._request)) as response:
            try:
                async for line in response.aiter_lines():
                    if block := rest.feed(line):
                        yield block
            except Diverged as error:
                raise self._broken(error) from None

    def close(self) -> None:
        if not self._replay.done:
            self._replay.answer.abandon()

    async def aclose(self) -> None:
        self.close()
