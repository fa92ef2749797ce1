"""The lowering: a prompt function, and the prompt functions that its template calls, become calls of a plan.

Nothing of the app is run: templates are read, values that only the server will know are marks in strings, and Semantic
Kernel's own code does the rest: it fills in defaults, encodes arguments, selects the service, parses the prompt.
"""

from __future__ import annotations

from copy import copy
from typing import Any

from semantic_kernel.exceptions import KernelServiceNotFoundError
from semantic_kernel.functions.kernel_function_from_prompt import KernelFunctionFromPrompt

from semantic_parrot.adapters.marks import Part, Ref
from semantic_parrot.adapters.plan import Plan
from semantic_parrot.adapters.semantic_kernel.asks import call_of, text_of
from semantic_parrot.adapters.semantic_kernel.frames import Frame, Planned
from semantic_parrot.adapters.semantic_kernel.holes import escape, filled, trusted
from semantic_parrot.adapters.semantic_kernel.services import LowerableService
from semantic_parrot.adapters.semantic_kernel.templates import Ask, Cut, Hole, layout_of
from semantic_parrot.adapters.semantic_kernel.trace import NO_TRACE, Trace
from semantic_parrot.adapters.stats import SiteLedger, SiteNames

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
        service, settings = _service(kernel, function, arguments)
        if depth and settings.hints():
            raise Cut("its settings have hints of their own")
        sent = self._sending is not None and frame is self._sending[0]
        if self._sending is not None and sent:
            request = self._sending[1]
        else:
            request = service.parrot_request(settings, service.parrot_content(prompt, self.plan.marks), self.plan)
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
        given = trusted(template, arguments, self.plan.marks)
        plain = template._get_allow_dangerously_set_function_output()
        found: list[str] = []
        calls = 0
        for part in layout.parts:
            match part:
                case str():
                    found.append(part)
                case Hole():
                    found.append(filled(template, part, given))
                case Ask():
                    text = self._ask(kernel, template, part, given, frame, planned, calls, depth)
                    calls += 1
                    found.append(text if plain else escape(text, self.plan.marks))
        return "".join(found)

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
            return text_of(template, frame.done[number])
        running = frame.running if frame is not None and number == len(frame.done) else None
        inner = Planned()
        if running is not None:
            function, enriched = running.function, running.arguments
            running.planned = inner
        else:
            function, enriched = call_of(template, kernel, ask, arguments)
        if isinstance(function, KernelFunctionFromPrompt):
            planned.inner.append(inner)
        return self.plan.marks.write(self._function(kernel, function, enriched, running, inner, depth + 1))


def _service(kernel: Any, function: Any, arguments: Any) -> tuple[Any, Any]:
    """The service that will run `function`, and its settings. Raises Cut."""
    try:
        service, settings = kernel.select_ai_service(function=function, arguments=arguments)
    except KernelServiceNotFoundError:
        raise Cut("no service is found for it") from None
    if not isinstance(service, LowerableService):
        raise Cut(f"{type(service).__name__} is no service of Parrot")
    reason = service.parrot_obstacle(settings)
    if reason is not None:
        raise Cut(reason)
    return service, settings
