"""Where the running code is in the app's templates: enough to plan what comes after it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from semantic_parrot.adapters.scope import Scope


@dataclass(slots=True)
class Planned:
    """What a plan contains of one run of a function: its calls in the template, as far as they are planned, and
    whether its own model call is. `streams`: the app reads its answer as it comes, so that is not planned."""

    inner: list[Planned] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Frame:
    """A prompt function that runs. `done`: what the calls in its template returned so far; `running`: the prompt
    function that the next one is. `lost`: something else was called than the template says, so nothing is known."""

    function: Any
    kernel: Any
    arguments: Any
    scope: Scope
    parent: Frame | None = None
    streams: bool = False
    planned: Planned = field(default_factory=Planned)
    done: list[Any] = field(default_factory=list)
    running: Frame | None = None
    lost: bool = False

    @property
    def root(self) -> Frame:
        return self if self.parent is None else self.parent.root


# RENDERING: the function whose template is being rendered, so that what is invoked is a call in it. RUNNING: the
# function that runs. DEFERRED: what an invocation is part of already.
RENDERING: ContextVar[Frame | None] = ContextVar("parrot_sk_rendering", default=None)
RUNNING: ContextVar[Frame | None] = ContextVar("parrot_sk_running", default=None)
