"""When to plan: at the outermost call, at a composite that no plan contains, and at a call that no plan answers."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableBranch, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase, RunnableEachBase, RunnableParallel
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.runnables.passthrough import RunnableAssign

from semantic_parrot.adapters.answers import Answer
from semantic_parrot.adapters.hints import NO_HINTS, Hints, stated_in
from semantic_parrot.adapters.langchain.frames import FRAME, Caller, Frame, caller_of, continue_after, standing
from semantic_parrot.adapters.langchain.lower import LowerableModel, Lowering, steps_of
from semantic_parrot.adapters.langchain.plan_cache import PlanCache
from semantic_parrot.adapters.langchain.values import Cut, Value, lift
from semantic_parrot.adapters.marks import Ref
from semantic_parrot.adapters.plan import WORTH_SENDING, Plan, Site
from semantic_parrot.adapters.planning import BasePlanner, switched_off
from semantic_parrot.adapters.scope import SCOPE, Scope
from semantic_parrot.core.wire import IGNORED, content_key


class Planner(BasePlanner):
    """`installed`: whether the hooks are in."""

    def __init__(self) -> None:
        super().__init__()
        self.installed = False
        self.kept = PlanCache()

    def lowering(self, scope: Scope) -> Lowering:
        return Lowering(Plan(), self.names.name, streaming=scope.streaming, kept=scope.kept())

    def site(self, frame: Frame | None, position: int | None) -> Site:
        """Of the call that step `position` of `frame` makes, named as the lowering names it."""
        return self.names.name(None if frame is None else frame.runnable, position and position - 1)

    def plan(self, runnable: Any, value: object, *, streaming: bool, cached: bool = True) -> Plan:
        """Of a chain that is about to run on `value`. `cached`: a plan that is kept will do."""

        def make(lifted: Value) -> Plan:
            low = Lowering(Plan(), self.names.name, streaming=streaming)
            low.run(runnable, lifted)
            return low.plan

        found = self.kept.plan(runnable, value, streaming, self.ledger.changes, make) if cached else None
        return make(lift(value)) if found is None else found

    def plan_entry(
        self,
        scope: Scope,
        runnable: Any,
        inputs: Sequence[Any],
        configs: Sequence[Mapping[str, Any] | None],
        parent: Frame | None,
    ) -> None:
        """Plan the executions of `runnable` that are about to start inside `parent`, and what follows each of them."""
        with self.guarded():
            if parent is None and len(inputs) == 1:
                plan = self.plan(runnable, inputs[0], streaming=scope.streaming)
            else:
                low = self.lowering(scope)
                for value, config in zip(inputs, configs, strict=True):
                    result = low.run(runnable, lift(value))
                    if parent is not None:
                        continue_after(low, *standing(runnable, parent, caller_of(config)), result)
                plan = low.plan
            plan.covered[id(runnable)] -= len(inputs)  # these run now, under this plan
            scope.cover(plan.covered)
            scope.submit(plan, max_concurrency=most_of(configs))
            scope.leave_alone(plan)

    def plan_calls(
        self,
        scope: Scope,
        model: LowerableModel,
        inputs: Sequence[Any],
        configs: Sequence[Mapping[str, Any] | None],
        kwargs: Mapping[str, Any],
        frame: Frame | None,
    ) -> None:
        """Plan several calls of `model` that are about to start inside `frame`, and what follows each of them, without
        those that are planned already."""
        with self.guarded():
            low = self.lowering(scope)
            held = scope.held()
            for value, config in zip(inputs, configs, strict=True):
                place = standing(model, frame, caller_of(config))
                site = self.site(*place) if frame is not None else self.names.name(model, "batch")
                try:
                    request = model.parrot_request(value, kwargs, low.plan, site)
                except Cut:
                    continue
                key = content_key(request)
                held[key] -= 1
                if held[key] < 0:
                    variable = low.plan.add(request, model.parrot_endpoint, site)
                    continue_after(low, *place, model.parrot_answer(Ref(variable)))
            scope.cover(low.plan.covered)
            scope.submit(low.plan, max_concurrency=most_of(configs))


@dataclass(frozen=True, slots=True)
class ModelSite:
    """A model call in a sequence: the CallSite of `adapters.scope`."""

    planner: Planner
    model: Any
    frame: Frame
    caller: Caller

    def alone(self, scope: Scope) -> bool:
        with self.planner.guarded():
            return scope.is_alone(self.planner.site(*standing(self.model, self.frame, self.caller)))
        return False

    def replan(self, scope: Scope, request: Mapping[str, Any]) -> Answer | None:
        with self.planner.guarded():
            place = standing(self.model, self.frame, self.caller)
            site = self.planner.site(*place)
            low = self.planner.lowering(scope)
            body = {key: value for key, value in request.items() if key not in IGNORED}
            variable = low.plan.add(body, self.model.parrot_endpoint, site)
            if self.model.parrot_obstacle() is None and self.planner.ledger.reason(site) is None:
                continue_after(low, *place, self.model.parrot_answer(Ref(variable)))
                answer = scope.submit(low.plan, reserved=variable, max_concurrency=most_of(()))
                if answer is not None:
                    scope.cover(low.plan.covered)
                return answer
        return None


# The planner of this process: what it counts and learns is about the process.
PLANNER = Planner()

_FOUND: dict[int, tuple[weakref.ref[Any], bool]] = {}


def contains_model(runnable: Any) -> bool:
    """Whether a model of ours can be reached without entering code of the app. Remembered while the object lives."""
    known = _FOUND.get(id(runnable))
    if known is not None and known[0]() is runnable:
        return known[1]
    found = _find(runnable, 0)
    number = id(runnable)
    _FOUND[number] = (weakref.ref(runnable, lambda _: _FOUND.pop(number, None)), found)
    return found


_CHILDREN: tuple[tuple[type, Callable[[Any], Sequence[Any]]], ...] = (
    (RunnableParallel, lambda r: tuple(r.steps__.values())),
    (RunnableAssign, lambda r: (r.mapper,)),
    (RunnableEachBase, lambda r: (r.bound,)),
    (RunnableBindingBase, lambda r: (r.bound,)),
    (RunnableWithFallbacks, lambda r: (r.runnable, *r.fallbacks)),
    (RunnableBranch, lambda r: (*(arm for _, arm in r.branches), r.default)),
)


def _find(runnable: Any, depth: int) -> bool:
    if isinstance(runnable, LowerableModel):
        return True
    if depth > 40:
        return False
    return any(_find(child, depth + 1) for child in children_of(runnable))


def children_of(runnable: Any) -> Sequence[Any]:
    """The runnables that `runnable` is composed of, where LangChain's own classes tell."""
    steps = steps_of(runnable)
    if steps is not None:
        return steps
    for kind, children in _CHILDREN:
        if isinstance(runnable, kind):
            return children(runnable)
    return ()


