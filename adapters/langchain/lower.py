"""The lowering: LangChain's own runnables, read and never run, become calls of a plan.

`TABLE` is all there is to it: what it does not list by exact type is cut. A cut value is UNKNOWN, and whatever comes
after it waits until the app has made it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.language_models import chat_models
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from langchain_core.runnables.base import RunnableBinding, RunnableEach, RunnableParallel, RunnableSequence
from langchain_core.runnables.passthrough import RunnableAssign, RunnablePick

from semantic_parrot.adapters.endpoint import Endpoint
from semantic_parrot.adapters.langchain import lambdas, prompts
from semantic_parrot.adapters.langchain.trace import NO_TRACE, Trace
from semantic_parrot.adapters.langchain.values import (
    UNKNOWN,
    Answered,
    Cut,
    Fields,
    Items,
    Known,
    Prompt,
    Text,
    Unknown,
    Value,
    fields,
    has_unknown,
    item,
    items,
    joined,
    text_of,
)
from semantic_parrot.adapters.plan import Plan, Site

Kwargs = Mapping[str, Any]


class LowerableModel(ABC):
    """A model whose calls can be planned. A base class and no Protocol: a binding has all attributes of its model."""

    @property
    @abstractmethod
    def parrot_endpoint(self) -> Endpoint:
        """The server that its calls go to."""

    @abstractmethod
    def parrot_obstacle(self) -> str | None:
        """Why no call of this model can be planned, or None."""

    @abstractmethod
    def parrot_request(self, given: Any, kwargs: Kwargs, plan: Plan, site: Site) -> dict[str, Any]:
        """The body of the request that calling it with `given` (messages or a text, which may hold marks) would send,
        with templates. Raises Cut."""


class Lowering:
    """One walk over runnables, which adds to `plan`. `name_site` names the place of a call in the app's objects."""

    def __init__(self, plan: Plan, name_site: Callable[[object, object], Site], trace: Trace = NO_TRACE) -> None:
        self.plan = plan
        self.trace = trace
        self._name_site = name_site
        self._place: tuple[object, object] = (None, None)

    def run(self, runnable: Runnable[Any, Any], value: Value, place: tuple[object, object] | None = None) -> Value:
        """What `runnable` makes of `value`; UNKNOWN if it is cut. `place`: (composite, position) that it stands at."""
        outer, self._place = self._place, place or (runnable, None)
        with self.trace.step(runnable) as step:
            try:
                return self.lower(runnable, value, {})
            except Cut as cut:
                step.cut(str(cut))
                return UNKNOWN
            finally:
                self._place = outer

    def steps(self, sequence: object, steps: Sequence[Runnable[Any, Any]], value: Value, first: int = 0) -> Value:
        """`value` through `steps` of `sequence`, of which `steps[0]` is number `first`."""
        for i, step in enumerate(steps):
            value = self.run(step, value, (sequence, first + i))
            # Later steps run only if the app's own code lets them: they wait for it.
            if has_unknown(value):
                self.trace.later(steps[i + 1 :])
                return UNKNOWN
        return value

    def lower(self, runnable: Runnable[Any, Any], value: Value, kwargs: Kwargs) -> Value:
        """The same, raising Cut. `kwargs` are bound ones that the runnable is called with."""
        if isinstance(runnable, LowerableModel):
            return self._call(runnable, value, kwargs)
        rule = TABLE.get(plain_type(runnable))
        if rule is None:
            raise Cut(f"{type(runnable).__name__} is not lowered")
        return rule(self, runnable, value, kwargs)

    def _call(self, model: LowerableModel, value: Value, kwargs: Kwargs) -> Value:
        match value:
            case Prompt(messages):
                given: Any = list(messages)
            case Text(parts):
                given = self.plan.marks.write(parts)
            case Known(real) if type(real) is str:
                given = real
            case _:
                raise Cut("its input is no prompt")
        site = self._name_site(*self._place)
        request = model.parrot_request(given, kwargs, self.plan, site)
        variable = self.plan.add(request, model.parrot_endpoint, site)
        self.trace.call(variable)
        return Answered(variable)

    def covers(self, *runnables: object) -> None:
        """These are now contained in the plan: running them needs no plan of their own."""
        for runnable in runnables:
            self.plan.covered[id(runnable)] += 1


