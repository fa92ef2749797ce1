"""Server-sent events, the little of them that runs use: one `data` line per event, `id` lines, comments between."""

from __future__ import annotations

from semantic_parrot.core.events import Event, parse


def event_of(line: str) -> Event | None:
    """The event that one line of the stream carries; None for ids, comments and blank lines.

    Raises pydantic.ValidationError for data that is no event of ours.
    """
    if not line.startswith("data:"):
        return None
    return parse(line[5:].strip())
