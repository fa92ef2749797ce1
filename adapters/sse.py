"""Server-sent events, the little of them that runs use: one `data` line per event, `id` lines, comments between."""

from __future__ import annotations

from collections.abc import Iterator

from semantic_parrot.core.events import Event, parse


class EventReader:
    """The events of a stream that comes in pieces of any size."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Every event that is complete with `piece`. Raises pydantic.ValidationError for data that is no event."""
        if b"\n" not in piece:
            self._begun.append(piece)
            return
        *lines, rest = b"".join((*self._begun, piece)).split(b"\n")
        self._begun = [rest] if rest else []
        for line in lines:
            if line.startswith(b"data:"):  # pydantic skips the white space around JSON
                yield parse(line[5:])
