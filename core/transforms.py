"""What the operations of `core.operations` do. Pure functions of bounded cost: they run on the event loop.

Where a framework has the operation too, the value is the framework's or there is an error, never another value.
"""

from __future__ import annotations

import csv
import html
import operator
from collections.abc import Callable, Mapping
from io import StringIO
from typing import Any

from semantic_parrot.core import operations as ops
from semantic_parrot.core.errors import InvalidProgram, NoMatch, TooLarge, TransformFailed, WrongType
from semantic_parrot.core.json_answer import parse_json_answer
from semantic_parrot.core.regexes import check_regex, regex
from semantic_parrot.core.value import JSON, MAX_SIZE, as_text, kind, refuse_large, shown
from semantic_parrot.core.wire import TEMPLATE
from semantic_parrot.core.xml_text import xml_text

Values = Mapping[str, JSON]


def check(transform: ops.Transform, where: str) -> None:
    """What can be known before the inputs have values. Raises InvalidProgram at a field of `where`."""
    transform.inputs()
    if isinstance(transform, ops.Regex):
        try:
            check_regex(transform)
        except TransformFailed as error:
            raise InvalidProgram(f"{where}.{error.where}: {error.message}", where=f"{where}.{error.where}") from None


def apply(transform: ops.Transform, values: Values) -> JSON:
    """The value of `transform`, given those of its inputs. Raises TransformFailed with the value it failed on."""
    result = _APPLY[type(transform)](transform, values)
    refuse_large(result)
    return result


def _text(value: JSON) -> str:
    if not isinstance(value, str):
        raise WrongType(f"expected a text, got {shown(value)}")
    if len(value) > MAX_SIZE:
        raise TooLarge(f"a text of {len(value)} characters, more than {MAX_SIZE}: {value[:80]!r}")
    return value


def _strip(op: ops.Strip, values: Values) -> str:
    return _SIDES[op.side](_text(values[op.of]), op.chars)


def _escape(op: ops.Escape, values: Values) -> str:
    return html.escape(_text(values[op.of]))


def _unescape(op: ops.Unescape, values: Values) -> str:
    return html.unescape(_text(values[op.of]))


def _xml_text(op: ops.XmlText, values: Values) -> str:
    return xml_text(_text(values[op.of]))


def _json(op: ops.Json, values: Values) -> JSON:
    value = parse_json_answer(_text(values[op.of]))
    if op.only is not None and not isinstance(value, dict):
        raise WrongType(f"expected an object, got {shown(value)}")
    return value


def _get(op: ops.Get, values: Values) -> JSON:
    value = values[op.of]
    path: list[Any] = list(op.path)
    for step in path:
        wanted, what = (list, "a list") if isinstance(step, int) else (dict, "an object")
        if type(value) is not wanted:
            raise WrongType(f"{step!r} of {op.path}: expected {what}, got {shown(value)}")
        try:
            value = value[step]
        except (KeyError, IndexError):
            raise NoMatch(f"no {step!r} (path {op.path}) in {shown(value)}") from None
    return value


def _member(op: ops.Member, values: Values) -> JSON:
    value = values[op.of]
    if not isinstance(value, dict):
        return value
    try:
        return value[op.key]
    except KeyError:
        raise NoMatch(f"no {op.key!r} in {shown(value)}") from None


def _regex(op: ops.Regex, values: Values) -> JSON:
    return regex(op, _text(values[op.of]))


def _csv(op: ops.Csv, values: Values) -> list[str]:
    text = _text(values[op.of])
    try:
        rows = csv.reader(StringIO(text), quotechar='"', delimiter=",", skipinitialspace=True)
        return [item for row in rows for item in row]
    except csv.Error:
        return [part.strip() for part in text.split(",")]


def _split(op: ops.Split, values: Values) -> list[str]:
    return _text(values[op.of]).split(op.sep, op.maxsplit)


def _join(op: ops.Join, values: Values) -> str:
    items = values[op.of]
    if not isinstance(items, list):
        raise WrongType(f"expected a list of texts, got {shown(items)}")
    size = len(op.sep) * len(items)
    for i, item in enumerate(items):
        if not isinstance(item, str):
            raise WrongType(f"expected a list of texts, but member {i} is {shown(item)}")
        size += len(item)
        _room(size, items)
    return op.sep.join(items)


def _template(op: ops.Template, values: Values) -> str:
    parts: list[str] = []
    size = 0
    for part in op.template[TEMPLATE]:
        value = part if isinstance(part, str) else values[part["var"]]
        parts.append(as_text(value))
        size += len(parts[-1])
        _room(size, value)
    return "".join(parts)


def _room(size: int, value: JSON) -> None:
    if size > MAX_SIZE:
        raise TooLarge(f"a text of more than {MAX_SIZE} characters, at {shown(value)}")


def _compare(op: ops.Compare, values: Values) -> bool:
    left = values[op.of]
    right = values[op.to.var] if isinstance(op.to, ops.Variable) else op.to.value
    if op.test == "equals":
        return bool(left == right)
    if op.test == "contains":
        return _contains(left, right)
    if op.test in ("starts_with", "ends_with"):
        text, part = _text(left), _text(right)
        return text.startswith(part) if op.test == "starts_with" else text.endswith(part)
    if not any(_are(types, left, right) for types in (str, (int, float))):
        raise WrongType(f"{op.test} compares two texts or two numbers, not {shown(left)} and {shown(right)}")
    return bool(_ORDER[op.test](left, right))


def _are(types: Any, *values: JSON) -> bool:
    return all(isinstance(value, types) and not isinstance(value, bool) for value in values)


def _contains(whole: JSON, part: JSON) -> bool:
    if isinstance(whole, list) or (isinstance(whole, str | dict) and isinstance(part, str)):
        return part in whole
    raise WrongType(f"{kind(part)} can't be contained in {shown(whole)}")


def _select(op: ops.Select, values: Values) -> JSON:
    on = values[op.of]
    for case in op.cases:
        if case.when == on:
            return values[case.var]
    if op.default is None:
        raise NoMatch(f"no case for {shown(on)}, and no default")
    return values[op.default]


_SIDES: dict[str, Callable[[str, str | None], str]] = {"both": str.strip, "left": str.lstrip, "right": str.rstrip}

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "less": operator.lt,
    "less_or_equal": operator.le,
    "greater": operator.gt,
    "greater_or_equal": operator.ge,
}

_APPLY: dict[type, Callable[[Any, Values], JSON]] = {
    ops.Strip: _strip,
    ops.Escape: _escape,
    ops.Unescape: _unescape,
    ops.XmlText: _xml_text,
    ops.Json: _json,
    ops.Get: _get,
    ops.Member: _member,
    ops.Regex: _regex,
    ops.Csv: _csv,
    ops.Split: _split,
    ops.Join: _join,
    ops.Template: _template,
    ops.Compare: _compare,
    ops.Select: _select,
}
