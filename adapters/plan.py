"""A plan: the calls that an app is going to make, as far as they can be known without running it."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from semantic_parrot.adapters.endpoint import Endpoint
from semantic_parrot.adapters.marks import Marks
from semantic_parrot.core.program import Call, Options, Program
from semantic_parrot.core.wire import references

#: A program of fewer calls saves no round trip.
WORTH_SENDING = 2

Site = Hashable
"""Names the place in the app that makes a call, to learn how often its planned answers are used."""


@dataclass(frozen=True, slots=True, eq=False)
class PlannedCall:
    """`request` is an OpenAI body with templates; `variable` names its text."""

    variable: str
    request: dict[str, Any]
    endpoint: Endpoint
    site: Site

    @property
    def inputs(self) -> tuple[str, ...]:
        return references(self.request)


@dataclass(slots=True)
class Plan:
    """Calls found so far; how often each composite runnable (by id) is contained whole; the marks of its templates."""

    calls: list[PlannedCall] = field(default_factory=list)
    covered: Counter[int] = field(default_factory=Counter)
    marks: Marks = field(default_factory=lambda: Marks(secrets.token_hex(16)))

    def add(self, request: dict[str, Any], endpoint: Endpoint, site: Site) -> str:
        """A further call; returns the variable of its text."""
        variable = f"text{len(self.calls)}"
        self.calls.append(PlannedCall(variable, request, endpoint, site))
        return variable

    def server_of(self, variable: str) -> Endpoint:
        """Which server knows `variable`."""
        return next(call.endpoint for call in self.calls if call.variable == variable)

    def submissions(self) -> list[tuple[Endpoint, list[PlannedCall]]]:
        """The calls by server, without what is not worth a program."""
        groups: dict[Endpoint, list[PlannedCall]] = {}
        for call in self.calls:
            groups.setdefault(call.endpoint, []).append(call)
        return [(endpoint, calls) for endpoint, calls in groups.items() if len(calls) >= WORTH_SENDING]


def program_of(calls: Sequence[PlannedCall], *, streaming: bool) -> Program:
    """What is sent. `streaming`: the app reads its last calls' text as it comes."""
    read = {name for call in calls for name in call.inputs}
    last = [call.variable for call in calls if call.variable not in read]
    return Program(
        # A variable has one producer, so its name serves as the call's id as well.
        calls=[Call(id=call.variable, output=call.variable, request=call.request) for call in calls],
        outputs=[],
        parrot=Options(lifetime="prefetch"),
        deltas=last if streaming else "none",
        stream=True,
    )
