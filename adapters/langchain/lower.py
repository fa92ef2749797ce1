"""The lowering: LangChain's own runnables, read and never run, become calls of a plan.

`TABLE` is all there is to it: what it does not list by exact type is cut. A cut value is UNKNOWN, and whatever comes
after it waits until the app has made it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import chat_models
from langchain_core.output_parsers import (
    CommaSeparatedListOutputParser,
    JsonOutputParser,
    MarkdownListOutputParser,
    NumberedListOutputParser,
    StrOutputParser,
)
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBinding, RunnableEach, RunnableParallel, RunnableSequence
from langchain_core.runnables.passthrough import RunnableAssign, RunnablePick
from langchain_core.runnables.retry import RunnableRetry

from semantic_parrot.adapters.endpoint import Endpoint
from semantic_parrot.adapters.langchain import lambdas
from semantic_parrot.adapters.langchain.trace import NO_TRACE, Trace
from semantic_parrot.adapters.langchain.values import (
    UNKNOWN,
    Answered,
    Cut,
    Data,
    Fields,
    Items,
    Known,
    Listed,
    Prompt,
    Text,
    Unknown,
    Value,
    answer_text,
    fields,
    has_unknown,
    item,
    items,
    joined,
    listed,
    text,
    text_of,
)
from semantic_parrot.adapters.marks import Ref
from semantic_parrot.adapters.plan import Plan, Site
from semantic_parrot.core.body import MAX_BOUND
from semantic_parrot.core.wire import content_key

if TYPE_CHECKING:
    from langchain_core.prompts import ChatPromptTemplate, PromptTemplate

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

    def parrot_answer(self, text: Ref) -> Value:
        """What calling it returns, if the answer's text is `text`."""
        return Answered(text)

    @abstractmethod
    def parrot_request(self, given: Any, kwargs: Kwargs, plan: Plan, site: Site) -> dict[str, Any]:
        """The body of the request that calling it with `given` (messages or a text, which may hold marks) would send,
        with templates. Raises Cut."""


class Lowering:
    """One walk over runnables, which adds to `plan`. `name_site` names the place of a call in the app's objects.
    `streaming`: values pass between the app's runnables in pieces. `kept`: answers, by their keys, that are there for
    the calls to come."""

    def __init__(
        self,
        plan: Plan,
        name_site: Callable[[object, object], Site],
        trace: Trace = NO_TRACE,
        *,
        streaming: bool = False,
        kept: Counter[str] | None = None,
    ) -> None:
        self.plan = plan
        self.trace = trace
        self.streaming = streaming
        self._kept = kept
        self._name_site = name_site
        self._place: tuple[object, object] = (None, None)

    def run(self, runnable: Runnable[Any, Any], value: Value, place: tuple[object, object] | None = None) -> Value:
        """What `runnable` makes of `value`; UNKNOWN if it is cut. `place`: (composite, position) that it stands at."""
        outer, self._place = self._place, place or (runnable, None)
        with self.trace.step(runnable) as step:
            try:
                return self.lower(runnable, value, {})
            except Cut as cut:
                step.cut(cut)
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
        rule = rule_of(runnable)
        if rule is None:
            raise Cut(f"{type(runnable).__name__} is not lowered")
        return rule(self, runnable, value, kwargs)

    def at(self, place: tuple[object, object], runnable: Runnable[Any, Any], value: Value, kwargs: Kwargs) -> Value:
        """`lower`, for a runnable that code stands around which is no runnable: `place` names where."""
        outer, self._place = self._place, place
        try:
            return self.lower(runnable, value, kwargs)
        finally:
            self._place = outer

    def _call(self, model: LowerableModel, value: Value, kwargs: Kwargs) -> Value:
        match value:
            case Prompt(messages, string):
                given: Any = messages[0].content if string else list(messages)
            case Text(parts):
                given = self.plan.marks.write(parts)
            case Known(real) if type(real) is str:
                given = real
            case _:
                raise Cut("its input is no prompt")
        site = self._name_site(*self._place)
        request = model.parrot_request(given, kwargs, self.plan, site)
        if self._kept and self._kept[key := content_key(request)] > 0:
            self._kept[key] -= 1
            raise Cut("its answer is there already")
        variable = self.plan.add(request, model.parrot_endpoint, site)
        self.trace.call(variable)
        return model.parrot_answer(Ref(variable))

    def each(self, listed: Listed, body: Callable[[Value], Value]) -> Value:
        """What `body` makes of each member of a list whose length is not known yet."""
        member: Callable[[Ref], Value]
        with self.plan.each(listed.ref) as repeated:
            made = body(listed.member(Ref(repeated.item)))
            endpoint = self.plan.server_of(repeated.item)
            match made:
                case Answered(ref):
                    repeated.result, member = self.plan.name(ref), Answered
                case Data(ref):
                    repeated.result, member = self.plan.name(ref), Data
                case Text(parts):
                    repeated.result, member = self.plan.text(parts, endpoint), text
        if repeated.result is None:
            raise Cut("what it makes of each item is known only at run time")
        return Listed(listed.ref if repeated.result == repeated.item else Ref(repeated.output), member)

    def covers(self, *runnables: object) -> None:
        """These are now contained in the plan: running them needs no plan of their own."""
        times = 1 if self.plan.repeating is None else MAX_BOUND
        for runnable in runnables:
            self.plan.covered[id(runnable)] += times


