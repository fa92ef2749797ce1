"""The lowering: a prompt function, and the prompt functions that its template calls, become calls of a plan.

Nothing of the app is run: templates are read, values that only the server will know are marks in strings, and Semantic
Kernel's own code does the rest: it fills in defaults, encodes arguments, selects the service, parses the prompt.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import copy
from typing import Any

from semantic_kernel.contents.kernel_content import KernelContent
from semantic_kernel.exceptions import (
    KernelFunctionNotFoundError,
    KernelPluginNotFoundError,
    KernelServiceNotFoundError,
)
from semantic_kernel.functions import FunctionResult, KernelArguments
from semantic_kernel.functions.kernel_function_from_prompt import KernelFunctionFromPrompt
from semantic_kernel.prompt_template import HandlebarsPromptTemplate, Jinja2PromptTemplate, KernelPromptTemplate

from semantic_parrot.adapters.endpoint import Endpoint
from semantic_parrot.adapters.marks import Part, Ref
from semantic_parrot.adapters.plan import Plan
from semantic_parrot.adapters.semantic_kernel.frames import Frame, Planned
from semantic_parrot.adapters.semantic_kernel.messages import escaped, messages_of
from semantic_parrot.adapters.semantic_kernel.templates import Ask, Cut, Hole, Named, layout_of
from semantic_parrot.adapters.semantic_kernel.trace import NO_TRACE, Trace
from semantic_parrot.adapters.stats import SiteLedger, SiteNames


class LowerableService(ABC):
    """A service whose calls can be planned."""

    @property
    @abstractmethod
    def parrot_endpoint(self) -> Endpoint:
        """The server that its calls go to."""

    @abstractmethod
    def parrot_obstacle(self, settings: Any) -> str | None:
        """Why a call of this service with `settings` can't be planned, or None."""

    @abstractmethod
    def parrot_request(self, settings: Any, messages: list[dict[str, Any]], plan: Plan) -> dict[str, Any]:
        """The body of the request that it would send for `messages`, which may hold marks; with templates. Raises
        Cut."""


#: How deep functions may be nested: a template may call itself.
DEPTH = 20


