"""`explain`: what a prompt function becomes, which pieces stay on the client and why, in how many round trips."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal

from semantic_kernel.functions import KernelArguments
from semantic_kernel.functions.kernel_function_from_prompt import KernelFunctionFromPrompt

from semantic_parrot.adapters.explanation import Explanation, Piece, Shared, Source, producers, shared_prefixes
from semantic_parrot.adapters.plan import Plan, PlannedCall
from semantic_parrot.adapters.semantic_kernel.asks import function_of
from semantic_parrot.adapters.semantic_kernel.frames import Planned
from semantic_parrot.adapters.semantic_kernel.lower import DEPTH, Lowering
from semantic_parrot.adapters.semantic_kernel.planner import PLANNER, obstacle
from semantic_parrot.adapters.semantic_kernel.templates import Cut, layout_of
from semantic_parrot.adapters.semantic_kernel.trace import Recording, Step

#: What happens next, as far as round trips go: a call that can be planned; one that goes out by itself; neither.
Event = Literal["call", "alone", "break"]


def explain(kernel: Any, function: Any, arguments: Any = None) -> Explanation:
    """What ``kernel.invoke(function, arguments)`` would do. Runs nothing: no code of the app, no request.

    Errors of the planner itself are raised here; a run counts them and goes on without a plan.
    """
    trace = Recording()
    low = Lowering(Plan(), PLANNER.names, PLANNER.ledger, trace)
    given = KernelArguments() if arguments is None else arguments
    refused = obstacle(kernel)
    with suppress(Cut):  # it is in the trace
        low.run(kernel, function, given, Planned(), outermost=True)
    assert trace.root is not None
    calls = {call.variable: call for call in low.plan.calls} if refused is None else {}
    tree = _Tree(kernel, calls, producers(low.plan), shared_prefixes(low.plan.calls))
    root = tree.piece(function, trace.root, 0)
    events = list(tree.events(function, trace.root, 0))
    notes = [] if refused is None else [refused]
    snapshot = PLANNER.statistics.snapshot()
    if snapshot.last_error is not None:
        notes.append(f"the planner failed {snapshot.planner_errors} times, last with {snapshot.last_error}")
    return Explanation(root, tuple(calls.values()), _trips(events, refused is None), tuple(notes))


def _trips(events: list[Event], planning: bool) -> int:
    """Calls that follow each other are one program; a break between them makes two."""
    if not planning:
        return sum(event != "break" for event in events)
    alone = sum(event == "alone" for event in events)
    starts = sum(now == "call" and (i == 0 or events[i - 1] != "call") for i, now in enumerate(events))
    return alone + starts


class _Tree:
    """The functions in a template, and in theirs; `step`: what the lowering made of one that it reached."""

    def __init__(
        self,
        kernel: Any,
        calls: Mapping[str, PlannedCall],
        makers: Mapping[str, tuple[str, ...]],
        shared: Mapping[str, Shared],
    ) -> None:
        self._kernel = kernel
        self._calls = calls
        self._makers = makers
        self._shared = shared

    def _inner(self, function: Any, step: Step | None) -> Iterator[tuple[str, Any, Step | None]]:
        """(name, function if there is one, step if it was reached) of each call in its template."""
        if type(function) is not KernelFunctionFromPrompt:
            return
        try:
            asks = layout_of(function.prompt_template).asks
        except Cut:
            return
        for number, ask in enumerate(asks):
            reached = step.children[number] if step is not None and number < len(step.children) else None
            try:
                yield ask.name, function_of(self._kernel, ask), reached
            except Cut:
                yield ask.name, None, reached

    def piece(self, function: Any, step: Step | None, depth: int) -> Piece:
        name = function.fully_qualified_name
        inner = self._inner(function, step) if depth < DEPTH else iter(())
        children = tuple(
            Piece(label, waits=True) if found is None else self.piece(found, reached, depth + 1)
            for label, found, reached in inner
        )
        if step is None:
            return Piece(name, waits=True, children=children)
        if step.reason is not None:
            return Piece(name, reason=step.reason, source=_source(function), children=children)
        call = self._calls.get(step.variable or "")
        if call is None:
            return Piece(name, waits=step.waits, children=children)
        needs = tuple(dict.fromkeys(maker for read in call.inputs for maker in self._makers.get(read, ())))
        return Piece(
            name,
            call=call.variable,
            reads=call.inputs,
            needs=needs,
            shares=self._shared.get(call.variable),
            children=children,
        )

    def events(self, function: Any, step: Step | None, depth: int) -> Iterator[Event]:
        """In the order in which they happen."""
        for _, found, reached in self._inner(function, step) if depth < DEPTH else ():
            if found is not None:
                yield from self.events(found, reached, depth + 1)
        if type(function) is not KernelFunctionFromPrompt:
            yield "break"
        else:
            yield "alone" if step is not None and step.reason is not None else "call"


def _source(function: Any) -> Source | None:
    """Where a native function stands."""
    method = getattr(function, "method", None)
    code = getattr(inspect.unwrap(method), "__code__", None) if callable(method) else None
    return None if code is None else Source(code.co_filename, code.co_firstlineno)