def _sequence(low: Lowering, runnable: Runnable[Any, Any], value: Value, kwargs: Kwargs) -> Value:
    if kwargs:
        raise Cut("arguments are bound to a sequence")
    low.covers(runnable)
    return low.steps(runnable, steps_of(runnable) or (), value)


def _branches(low: Lowering, parallel: RunnableParallel[Any], value: Value) -> dict[object, Value]:
    return {key: low.run(step, value, (parallel, key)) for key, step in dict(parallel.steps__).items()}


def _parallel(low: Lowering, runnable: RunnableParallel[Any], value: Value, kwargs: Kwargs) -> Value:
    low.covers(runnable)
    return Fields(_branches(low, runnable, value))


def _assign(low: Lowering, runnable: RunnableAssign, value: Value, kwargs: Kwargs) -> Value:
    known = fields(value)
    low.covers(runnable, runnable.mapper)
    return Fields({**known.values, **_branches(low, runnable.mapper, value)}, _added_up(low, known))


def _added_up(low: Lowering, known: Fields) -> Ref | Unknown | None:
    """What of `known` is passed on in pieces: in a stream, these are added up, and of JSON each piece is a whole."""
    return UNKNOWN if low.streaming and known.rest is not None else known.rest


def _pick(low: Lowering, runnable: RunnablePick, value: Value, kwargs: Kwargs) -> Value:
    known = fields(value)
    known = Fields(known.values, _added_up(low, known))
    if isinstance(runnable.keys, str):
        return item(known, runnable.keys)
    keys = [key for key in runnable.keys if known.rest is not None or key in known.values]
    return Fields({key: item(known, key) for key in keys})


def _passthrough(low: Lowering, runnable: RunnablePassthrough[Any], value: Value, kwargs: Kwargs) -> Value:
    if runnable.func is not None or runnable.afunc is not None:
        raise Cut("RunnablePassthrough calls a function of the app")
    return value


def _binding(low: Lowering, runnable: RunnableBinding[Any, Any], value: Value, kwargs: Kwargs) -> Value:
    return low.lower(runnable.bound, value, {**runnable.kwargs, **kwargs})


def _each(low: Lowering, runnable: RunnableEach[Any, Any], value: Value, kwargs: Kwargs) -> Value:
    if kwargs:
        raise Cut("arguments are bound to a map")
    low.covers(runnable)

    def body(one: Value) -> Value:
        return low.run(runnable.bound, one, (runnable, "each"))

    dynamic = listed(value)
    streaming, low.streaming = low.streaming, False  # a map that is streamed invokes what it maps
    try:
        return low.each(dynamic, body) if dynamic is not None else Items(tuple(map(body, items(value))))
    finally:
        low.streaming = streaming


def _retry(low: Lowering, runnable: RunnableRetry[Any, Any], value: Value, kwargs: Kwargs) -> Value:
    """The first attempt; the app plans a second one when it makes it."""
    low.covers(runnable)
    return low.lower(runnable.bound, value, {**runnable.kwargs, **kwargs})


def _fallbacks(low: Lowering, runnable: RunnableWithFallbacks[Any, Any], value: Value, kwargs: Kwargs) -> Value:
    """The first choice, likewise."""
    if runnable.exception_key is not None:
        raise Cut("its fallbacks read the exception")
    low.covers(runnable)
    return low.lower(runnable.runnable, value, kwargs)


def _chat_prompt(low: Lowering, runnable: ChatPromptTemplate, value: Value, kwargs: Kwargs) -> Value:
    from semantic_parrot.adapters.langchain import prompts

    return prompts.chat_prompt(runnable, value, low.plan.marks)