def _sequence(low: Lowering, runnable: RunnableSequence[Any, Any], value: Value, kwargs: Kwargs) -> Value:
    if kwargs:
        raise Cut("arguments are bound to a sequence")
    low.covers(runnable)
    return low.steps(runnable, runnable.steps, value)


def _branches(low: Lowering, parallel: RunnableParallel[Any], value: Value) -> dict[object, Value]:
    return {key: low.run(step, value, (parallel, key)) for key, step in dict(parallel.steps__).items()}


def _parallel(low: Lowering, runnable: RunnableParallel[Any], value: Value, kwargs: Kwargs) -> Value:
    low.covers(runnable)
    return Fields(_branches(low, runnable, value))


def _assign(low: Lowering, runnable: RunnableAssign, value: Value, kwargs: Kwargs) -> Value:
    known = fields(value)
    low.covers(runnable, runnable.mapper)
    return Fields({**known, **_branches(low, runnable.mapper, value)})


def _pick(low: Lowering, runnable: RunnablePick, value: Value, kwargs: Kwargs) -> Value:
    if isinstance(runnable.keys, str):
        return item(value, runnable.keys)
    known = fields(value)
    return Fields({key: known[key] for key in runnable.keys if key in known})


def _passthrough(low: Lowering, runnable: RunnablePassthrough[Any], value: Value, kwargs: Kwargs) -> Value:
    if runnable.func is not None or runnable.afunc is not None:
        raise Cut("RunnablePassthrough calls a function of the app")
    return value


def _binding(low: Lowering, runnable: RunnableBinding[Any, Any], value: Value, kwargs: Kwargs) -> Value:
    return low.lower(runnable.bound, value, {**runnable.kwargs, **kwargs})


def _each(low: Lowering, runnable: RunnableEach[Any, Any], value: Value, kwargs: Kwargs) -> Value:
    if kwargs:
        raise Cut("arguments are bound to a map")
    listed = items(value)
    low.covers(runnable)
    return Items(tuple(low.run(runnable.bound, one, (runnable, "each")) for one in listed))


def _chat_prompt(low: Lowering, runnable: ChatPromptTemplate, value: Value, kwargs: Kwargs) -> Value:
    return prompts.chat_prompt(runnable, value, low.plan.marks)


def _string_prompt(low: Lowering, runnable: PromptTemplate, value: Value, kwargs: Kwargs) -> Value:
    return prompts.string_prompt(runnable, value, low.plan.marks)


def _str_parser(low: Lowering, runnable: StrOutputParser, value: Value, kwargs: Kwargs) -> Value:
    return joined(text_of(value))


def _lambda(low: Lowering, runnable: RunnableLambda[Any, Any], value: Value, kwargs: Kwargs) -> Value:
    function = getattr(runnable, "func", None)
    if function is None or kwargs:
        raise Cut("an asynchronous function is code of the app")
    if isinstance(value, Unknown):
        raise Cut("its input is known only at run time")
    return lambdas.apply(function, value)


def plain_type(runnable: object) -> type:
    """Its exact type; of a generic class with type arguments, the class itself."""
    origin: type | None = getattr(type(runnable), "__pydantic_generic_metadata__", {}).get("origin")
    return origin or type(runnable)


TABLE: dict[type, Callable[[Lowering, Any, Value, Kwargs], Value]] = {
    RunnableSequence: _sequence,
    RunnableParallel: _parallel,
    RunnableAssign: _assign,
    RunnablePick: _pick,
    RunnablePassthrough: _passthrough,
    RunnableBinding: _binding,
    RunnableEach: _each,
    RunnableLambda: _lambda,
    ChatPromptTemplate: _chat_prompt,
    PromptTemplate: _string_prompt,
    StrOutputParser: _str_parser,
}

# What newer versions return from `model.bind`: a binding with other type annotations.
_MODEL_BINDING = getattr(chat_models, "_ChatModelBinding", None)
if _MODEL_BINDING is not None:
    TABLE[_MODEL_BINDING] = _binding
