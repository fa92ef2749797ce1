"""What open programs will read again, so that a modelled engine keeps it; as the server knows it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from zlib import crc32

from semantic_parrot.core.analysis import Planned, PrefixUses, Step
from semantic_parrot.core.analysis.pieces import length_of
from semantic_parrot.core.simulator.cache import Cache, Names
from semantic_parrot.core.simulator.jobs import Job, Running

#: Of a prefix's users that are asked when they will start.
USERS = 4


class Retention:
    """`on`: otherwise engines forget what was least recently used."""

    def __init__(self, *, on: bool) -> None:
        self._on = on
        self._uses = PrefixUses()
        self._open: dict[str, Step] = {}  # by the key under which it is in `_uses`

    def join(self, job: Job, planned: Sequence[Planned]) -> None:
        """`planned` are in the job's analysis."""
        for plan in planned if self._on else ():
            key = job.key(plan.output)
            self._open[key] = job.analysis.step(plan.output)
            assert plan.skeleton is not None
            self._uses.join(key, plan.skeleton, _unknown)

    def ended(self, cache: Cache, own: Running, names: Names, *, whole: bool) -> None:
        """The call ran where `cache` is. `names`: of its prompt's prefixes; `whole`: and of prompt and answer."""
        cache.release(names)
        if not self._on:
            return
        key = own.job.key(own.call.output)
        read = self._uses.prefixes(key)
        if whole and read:
            read = (*read, longer(read[-1], _unknown(own.call.output)))
        self._uses.leave(key)
        del self._open[key]
        # A prompt has as many boundaries with its values as without; short ones are left out at the front.
        for name, structure in zip(reversed(names), reversed(read), strict=False):
            users = islice(self._uses.sharers(structure), USERS)
            cache.keep(name, min((self._open[user].latest for user in users), default=None))


def _unknown(name: str) -> str:
    """Stands for a variable without a value."""
    return f"\1{name}"


def longer(prefix: int, text: str) -> int:
    """The name of `prefix` and `text`."""
    return length_of(prefix) + len(text) << 32 | crc32(text.encode(), prefix & 0xFFFFFFFF)