def _string_prompt(low: Lowering, runnable: PromptTemplate, value: Value, kwargs: Kwargs) -> Value:
    from semantic_parrot.adapters.langchain import prompts

    return prompts.string_prompt(runnable, value, low.plan.marks)


def _str_parser(low: Lowering, runnable: StrOutputParser, value: Value, kwargs: Kwargs) -> Value:
    return joined(text_of(value))


def _json_parser(low: Lowering, runnable: JsonOutputParser, value: Value, kwargs: Kwargs) -> Value:
    if runnable.diff:
        raise Cut("its parser makes patches")
    # In a stream, the parser gives what it has after each piece. Of dicts the next step takes the last one; lists,
    # texts and numbers it adds up.
    options = {"only": "object"} if low.streaming else {}
    return Data(answer_text(value).then("json", **options))


def _comma_parser(low: Lowering, runnable: CommaSeparatedListOutputParser, value: Value, kwargs: Kwargs) -> Value:
    return Listed(answer_text(value).then("csv"), text)


def _lines_parser(low: Lowering, runnable: NumberedListOutputParser, value: Value, kwargs: Kwargs) -> Value:
    pattern = _LINES[type(runnable)]
    if runnable.pattern != type(runnable).model_fields["pattern"].default:
        raise Cut("its parser has a pattern of the app")
    return Listed(answer_text(value).then("regex", mode="findall", pattern=pattern, group=1), text)


def _lambda(low: Lowering, runnable: RunnableLambda[Any, Any], value: Value, kwargs: Kwargs) -> Value:
    function = getattr(runnable, "func", None)
    if function is None or kwargs:
        raise Cut("an asynchronous function is code of the app")
    if isinstance(value, Unknown):
        raise Cut("its input is known only at run time")
    return lambdas.apply(function, value, low.each)


def plain_type(runnable: object) -> type:
    """Its exact type; of a generic class with type arguments, the class itself."""
    origin: type | None = getattr(type(runnable), "__pydantic_generic_metadata__", {}).get("origin")
    return origin or type(runnable)


Rule = Callable[[Lowering, Any, Value, Kwargs], Value]


def rule_of(runnable: object) -> Rule | None:
    """How `runnable` is lowered; None if it is not."""
    kind = plain_type(runnable)
    return _sequence if is_graph_sequence(kind) else TABLE.get(kind) or PROMPTS.get((kind.__module__, kind.__name__))


def is_graph_sequence(kind: type) -> bool:
    """Whether it is LangGraph's own sequence, which need not be imported to know it."""
    return kind.__name__ == "RunnableSeq" and kind.__module__.startswith("langgraph.")


def steps_of(runnable: object) -> Sequence[Any] | None:
    """The steps of a sequence; None if it is none."""
    if isinstance(runnable, RunnableSequence) or is_graph_sequence(type(runnable)):
        steps: Sequence[Any] = runnable.steps  # type: ignore[attr-defined]
        return steps
    return None


TABLE: dict[type, Rule] = {
    RunnableSequence: _sequence,
    RunnableParallel: _parallel,
    RunnableAssign: _assign,
    RunnablePick: _pick,
    RunnablePassthrough: _passthrough,
    RunnableBinding: _binding,
    RunnableEach: _each,
    RunnableLambda: _lambda,
    StrOutputParser: _str_parser,
    JsonOutputParser: _json_parser,
    CommaSeparatedListOutputParser: _comma_parser,
    NumberedListOutputParser: _lines_parser,
    MarkdownListOutputParser: _lines_parser,
    RunnableRetry: _retry,
    RunnableWithFallbacks: _fallbacks,
}
#: By module and name: importing them takes jinja2 along, which an app without prompts should not have to wait for.
PROMPTS: dict[tuple[str, str], Rule] = {
    ("langchain_core.prompts.chat", "ChatPromptTemplate"): _chat_prompt,
    ("langchain_core.prompts.prompt", "PromptTemplate"): _string_prompt,
}
# The parsers' own patterns for RE2, whose digits and spaces are ASCII: where that matters, nothing is claimed.
_LINES = {NumberedListOutputParser: r"\d+\.\s([^\n]+)", MarkdownListOutputParser: r"(?m)^\s*[-*]\s([^\n]+)$"}

# What newer versions return from `model.bind`: a binding with other type annotations.
_MODEL_BINDING = getattr(chat_models, "_ChatModelBinding", None)
if _MODEL_BINDING is not None:
    TABLE[_MODEL_BINDING] = _binding
