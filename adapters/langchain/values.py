"""Symbolic values: what is known, while planning, of a value that the app is going to compute.

Each operation below mirrors one of Python's or LangChain's on the real value, or raises Cut. None runs user code: a
value of a type that is not listed in `is_plain` is never formatted, compared or iterated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from langchain_core.messages import BaseMessage
from langchain_core.runnables.utils import AddableDict

from semantic_parrot.adapters.marks import Dependent, Hole, Part, Ref


class Cut(Exception):
    """Planning stops here; the message says why. `cause`: the app's function or class that is why, if one is."""

    def __init__(self, message: str, cause: object = None) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Known:
    """A value that is there already."""

    value: object


@dataclass(frozen=True, slots=True)
class Answered:
    """The message that a planned call returns; `ref` is its text."""

    ref: Ref


@dataclass(frozen=True, slots=True)
class Text:
    """A string of known texts and texts of planned calls."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Data:
    """JSON that the server makes; of which type, is known only at run time."""

    ref: Ref


@dataclass(frozen=True, slots=True)
class Listed:
    """A list that the server makes. `member`: what kind of value each of its members is."""

    ref: Ref
    member: Callable[[Ref], Value]


@dataclass(frozen=True, slots=True)
class Fields:
    """A dict. `rest`: one whose keys are known only at run time, and which has every key that `values` lacks; UNKNOWN
    if only the run itself makes it."""

    values: Mapping[object, Value]
    rest: Ref | Unknown | None = None


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt value: messages whose texts may hold marks of the plan. `string`: it is a text, as one message."""

    messages: tuple[BaseMessage, ...]
    string: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """Known only when the app has run up to here."""


Value = Known | Answered | Text | Data | Listed | Fields | Items | Prompt | Unknown
UNKNOWN = Unknown()
#: Values that the server makes, and of which a prompt can be made.
SYMBOLIC = (Answered, Text, Data, Listed)

_ATOMS = (str, int, float, bool, type(None))
_DEPTH = 8


def is_plain(value: object, depth: int = 0) -> bool:
    """Whether `value` is made of builtins and LangChain messages only, so that formatting it runs no user code."""
    if type(value) in _ATOMS:
        return True
    if depth > _DEPTH:
        return False
    if type(value) in (list, tuple):
        assert isinstance(value, list | tuple)
        return all(is_plain(item, depth + 1) for item in value)
    if type(value) in (dict, AddableDict):
        assert isinstance(value, dict)
        return all(is_plain(k, depth + 1) and is_plain(v, depth + 1) for k, v in value.items())
    # TextAccessor is LangChain's own str.
    own = type(value).__module__.startswith("langchain_core.messages")
    return own and isinstance(value, BaseMessage | str)


def lift(value: object) -> Value:
    """A real value as a symbolic one."""
    if type(value) in (dict, AddableDict):
        assert isinstance(value, dict)
        return Fields({key: lift(item) for key, item in value.items()})
    return Known(value)


def has_unknown(value: Value) -> bool:
    match value:
        case Unknown():
            return True
        case Fields(values):
            return any(has_unknown(item) for item in values.values())
        case Items(values):
            return any(has_unknown(item) for item in values)
    return False


def constant(value: Value) -> object:
    """The real value, built of builtins only. Raises Cut unless all of it is known, Dependent if a hole is in it."""
    match value:
        case Known(real):
            if not is_plain(real):
                raise Cut(f"a {type(real).__name__} is used in a prompt")
            return real
        case Fields(values, None):
            return {key: constant(item) for key, item in values.items()}
        case Items(values):
            return [constant(item) for item in values]
        case Text(parts) if not any(isinstance(part, Ref) for part in parts):
            if any(isinstance(part, Hole) for part in parts):
                raise Dependent
            return "".join(str(part) for part in parts)
    raise Cut("it needs a value that only the run itself makes")


def joined(parts: Sequence[Part]) -> Text:
    """A Text with neighbouring constants merged."""
    merged: list[Part] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        elif part != "":
            merged.append(part)
    return Text(tuple(merged))


def text(ref: Ref) -> Text:
    """The string `ref`."""
    return Text((ref,))


def string(value: Value) -> tuple[Part, ...]:
    """The parts of a value that is a str, or that anything but a str would be an error for. Raises Cut for others."""
    match value:
        case Text(parts):
            return parts
        case Data(ref):
            return (ref,)
        case Known(real) if type(real) is str:
            return (real,)
    raise Cut("it is not known to be a string")


def formatted(value: Value) -> tuple[Part, ...]:
    """The parts of `format(value, "")`, as prompts and f-strings interpolate it."""
    match value:
        case Text(parts):
            return parts
        case Data(ref):
            return (ref,)
        case Listed(ref, member) if member is not Answered:
            return (ref,)
        case Answered() | Listed():
            raise Cut("a whole message is formatted into a text")
    real = constant(value)
    return (format(real, ""),)


def text_of(value: Value) -> tuple[Part, ...]:
    """The parts of what StrOutputParser makes of a value."""
    match value:
        case Answered(ref):
            return (ref,)
        case Text():
            return value.parts
        case Known(real) if type(real) is str:
            return (real,)
    raise Cut("it parses neither a message nor a string")


def answer_text(value: Value) -> Ref:
    """The text that a parser is given, where that is one answer and nothing else."""
    match text_of(value):
        case (Ref() as ref,):
            return ref
    raise Cut("it parses a text that is not one answer")


def fields(value: Value) -> Fields:
    match value:
        case Fields():
            return value
        case Data(ref):
            return Fields({}, ref)
    raise Cut("its input is not known to be a dict")


def items(value: Value) -> tuple[Value, ...]:
    """The members of a list of known length."""
    match value:
        case Items(values):
            return values
        case Known(real) if type(real) in (list, tuple):
            assert isinstance(real, list | tuple)
            return tuple(lift(item) for item in real)
    raise Cut("the length of its input is known only at run time")


def listed(value: Value) -> Listed | None:
    """`value` as a list of unknown length, if it may be one."""
    match value:
        case Listed():
            return value
        case Data(ref):
            return Listed(ref, Data)
    return None


def item(value: Value, key: object) -> Value:
    """`value[key]`."""
    found: Value
    match value:
        case Fields(values) if type(key) in _ATOMS and key in values:
            found = values[key]
        case Fields(_, Ref() as rest) if type(key) is str:
            found = Data(rest.then("get", path=(key,)))
        case Data(ref) if type(key) in (str, int):
            found = Data(ref.then("get", path=(key,)))
        case Listed(ref, member) if type(key) is int:
            found = member(ref.then("get", path=(key,)))
        case Items() | Known() if type(key) is int:
            known = items(value)
            if not -len(known) <= key < len(known):
                raise Cut(f"there is no item {key}")
            found = known[key]
        case _:
            raise Cut(f"there is no item {key!r} in what is known of its input")
    if isinstance(found, Unknown):
        raise Cut(f"item {key!r} is known only at run time")
    return found
