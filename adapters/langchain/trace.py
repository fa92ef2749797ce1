"""What a lowering did, step by step, for `explain`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import Runnable

from semantic_parrot.adapters.langchain.values import Cut


@dataclass(slots=True)
class Step:
    """A runnable in the tree. `variable`: of the call that it became. `reason`: why it was cut, because of `cause`.
    `waits`: it stands after a cut and is planned when its input is known."""

    runnable: Any
    variable: str | None = None
    reason: str | None = None
    cause: object = None
    waits: bool = False
    children: list[Step] = field(default_factory=list)

    def cut(self, cut: Cut) -> None:
        self.reason, self.cause = str(cut), cut.cause


class Trace:
    """Records nothing."""

    @contextmanager
    def step(self, runnable: Runnable[Any, Any]) -> Iterator[Step]:
        yield Step(runnable)

    def call(self, variable: str) -> None: ...

    def later(self, steps: Sequence[Runnable[Any, Any]]) -> None: ...


class Recording(Trace):
    """Records a tree."""

    def __init__(self, root: Runnable[Any, Any]) -> None:
        self.root = Step(root)
        self._open = [self.root]

    @contextmanager
    def step(self, runnable: Runnable[Any, Any]) -> Iterator[Step]:
        if runnable is self.root.runnable and self._open == [self.root] and not self.root.children:
            yield self.root
            return
        step = Step(runnable)
        self._open[-1].children.append(step)
        self._open.append(step)
        try:
            yield step
        finally:
            self._open.pop()

    def call(self, variable: str) -> None:
        self._open[-1].variable = variable

    def later(self, steps: Sequence[Runnable[Any, Any]]) -> None:
        self._open[-1].children += [Step(step, waits=True) for step in steps]


NO_TRACE = Trace()
