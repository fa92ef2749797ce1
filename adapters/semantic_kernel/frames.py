"""Where the running code is in the app's templates: enough to plan what comes after it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from semantic_parrot.adapters.scope import Scope


@dataclass(slots=True)
class Planned:
    """What a plan contains of one run of a function: the calls in its template, as far as they are planned."""

    inner: list[Planned] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Frame:
    """A prompt function that runs. `done`: what the calls in its template returned so far; `running`: the prompt
    function that the next one is. `streams`: the app reads its answer as it comes."""

    function: Any
    kernel: Any
    arguments: Any
    scope: Scope
    parent: Frame | None = None
    streams: bool = False
    planned: Planned = field(default_factory=Planned)
    done: list[Any] = field(default_factory=list)
    running: Frame | None = None

    @property
    def root(self) -> Frame:
        return self if self.parent is None else self.parent.root


@dataclass(frozen=True, slots=True)
class Prepared:
    """A function that is about to be invoked is in a plan of `scope` already, as far as `planned` says."""

    scope: Scope
    planned: Planned


# RENDERING: the function whose template is being rendered, so that what is invoked is a call in it. RUNNING: the
# function that runs. PREPARED: what the next invocation finds planned.
RENDERING: ContextVar[Frame | None] = ContextVar("parrot_sk_rendering", default=None)
RUNNING: ContextVar[Frame | None] = ContextVar("parrot_sk_running", default=None)
PREPARED: ContextVar[Prepared | None] = ContextVar("parrot_sk_prepared", default=None)
