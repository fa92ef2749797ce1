"""The calls in a template: which function each is, with which arguments, and what the template makes of its result.

Semantic Kernel's own templates and those with helpers differ in all three.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

from semantic_kernel.contents.kernel_content import KernelContent
from semantic_kernel.exceptions import KernelFunctionNotFoundError, KernelPluginNotFoundError
from semantic_kernel.functions import FunctionResult, KernelArguments
from semantic_kernel.prompt_template import HandlebarsPromptTemplate, Jinja2PromptTemplate, KernelPromptTemplate

from semantic_parrot.adapters.semantic_kernel.templates import Ask, Cut, Named

Call = tuple[Any, Any]
"""A function, and its arguments."""


def call_of(template: Any, kernel: Any, ask: Ask, arguments: Any) -> Call:
    """Raises Cut."""
    return _CALLS[type(template)](kernel, ask, arguments)


def _block(kernel: Any, ask: Ask, arguments: Any) -> Call:
    block = ask.block
    function = function_of(kernel, ask)
    enriched = copy(arguments)
    if len(block.tokens) > 1:
        if not function.metadata.parameters:
            raise Cut(f"{ask.name!r} takes no arguments")
        enriched = block._enrich_function_arguments(kernel, enriched, function.metadata)
    return function, enriched


def _helper(kernel: Any, ask: Ask, arguments: Any) -> Call:
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


_CALLS: dict[type, Callable[[Any, Ask, Any], Call]] = {
    KernelPromptTemplate: _block,
    Jinja2PromptTemplate: _helper,
    HandlebarsPromptTemplate: _helper,
}

_PLAIN = (str, int, float, bool, type(None))


def is_plain(value: object) -> bool:
    """Whether ``str(value)`` runs no code of the app."""
    return type(value) in _PLAIN


def text_of(template: Any, result: Any) -> str:
    """What `template` makes of the result of a call in it. Raises Cut."""
    if result is None:
        return "" if isinstance(template, KernelPromptTemplate) else "None"
    if type(result) is not FunctionResult:
        raise Cut(f"a filter made the result a {type(result).__name__}")
    value = result.value
    items = value if isinstance(value, list) else [value]
    if not all(is_plain(item) or isinstance(item, KernelContent) for item in items):
        raise Cut("a function of the app returned an object of its own")
    return str(result)
