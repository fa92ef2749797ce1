"""How long the KV of a call's prompt is worth keeping, from who else will read it: for the engine (Directions.keep)."""

from __future__ import annotations

from collections.abc import Sequence

from semantic_parrot.core.analysis import NextUses, Skeleton
from semantic_parrot.core.analysis.next_uses import Caller
from semantic_parrot.core.analysis.pieces import LAST, length_of
from semantic_parrot.core.engines.protocol import UNSAID, Keep


def keep(
    uses: NextUses, call: Caller, prompt: Skeleton, planned: Sequence[int], read: Sequence[int], chars: int, now: float
) -> tuple[Keep, ...]:
    """`call` starts now. `planned`: its prefixes as they were named when it joined, a variable without a value by its
    name; `read`: as its text names them; `chars`: of the whole text.

    What open calls will read is kept for them: not before now, though they may be late. Text with the value of a
    variable that none of them will read was read for the last time. Constants say nothing: whoever submits the same
    program next reads them again.
    """
    uses.leave(call)
    if len(planned) != len(read):  # the shortest are left out of both, and of many the middle
        planned, read = planned[-LAST:], read[-LAST:]
    constant = 0
    for piece in prompt.pieces:
        if not isinstance(piece, str):
            break
        constant += len(piece)
    found: list[Keep] = []
    count = min(len(planned), len(read))
    pairs = zip(uses.of(planned[-count:]), uses.of(read[-count:]), read[-count:], strict=True) if count else ()
    for by_name, by_text, name in pairs:
        known = [use for use in (by_name, by_text) if use is not None]
        unknown = UNSAID if length_of(name) <= constant else None
        use = max(now, min(known)) if known else unknown
        if found and found[-1].next_use == use:
            found.pop()
        found.append(Keep(length_of(name) / chars, use))
    return tuple(found)


def keep_ahead(uses: NextUses, latest: float, read: Sequence[int], chars: int, now: float) -> tuple[Keep, ...]:
    """Of the first `chars` characters of a prompt, which are filled before its call starts (at `latest`), and whose
    prefixes are `read`: until then, or until somebody else reads them."""
    others = zip(read, uses.of(read), strict=True)
    found = [Keep(length_of(name) / chars, max(now, min(latest, use))) for name, use in others if use is not None]
    return *(k for k in found if k.share < 1), Keep(1.0, max(now, latest))
