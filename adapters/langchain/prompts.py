"""Prompt templates, rendered by LangChain's own code on marks instead of values.

A mark is an ordinary string, so this gives the true prompt wherever a template only inserts strings (f-strings without
conversions). What does more with a value is cut.
"""

from __future__ import annotations

from string import Formatter
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.prompts import (
    AIMessagePromptTemplate,
    ChatMessagePromptTemplate,
    ChatPromptTemplate,
    HumanMessagePromptTemplate,
    MessagesPlaceholder,
    PromptTemplate,
    SystemMessagePromptTemplate,
)

from semantic_parrot.adapters.langchain.values import (
    Answered,
    Cut,
    Fields,
    Known,
    Prompt,
    Text,
    Value,
    constant,
    formatted,
)
from semantic_parrot.adapters.marks import Marks

_MESSAGE_TEMPLATES = (
    HumanMessagePromptTemplate,
    SystemMessagePromptTemplate,
    AIMessagePromptTemplate,
    ChatMessagePromptTemplate,
)


def chat_prompt(prompt: ChatPromptTemplate, value: Value, marks: Marks) -> Prompt:
    variables = _variables(prompt, value)
    rendered: dict[str, object] = {}
    for message in prompt.messages:
        if isinstance(message, BaseMessage):
            _check_type(message, type(message).__module__.startswith("langchain_core.messages"))
        elif type(message) is MessagesPlaceholder:
            if message.variable_name in variables:
                rendered[message.variable_name] = constant(variables[message.variable_name])
        else:
            _check_type(message, type(message) in _MESSAGE_TEMPLATES)
            assert isinstance(message, _MESSAGE_TEMPLATES)
            for part in message.prompt if isinstance(message.prompt, list) else [message.prompt]:
                _check_type(part, type(part) is PromptTemplate)
                assert isinstance(part, PromptTemplate)
                rendered |= _rendered(part, variables, marks)
    return Prompt(tuple(prompt.format_messages(**rendered)))


def string_prompt(prompt: PromptTemplate, value: Value, marks: Marks) -> Prompt:
    variables = _variables(prompt, value)
    return Prompt((HumanMessage(content=prompt.format(**_rendered(prompt, variables, marks))),))


def _check_type(found: object, known: bool) -> None:
    if not known:
        raise Cut(f"{type(found).__name__} in a prompt is not lowered")


def _variables(prompt: ChatPromptTemplate | PromptTemplate, value: Value) -> dict[str, Value]:
    """The prompt's variables, from its input and its partials."""
    given: dict[Any, Value]
    if isinstance(value, Fields):
        given = dict(value.values)
    elif len(prompt.input_variables) == 1:
        given = {prompt.input_variables[0]: value}
    else:
        raise Cut("the prompt has several variables and its input is not known to be a dict")
    missing = [name for name in prompt.input_variables if name not in given]
    if missing:
        raise Cut(f"the prompt's variable {missing[0]!r} is missing")
    return {**_partials(prompt), **given}


def _partials(prompt: ChatPromptTemplate | PromptTemplate) -> dict[str, Value]:
    for name, partial in prompt.partial_variables.items():
        if callable(partial):
            raise Cut(f"the partial variable {name!r} is computed by a function")
    return {name: Known(partial) for name, partial in prompt.partial_variables.items()}


def _rendered(prompt: PromptTemplate, variables: dict[str, Value], marks: Marks) -> dict[str, object]:
    """What to render `prompt` with: each variable that it names, with marks in the place of answers."""
    if prompt.template_format != "f-string":
        raise Cut(f"{prompt.template_format} templates are not lowered")
    variables = {**_partials(prompt), **variables}
    found: dict[str, object] = {}
    for _, name, spec, conversion in Formatter().parse(prompt.template):
        if name is None:
            continue
        if name not in variables:
            raise Cut(f"the prompt's variable {name!r} is missing")
        value = variables[name]
        if not isinstance(value, Text | Answered):
            found[name] = constant(value)
        elif spec or conversion:
            raise Cut(f"{name!r} is formatted with {conversion or spec!r}")
        else:
            found[name] = marks.write(formatted(value))
        if spec and "{" in spec:
            raise Cut(f"the format of {name!r} is a variable")
    return found
