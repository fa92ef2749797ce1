"""The transforms that a program may use: declarative, free of side effects, bounded. `core.transforms` does them.

`of` is the variable that an operation reads. Fields are named as Python's own methods name them, whose results they
give.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue, StringConstraints, field_validator, model_validator

from semantic_parrot.core.model import Name, Reference, Value
from semantic_parrot.core.wire import TEMPLATE, references


class _Operation(Value):
    kind: ClassVar[str] = "transform"

    id: Name
    output: Name

    def awaits(self) -> tuple[str, ...]:
        """The variables that must have values before it runs."""
        return self.inputs()

    def inputs(self) -> tuple[str, ...]:
        """The variables that it reads, each once."""
        raise NotImplementedError


class _Unary(_Operation):
    of: Reference

    def inputs(self) -> tuple[str, ...]:
        return (self.of,)


class Strip(_Unary):
    """``text.strip(chars)``, or ``lstrip`` or ``rstrip``: at which `side`."""

    op: Literal["strip"]
    chars: str | None = None
    side: Literal["both", "left", "right"] = "both"


class Escape(_Unary):
    """``html.escape(text)``: ``& < > " '`` become references."""

    op: Literal["escape"]


class Unescape(_Unary):
    """``html.unescape(text)``: every HTML5 character reference becomes its characters."""

    op: Literal["unescape"]


class XmlText(_Unary):
    """What an XML parser reads where `text` stands between two tags: references become characters, line ends
    ``\\n``. An error where it would read markup, or refuse the text."""

    op: Literal["xml_text"]


class Json(_Unary):
    """Text to JSON as LangChain's JsonOutputParser reads a complete answer, fences included; it repairs nothing.
    `only`: what is no object is an error."""

    op: Literal["json"]
    only: Literal["object"] | None = None


class Get(_Unary):
    """``value[path[0]][path[1]]…``: keys of objects, indexes of lists (negative ones count from the end)."""

    op: Literal["get"]
    path: Annotated[list[str | int], Field(min_length=1, max_length=128)]


class Member(_Unary):
    """``value[key]`` of an object; anything else as it is, as a prompt of one variable takes its input."""

    op: Literal["member"]
    key: str


class Regex(_Unary):
    """RE2. `search`, `match` and `fullmatch` give the text of `group`; `findall` a list of those; `replace` the text
    with every match replaced by `replacement`, which is taken literally."""

    op: Literal["regex"]
    pattern: Annotated[str, StringConstraints(max_length=1000)]
    mode: Literal["search", "match", "fullmatch", "findall", "replace"] = "search"
    group: int | str = 0
    replacement: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Regex:
        if (self.mode == "replace") != (self.replacement is not None):
            raise ValueError("'replace' needs a replacement, and no other mode takes one")
        if self.mode == "replace" and self.group != 0:
            raise ValueError("'replace' takes no group")
        return self


class Csv(_Unary):
    """Text to a list of texts, as LangChain's CommaSeparatedListOutputParser."""

    op: Literal["csv"]


class Split(_Unary):
    """``text.split(sep, maxsplit)``; no `sep` splits at white space."""

    op: Literal["split"]
    sep: Annotated[str, StringConstraints(min_length=1)] | None = None
    maxsplit: Annotated[int, Field(ge=-1, le=1_000_000)] = -1


class Join(_Unary):
    """``sep.join(list)``; every member must be a text, as in Python."""

    op: Literal["join"]
    sep: str = ""


class Template(_Operation):
    """A template of texts and references, as in a request: one text."""

    op: Literal["template"]
    template: dict[str, Any]

    def inputs(self) -> tuple[str, ...]:
        return references(self.template, f"transform {self.id!r}.template")

    @field_validator("template")
    @classmethod
    def _is_a_template(cls, template: dict[str, Any]) -> dict[str, Any]:
        if TEMPLATE not in template:
            raise ValueError(f"a template is an object with the one key {TEMPLATE!r} and a list")
        return template


class Variable(Value):
    var: Reference


class Constant(Value):
    value: JsonValue


class Compare(_Unary):
    """A boolean, as Python's operators give it: ``of == to``, ``to in of`` (contains), ``of < to`` …"""

    op: Literal["compare"]
    test: Literal[
        "equals", "contains", "starts_with", "ends_with", "less", "less_or_equal", "greater", "greater_or_equal"
    ]
    to: Variable | Constant

    def inputs(self) -> tuple[str, ...]:
        other = (self.to.var,) if isinstance(self.to, Variable) else ()
        return tuple(dict.fromkeys((self.of, *other)))


class Case(Value):
    when: JsonValue
    var: Reference


class Select(_Unary):
    """The variable of the first case whose `when` equals `of`, else that of `default`. All of them must have values:
    what is not taken does run. A branch chooses before it runs."""

    op: Literal["select"]
    cases: Annotated[list[Case], Field(min_length=1, max_length=1000)]
    default: Reference | None = None

    def inputs(self) -> tuple[str, ...]:
        rest = () if self.default is None else (self.default,)
        return tuple(dict.fromkeys((self.of, *(case.var for case in self.cases), *rest)))


Transform = Annotated[
    Strip
    | Escape
    | Unescape
    | XmlText
    | Json
    | Get
    | Member
    | Regex
    | Csv
    | Split
    | Join
    | Template
    | Compare
    | Select,
    Field(discriminator="op"),
]
