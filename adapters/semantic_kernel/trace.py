"""What a lowering did, function by function, for `explain`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from semantic_parrot.adapters.semantic_kernel.templates import Cut


@dataclass(slots=True)
class Step:
    """A function in the tree. `variable`: of the call that it became. `reason`: why it was cut.
    `waits`: for what was cut in its template."""

    function: Any
    variable: str | None = None
    reason: str | None = None
    waits: bool = False
    children: list[Step] = field(default_factory=list)

    def cut(self, cut: Cut) -> None:
        """`cut` passed here. It is told where it was made: further out, all wait."""
        if cut.told:
            self.waits = True
        else:
            self.reason, cut.told = str(cut), True


class Trace:
    """Records nothing."""

    @contextmanager
    def function(self, function: Any) -> Iterator[Step]:
        yield Step(function)

    def call(self, variable: str) -> None: ...


class Recording(Trace):
    """Records a tree; `root` once there is one."""

    def __init__(self) -> None:
        self.root: Step | None = None
        self._open: list[Step] = []

    @contextmanager
    def function(self, function: Any) -> Iterator[Step]:
        step = Step(function)
        if self._open:
            self._open[-1].children.append(step)
        else:
            self.root = step
        self._open.append(step)
        try:
            yield step
        finally:
            self._open.pop()

    def call(self, variable: str) -> None:
        self._open[-1].variable = variable


NO_TRACE = Trace()