def enabled() -> bool:
    return PLANNER.installed and not switched_off()


@dataclass(frozen=True, slots=True)
class Visit:
    """A composite runs: what its code finds in the context. `owned`: the scope that ends with it."""

    scope: Scope
    frame: Frame | None
    owned: bool

    @contextmanager
    def inside(self) -> Iterator[None]:
        scope, frame = SCOPE.set(self.scope), FRAME.set(self.frame)
        try:
            yield
        finally:
            FRAME.reset(frame)
            SCOPE.reset(scope)

    def close(self) -> None:
        if self.owned:
            self.scope.close()


def enter(
    runnable: Any,
    inputs: Sequence[Any] | None,
    configs: Sequence[Mapping[str, Any] | None],
    kwargs: Mapping[str, Any],
    *,
    streaming: bool = False,
) -> Visit | None:
    """`runnable` is about to run `inputs` (None: they are not known yet): plan it unless a plan contains it.

    None if it is no business of ours.
    """
    if not contains_model(runnable) or not enabled():
        return None
    scope = running()
    parent = FRAME.get() if scope is not None else None
    if parent is not None and parent.runnable is runnable:  # `batch` that calls `invoke`
        return None
    owned = scope is None
    config = configs[0] if configs else None
    if scope is None:
        stated, most = stated_in(metadata_of(config)), most_of(configs)
        scope = PLANNER.new_scope(streaming=streaming, stated=stated, inputs=len(configs), max_concurrency=most)
    caller = caller_of(config)
    around, position = standing(runnable, parent, caller)
    contained = scope.consume(id(runnable), 1 if inputs is None else len(inputs))
    if inputs is not None and not kwargs and not contained:
        PLANNER.plan_entry(scope, runnable, inputs, configs, parent)
    return Visit(scope, Frame(runnable, around, position, caller.run), owned)


def enter_calls(
    model: LowerableModel,
    inputs: Sequence[Any],
    configs: Sequence[Mapping[str, Any] | None],
    kwargs: Mapping[str, Any],
) -> Visit | None:
    """`model` is about to be called for each of `inputs`, one by one: one program for all. None if there is no use."""
    if len(inputs) < WORTH_SENDING or not enabled() or model.parrot_obstacle() is not None:
        return None
    scope = running()
    owned = scope is None
    frame = None if owned else FRAME.get()
    if scope is None:
        stated, most = stated_in(metadata_of(configs[0])), most_of(configs)
        scope = PLANNER.new_scope(streaming=False, stated=stated, inputs=len(inputs), max_concurrency=most)
    PLANNER.plan_calls(scope, model, inputs, configs, kwargs, frame)
    return Visit(scope, frame, owned)


def most_of(configs: Sequence[Mapping[str, Any] | None]) -> int | None:
    """How many calls the app allows at a time: LangChain goes by the first config of a batch, and by that of the
    runnable around it where that has none. What is no such number is LangChain's to refuse."""
    own = configs[0] if configs else None
    most = (own or {}).get("max_concurrency") or (var_child_runnable_config.get() or {}).get("max_concurrency")
    return most if type(most) is int and most > 0 else None


def metadata_of(config: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Of a call with `config`; where that has none, of the runnable around it, from which LangChain takes it then."""
    found: Mapping[str, Any] | None = (config or {}).get("metadata") or (var_child_runnable_config.get() or {}).get(
        "metadata"
    )
    return found


def hints_for(config: Mapping[str, Any] | None) -> Hints:
    """Of a model call: those of the outermost call, or its own. Raises InvalidRequest for what is none."""
    scope = SCOPE.get()
    return stated_in(metadata_of(config)) if scope is None or scope.stated is NO_HINTS else scope.stated


def running() -> Scope | None:
    """The scope of the running code, unless its outermost call has returned before this task did."""
    scope = SCOPE.get()
    return None if scope is None or scope.closed else scope
