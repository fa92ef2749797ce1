"""Where the running code is in the app's runnables: enough to plan what comes after it."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableBranch, RunnableWithFallbacks
from langchain_core.runnables.retry import RunnableRetry

from semantic_parrot.adapters.langchain.lower import Lowering, steps_of
from semantic_parrot.adapters.langchain.values import Unknown, Value


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A composite that runs. `position`: how many steps of the parent precede what follows it; None if not known."""

    runnable: Any
    parent: Frame | None
    position: int | None


def position_of(config: Mapping[str, Any] | None) -> int | None:
    """The number (from 1) of the sequence step that was called with `config`, as LangChain tags its callbacks."""
    for tag in getattr((config or {}).get("callbacks"), "tags", None) or ():
        if isinstance(tag, str) and tag.startswith("seq:step:") and tag[9:].isdecimal():
            return int(tag[9:])
    return None


def continue_after(low: Lowering, frame: Frame | None, position: int | None, value: Value) -> None:
    """Plan what the app will do with `value`, which step `position` of `frame` returns: there, and further up."""
    while frame is not None and not isinstance(value, Unknown):
        if not isinstance(frame.runnable, TRANSPARENT):
            steps = steps_of(frame.runnable)
            if position is None or steps is None:
                return
            value = low.steps(frame.runnable, steps[position:], value, position)
        position, frame = frame.position, frame.parent


#: What returns the value of the one runnable that it has chosen.
TRANSPARENT = (RunnableBranch, RunnableRetry, RunnableWithFallbacks)

# The innermost composite that runs; follows the app's threads and tasks.
FRAME: ContextVar[Frame | None] = ContextVar("parrot_frame", default=None)
