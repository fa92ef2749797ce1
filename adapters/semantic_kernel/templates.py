"""What a prompt template consists of, read from Semantic Kernel's own parse of it: text, holes and calls, in order.

`TABLE` is all there is to it. Control flow, helpers and expressions are cut: such a template is rendered by the app.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pybars import PybarsError
from pybars._compiler import Compiler
from semantic_kernel.prompt_template import HandlebarsPromptTemplate, Jinja2PromptTemplate, KernelPromptTemplate
from semantic_kernel.prompt_template.prompt_template_base import PromptTemplateBase
from semantic_kernel.prompt_template.utils import HANDLEBAR_SYSTEM_HELPERS, JINJA2_SYSTEM_HELPERS
from semantic_kernel.template_engine.blocks.code_block import CodeBlock
from semantic_kernel.template_engine.blocks.function_id_block import FunctionIdBlock
from semantic_kernel.template_engine.blocks.text_block import TextBlock
from semantic_kernel.template_engine.blocks.val_block import ValBlock
from semantic_kernel.template_engine.blocks.var_block import VarBlock


class Cut(Exception):
    """Planning stops here; the message says why. `told`: somebody has noted it."""

    told = False


@dataclass(frozen=True, slots=True)
class Named:
    """The value of the variable `name`, in an argument."""

    name: str


@dataclass(frozen=True, slots=True)
class Hole:
    """The value of a variable."""

    name: str


@dataclass(frozen=True, slots=True)
class Ask:
    """What a function returns. `block`: Semantic Kernel's own, which enriches the arguments; else `given` are added to
    them."""

    name: str
    block: Any = None
    given: tuple[tuple[str, Named | object], ...] = ()


Part = str | Hole | Ask


@dataclass(frozen=True, slots=True)
class Layout:
    parts: tuple[Part, ...]

    @property
    def asks(self) -> tuple[Ask, ...]:
        return tuple(part for part in self.parts if isinstance(part, Ask))


def layout_of(template: PromptTemplateBase) -> Layout:
    """Raises Cut."""
    read = TABLE.get(type(template))
    if read is None:
        raise Cut(f"{type(template).__name__} is not lowered")
    return read(template)


def _kernel(template: KernelPromptTemplate) -> Layout:
    return Layout(tuple(_BLOCKS[type(block)](block) for block in _known(template._blocks)))


def _known(blocks: Sequence[object]) -> Sequence[Any]:
    for block in blocks:
        if type(block) not in _BLOCKS:
            raise Cut(f"its template has a {type(block).__name__}")
    return blocks


def _code(block: CodeBlock) -> Part:
    if not isinstance(block.tokens[0], FunctionIdBlock):
        raise Cut("its template has a code block that calls nothing")
    return Ask(block.tokens[0].content, block)


_BLOCKS: dict[type, Callable[[Any], Part]] = {
    TextBlock: lambda block: str(block.content),
    ValBlock: lambda block: str(block.render()),
    VarBlock: lambda block: Hole(block.name),
    CodeBlock: _code,
}


def _jinja2(template: Jinja2PromptTemplate) -> Layout:
    return _jinja2_text(template.prompt_template_config.template or "")


# Prompts that are made on the spot come with a new template object each time, and often with the same text.
@lru_cache(512)
def _jinja2_text(text: str) -> Layout:
    try:
        body = ImmutableSandboxedEnvironment(enable_async=True).parse(text).body
    except TemplateSyntaxError as error:
        raise Cut(f"its template is no Jinja2: {error}") from None
    found: list[Part] = []
    for node in body:
        if not isinstance(node, nodes.Output):
            raise Cut("its template has Jinja2 control flow")
        found += [_jinja2_part(piece) for piece in node.nodes]
    return Layout(tuple(found))


def _jinja2_part(node: nodes.Expr) -> Part:
    match node:
        case nodes.TemplateData():
            return node.data
        case nodes.Name(name=name) if name not in JINJA2_SYSTEM_HELPERS:
            return Hole(name)
        case nodes.Call(node=nodes.Name(name=name), args=[], dyn_args=None, dyn_kwargs=None, kwargs=kwargs) if (
            name not in JINJA2_SYSTEM_HELPERS
        ):
            return Ask(name, given=tuple((pair.key, _jinja2_value(pair.value)) for pair in kwargs))
    raise Cut("its template has a Jinja2 expression")


def _jinja2_value(node: nodes.Expr) -> Named | object:
    if isinstance(node, nodes.Name):
        return Named(node.name)
    if isinstance(node, nodes.Const):
        found: object = node.value
        return found
    raise Cut("its template has a Jinja2 expression")


def _handlebars(template: HandlebarsPromptTemplate) -> Layout:
    return _handlebars_text(template.prompt_template_config.template or "")


@lru_cache(512)
def _handlebars_text(text: str) -> Layout:
    try:
        tree, _ = Compiler._handlebars(Compiler().whitespace_control(text)).apply("template")
    except (PybarsError, AttributeError) as error:  # private: another version may have it elsewhere
        raise Cut(f"its template can't be read: {error}") from None
    return Layout(tuple(_handlebars_part(node) for node in tree[1:]))


def _handlebars_part(node: Any) -> Part:
    match node:
        case ["literal" | "whitespace" | "newline", text]:
            return str(text)
        # pybars4 escapes in neither of the two.
        case ["expand" | "escapedexpand", ["path", [str(name)]], []] if (
            name not in HANDLEBAR_SYSTEM_HELPERS and name != "this"
        ):
            return Ask(name) if "-" in name else Hole(name)
    raise Cut("its template has a Handlebars block, helper or path")


TABLE: dict[type, Callable[[Any], Layout]] = {
    KernelPromptTemplate: _kernel,
    Jinja2PromptTemplate: _jinja2,
    HandlebarsPromptTemplate: _handlebars,
}
