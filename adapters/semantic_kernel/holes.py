"""The variables of a template: what Semantic Kernel puts in their place, where values of the server are marks."""

from __future__ import annotations

from typing import Any

from semantic_kernel.functions import KernelArguments
from semantic_kernel.prompt_template import KernelPromptTemplate

from semantic_parrot.adapters.marks import Marks
from semantic_parrot.adapters.semantic_kernel.asks import is_plain
from semantic_parrot.adapters.semantic_kernel.messages import escaped
from semantic_parrot.adapters.semantic_kernel.templates import Cut, Hole


def trusted(template: Any, arguments: Any, marks: Marks) -> Any:
    """`arguments` as the template encodes them. Raises Cut."""
    if template.allow_dangerously_set_content:
        return arguments
    config = template.prompt_template_config
    raw = {v.name for v in config.input_variables if v.allow_dangerously_set_content}
    found = KernelArguments(settings=arguments.execution_settings)
    for name, value in arguments.items():
        if isinstance(value, str) and marks.marked(value):
            value = value if config.allow_dangerously_set_content or name in raw else escape(value, marks)
        else:
            try:
                value = template._get_encoded_value_or_default(name, value)
            except NotImplementedError as error:
                raise Cut(str(error)) from None
        found[name] = value
    return found


def escape(text: str, marks: Marks) -> str:
    """`text` as HTML."""
    return marks.write([escaped(part) for part in marks.read(text)])


def filled(template: Any, hole: Hole, arguments: Any) -> str:
    """What stands where `hole` does. Raises Cut."""
    value = arguments.get(hole.name)
    if isinstance(template, KernelPromptTemplate):
        if value is not None and not is_plain(value):
            raise Cut(f"a {type(value).__name__} is used in its template")
        return "" if value is None else str(value)
    if type(value) is not str:
        raise Cut(f"{hole.name!r} is no string")
    return value
