"""Performance hints: what an app says of how its answers are waited for. Never required."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, ValidationError

from semantic_parrot.core.errors import InvalidRequest
from semantic_parrot.core.model import Value
from semantic_parrot.core.program import Milliseconds, Objective, explain

#: A batch of more inputs than this is for throughput: nobody waits for one answer of it.
FEW = 4
#: Of a deadline that is past. The server takes no less than something, and says then that it is past.
PAST_MS = 0.001


class Stated(Value):
    """`deadline_ms`: from the outermost call on. `priority`: the higher one goes first."""

    objective: Objective | None = None
    deadline_ms: Milliseconds | None = None
    priority: Annotated[int, Field(ge=-100, le=100)] = 0


@dataclass(frozen=True, slots=True)
class Hints:
    """`due`: by `time.monotonic()`."""

    objective: Objective | None = None
    priority: int = 0
    due: float | None = None

    def told(self) -> dict[str, Any]:
        """As the field `parrot` of an OpenAI body; the time left is from now on."""
        found: dict[str, Any] = {} if self.objective is None else {"objective": self.objective}
        if self.priority:
            found["priority"] = self.priority
        if self.due is not None:
            found["deadline_ms"] = max((self.due - time.monotonic()) * 1e3, PAST_MS)
        return found


NO_HINTS = Hints()
#: Those of the model call that is being made.
HINTS: ContextVar[Hints] = ContextVar("parrot_hints", default=NO_HINTS)


def stated_in(metadata: Mapping[str, Any] | None) -> Hints:
    """The hints under the name `parrot`. Raises InvalidRequest with the field."""
    told = (metadata or {}).get("parrot")
    if told is None:
        return NO_HINTS
    try:
        stated = Stated.model_validate(told)
    except ValidationError as error:
        message, where = explain(error, prefix="metadata.parrot")
        raise InvalidRequest(message, where=where) from None
    due = None if stated.deadline_ms is None else time.monotonic() + stated.deadline_ms / 1e3
    return Hints(stated.objective, stated.priority, due)


def defaults(hints: Hints, inputs: int) -> Hints:
    """`hints`, and what follows from the number of inputs of one batch where they state no objective."""
    if hints.objective is None and hints.due is None and inputs > FEW:
        return Hints("throughput", hints.priority)
    return hints
