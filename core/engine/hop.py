"""Whether the next step waits for calls that follow at once from those that have just ended.

The server needs some milliseconds to send them. A step that begins before they are here makes them wait for all of it;
one that waits for them holds up whoever goes on. So it waits where that is less in all: on an engine that is full, not.
"""

from __future__ import annotations

from collections.abc import Iterable

from semantic_parrot.core.engine.sequence import Sequence

#: Seconds that a step waits at most, and those it usually does: what the server needs on a busy machine of two cores.
PATIENCE, USUAL = 0.008, 0.004


def coming(ended: Iterable[Sequence], live: Iterable[Sequence], step: float) -> int:
    """How many calls to wait for, once `ended` have and `live` go on, where a step takes `step` seconds."""
    following = {name for s in ended for name in s.directions.feeds}
    if not following:
        return 0
    going = list(live)
    following.difference_update(*(s.directions.feeds for s in going))
    return len(following) if len(going) * USUAL < len(following) * step else 0