class Lowering:
    """One walk, which adds to `plan`. `sending`: the frame whose model call is about to go out, with its request."""

    def __init__(
        self,
        plan: Plan,
        names: SiteNames,
        ledger: SiteLedger,
        trace: Trace = NO_TRACE,
        sending: tuple[Frame, dict[str, Any]] | None = None,
    ) -> None:
        self.plan = plan
        self.trace = trace
        self.sent: str | None = None
        self._names = names
        self._ledger = ledger
        self._sending = sending
        self._settings: dict[int, dict[str, Any]] = {}

    def run(
        self, kernel: Any, function: Any, arguments: Any, planned: Planned, *, outermost: bool = False
    ) -> tuple[Part, ...]:
        """The parts of the text that `function` returns; unless `outermost`, it is one of several that are planned
        together. Raises Cut, with everything planned that comes before."""
        return self._function(kernel, function, arguments, None, planned, 0 if outermost else 1)

    def resume(self, root: Frame) -> None:
        """Plan what `root` still has to do."""
        root.planned = Planned()
        try:
            self._function(root.kernel, root.function, root.arguments, root, root.planned, 0)
        except Cut:
            return

    def _function(
        self, kernel: Any, function: Any, given: Any, frame: Frame | None, planned: Planned, depth: int
    ) -> tuple[Part, ...]:
        with self.trace.function(function) as step:
            try:
                return self._prompt_function(kernel, function, given, frame, planned, depth)
            except Cut as cut:
                step.cut(cut)
                raise

    def _prompt_function(
        self, kernel: Any, function: Any, given: Any, frame: Frame | None, planned: Planned, depth: int
    ) -> tuple[Part, ...]:
        if type(function) is not KernelFunctionFromPrompt:
            raise Cut("it is code of the app")
        if depth > DEPTH:
            raise Cut("it is nested too deep")
        arguments = self._own(given)
        function.update_arguments_with_defaults(arguments)
        prompt = self._render(kernel, function, arguments, frame, planned, depth)
        if frame is not None and frame.streams:
            raise Cut("its answer is streamed")
        site = self._names.name(function, "call")
        reason = self._ledger.reason(site)
        if reason is not None:
            raise Cut(reason)
        try:
            service, settings = kernel.select_ai_service(function=function, arguments=arguments)
        except KernelServiceNotFoundError:
            raise Cut("no service is found for it") from None
        if not isinstance(service, LowerableService):
            raise Cut(f"{type(service).__name__} is no service of Parrot")
        reason = service.parrot_obstacle(settings)
        if reason is not None:
            raise Cut(reason)
        if depth and settings.hints():
            raise Cut("its settings have hints of their own")
        sent = self._sending is not None and frame is self._sending[0]
        if self._sending is not None and sent:
            request = self._sending[1]
        else:
            request = service.parrot_request(settings, messages_of(service, prompt, self.plan.marks), self.plan)
        variable = self.plan.add(request, service.parrot_endpoint, site)
        if sent:
            self.sent = variable
        if not depth:
            self.plan.hints = settings.hints()
        self.trace.call(variable)
        return (Ref(variable),)

    def _own(self, given: Any) -> Any:
        """A copy of the arguments. Selecting a service changes the settings in them, which templates share: so do
        the copies, and the app's stay as they are."""
        arguments = copy(given)
        shared = given.execution_settings
        if shared:
            if id(shared) not in self._settings:
                own = dict(shared)
                self._settings[id(shared)] = self._settings[id(own)] = own
            arguments.execution_settings = self._settings[id(shared)]
        return arguments

    def _render(
        self, kernel: Any, function: Any, arguments: Any, frame: Frame | None, planned: Planned, depth: int
    ) -> str:
        """The prompt, with marks; what has run is known by now."""
        template = function.prompt_template
        layout = layout_of(template)
        trusted = self._trusted(template, arguments)
        plain = template._get_allow_dangerously_set_function_output()
        found: list[str] = []
        calls = 0
        for part in layout.parts:
            match part:
                case str():
                    found.append(part)
                case Hole():
                    found.append(self._hole(template, part, trusted))
                case Ask():
                    text = self._ask(kernel, template, part, trusted, frame, planned, calls, depth)
                    calls += 1
                    found.append(text if plain else self._escaped(text))
        return "".join(found)

    def _trusted(self, template: Any, arguments: Any) -> Any:
        """As the template encodes its arguments."""
        if template.allow_dangerously_set_content:
            return arguments
        config = template.prompt_template_config
        raw = {v.name for v in config.input_variables if v.allow_dangerously_set_content}
        found = KernelArguments(settings=arguments.execution_settings)
        for name, value in arguments.items():
            if isinstance(value, str) and self.plan.marks.marked(value):
                value = value if config.allow_dangerously_set_content or name in raw else self._escaped(value)
            else:
                try:
                    value = template._get_encoded_value_or_default(name, value)
                except NotImplementedError as error:
                    raise Cut(str(error)) from None
            found[name] = value
        return found

    def _escaped(self, text: str) -> str:
        return self.plan.marks.write([escaped(part) for part in self.plan.marks.read(text)])

    def _hole(self, template: Any, hole: Hole, arguments: Any) -> str:
        value = arguments.get(hole.name)
        if isinstance(template, KernelPromptTemplate):
            if value is not None and not _is_plain(value):
                raise Cut(f"a {type(value).__name__} is used in its template")
            return "" if value is None else str(value)
        if type(value) is not str:
            raise Cut(f"{hole.name!r} is no string")
        return value

    def _ask(
        self,
        kernel: Any,
        template: Any,
        ask: Ask,
        arguments: Any,
        frame: Frame | None,
        planned: Planned,
        number: int,
        depth: int,
    ) -> str:
        """What call `number` of the template returns."""
        if frame is not None and number < len(frame.done):
            planned.inner.append(Planned())
            return _text(frame.done[number], empty="" if isinstance(template, KernelPromptTemplate) else "None")
        running = frame.running if frame is not None and number == len(frame.done) else None
        inner = Planned()
        if running is not None:
            function, enriched = running.function, running.arguments
            running.planned = inner
        else:
            function, enriched = _CALLS[type(template)](self, kernel, ask, arguments)
        if isinstance(function, KernelFunctionFromPrompt):
            planned.inner.append(inner)
        return self.plan.marks.write(self._function(kernel, function, enriched, running, inner, depth + 1))

    def block_call(self, kernel: Any, ask: Ask, arguments: Any) -> tuple[Any, Any]:
        block = ask.block
        function = function_of(kernel, ask)
        enriched = copy(arguments)
        if len(block.tokens) > 1:
            if not function.metadata.parameters:
                raise Cut(f"{ask.name!r} takes no arguments")
            enriched = block._enrich_function_arguments(kernel, enriched, function.metadata)
        return function, enriched

    def helper_call(self, kernel: Any, ask: Ask, arguments: Any) -> tuple[Any, Any]:
        if ask.name in arguments:
            raise Cut(f"{ask.name!r} is an argument and a function")
        function = function_of(kernel, ask)
        enriched = KernelArguments()
        if arguments.execution_settings:
            enriched.execution_settings = arguments.execution_settings
        enriched.update(arguments)
        for key, value in ask.given:
            if isinstance(value, Named):
                if value.name not in arguments:
                    raise Cut(f"{value.name!r} is no argument")
                value = arguments[value.name]
            enriched[key] = value
        return function, enriched


def function_of(kernel: Any, ask: Ask) -> Any:
    """The function that a template calls; what is named as a helper may be several: the last one. Raises Cut."""
    if ask.block is not None:
        identity = ask.block.tokens[0]
        try:
            return kernel.get_function(identity.plugin_name, identity.function_name)
        except (KernelFunctionNotFoundError, KernelPluginNotFoundError):
            raise Cut(f"there is no function {ask.name!r}") from None
    found = None
    name = ask.name
    for plugin in kernel.plugins.values():
        for function in plugin:
            full = function.fully_qualified_name
            if name in (full, full.replace("-", "_")):
                found = function
    if found is None:
        raise Cut(f"there is no function {name!r}")
    return found


_CALLS: Mapping[type, Any] = {
    KernelPromptTemplate: Lowering.block_call,
    Jinja2PromptTemplate: Lowering.helper_call,
    HandlebarsPromptTemplate: Lowering.helper_call,
}

_PLAIN = (str, int, float, bool, type(None))


def _is_plain(value: object) -> bool:
    """Whether ``str(value)`` runs no code of the app."""
    return type(value) in _PLAIN


def _text(result: Any, empty: str) -> str:
    """What a template makes of the result of a call in it."""
    if result is None:
        return empty
    if type(result) is not FunctionResult:
        raise Cut(f"a filter made the result a {type(result).__name__}")
    value = result.value
    items = value if isinstance(value, list) else [value]
    if not all(_is_plain(item) or isinstance(item, KernelContent) for item in items):
        raise Cut("a function of the app returned an object of its own")
    return str(result)
