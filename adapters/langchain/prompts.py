"""Prompt templates, rendered by LangChain's own code on marks instead of values.

A mark is an ordinary string, so this gives the true prompt wherever a template only inserts strings (f-strings without
conversions, mustache without sections). What does more with a value is cut.
"""

from __future__ import annotations

from collections.abc import Callable
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
from langchain_core.prompts.dict import DictPromptTemplate
from langchain_core.prompts.image import ImagePromptTemplate
from langchain_core.utils import mustache

from semantic_parrot.adapters.langchain.values import (
    SYMBOLIC,
    Cut,
    Data,
    Fields,
    Known,
    Listed,
    Prompt,
    Text,
    Value,
    constant,
    formatted,
    item,
)
from semantic_parrot.adapters.marks import Dependent, Hole, Marks, Part, Ref

_MESSAGE_TEMPLATES = (
    HumanMessagePromptTemplate,
    SystemMessagePromptTemplate,
    AIMessagePromptTemplate,
    ChatMessagePromptTemplate,
)
_PARTS = (PromptTemplate, ImagePromptTemplate, DictPromptTemplate)


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
                _check_type(part, type(part) in _PARTS)
                if isinstance(part, PromptTemplate):
                    rendered |= _rendered(part, variables, marks)
                else:
                    rendered |= {name: constant(variables[name]) for name in part.input_variables}
    return Prompt(tuple(prompt.format_messages(**rendered)))


def string_prompt(prompt: PromptTemplate, value: Value, marks: Marks) -> Prompt:
    variables = _variables(prompt, value)
    return Prompt((HumanMessage(content=prompt.format(**_rendered(prompt, variables, marks))),), string=True)


def _check_type(found: object, known: bool) -> None:
    if not known:
        raise Cut(f"{type(found).__name__} in a prompt is not lowered")


def _variables(prompt: ChatPromptTemplate | PromptTemplate, value: Value) -> dict[str, Value]:
    """The prompt's variables, from its input and its partials."""
    given: dict[Any, Value]
    names = prompt.input_variables
    match value:
        case Fields(known, None):
            given = dict(known)
        case Fields(known):
            given = {**{name: item(value, name) for name in names}, **known}
        case Data(ref) if len(names) == 1:  # a dict, or the variable itself
            given = {names[0]: Data(ref.then("member", key=names[0]))}
        case Data():
            given = {name: item(value, name) for name in names}
        case _ if len(names) == 1:
            given = {names[0]: value}
        case _:
            raise Cut("the prompt has several variables and its input is not known to be a dict")
    missing = [name for name in prompt.input_variables if name not in given]
    if missing:
        raise Cut(f"the prompt's variable {missing[0]!r} is missing")
    return {**_partials(prompt), **given}


def _partials(prompt: ChatPromptTemplate | PromptTemplate) -> dict[str, Value]:
    for name, partial in prompt.partial_variables.items():
        if callable(partial):
            raise Cut(f"the partial variable {name!r} is computed by a function", partial)
    return {name: Known(partial) for name, partial in prompt.partial_variables.items()}


def _rendered(prompt: PromptTemplate, variables: dict[str, Value], marks: Marks) -> dict[str, object]:
    """What to render `prompt` with: each variable that it names, with marks in the place of answers."""
    rule = _FORMATS.get(prompt.template_format)
    if rule is None:
        raise Cut(f"{prompt.template_format} templates are not lowered")
    return rule(prompt, {**_partials(prompt), **variables}, marks)


def _f_string(prompt: PromptTemplate, variables: dict[str, Value], marks: Marks) -> dict[str, object]:
    found: dict[str, object] = {}
    for _, name, spec, conversion in Formatter().parse(prompt.template):
        if name is None:
            continue
        if name not in variables:
            raise Cut(f"the prompt's variable {name!r} is missing")
        value = variables[name]
        if not isinstance(value, SYMBOLIC):
            found[name] = constant(value)
        elif spec or conversion:
            _needs_no_hole(value)
            raise Cut(f"{name!r} is formatted with {conversion or spec!r}")
        else:
            found[name] = marks.write(formatted(value))
        if spec and "{" in spec:
            raise Cut(f"the format of {name!r} is a variable")
    return found


_PLAIN_TAGS = {"literal", "comment", "variable", "no escape"}


def _mustache(prompt: PromptTemplate, variables: dict[str, Value], marks: Marks) -> dict[str, object]:
    tokens = list(mustache.tokenize(prompt.template))
    tags = {tag for tag, _ in tokens}
    if "partial" in tags:
        raise Cut("a mustache template reads another from a file")
    found: dict[str, object] = {}
    shown: dict[str, str] = {}
    for tag, key in tokens:
        name = key.partition(".")[0]
        if tag in ("literal", "comment", "end") or name not in variables:
            continue
        value = variables[name]
        if not isinstance(value, SYMBOLIC):
            found[name] = constant(value)
            continue
        if not tags <= _PLAIN_TAGS or name != key:
            _needs_no_hole(value)
            raise Cut(f"a mustache template does more with {name!r} than insert it")
        if shown.setdefault(name, tag) != tag:
            _needs_no_hole(value)
            raise Cut(f"{name!r} stands both escaped and as it is in one template")
        if tag == "variable" and isinstance(value, Listed):
            raise Cut("a mustache template escapes a list")
        found[name] = marks.write([_escaped(p) if tag == "variable" else p for p in formatted(value)])
    return found


def _escaped(part: Part) -> Part:
    """What mustache does to an answer; to texts around it, it does so when it renders."""
    match part:
        case Ref():
            for char, code in _CODES:
                part = part.then("regex", mode="replace", pattern=char, replacement=code)
        case Hole(number, replaced):
            return Hole(number, replaced + _CODES)
    return part


_CODES = (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;"))


def _needs_no_hole(value: Value) -> None:
    if isinstance(value, Text) and any(isinstance(part, Hole) for part in value.parts):
        raise Dependent


_FORMATS: dict[str, Callable[[PromptTemplate, dict[str, Value], Marks], dict[str, object]]] = {
    "f-string": _f_string,
    "mustache": _mustache,
}
