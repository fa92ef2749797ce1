"""Reading simple lambdas: what a function of one expression does to a symbolic value, from its source.

The function is never called. Its expression is found by its bytecode's positions (Python 3.11), so several lambdas in
one line are told apart.
"""

from __future__ import annotations

import ast
import functools
import inspect
import operator
import types
from collections.abc import Callable
from typing import Any

from semantic_parrot.adapters.langchain.values import (
    Answered,
    Cut,
    Fields,
    Items,
    Known,
    Listed,
    Text,
    Value,
    constant,
    formatted,
    item,
    items,
    joined,
    listed,
    string,
    text,
)
from semantic_parrot.adapters.marks import Part

_FLAGS = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | inspect.CO_GENERATOR | inspect.CO_COROUTINE
_ATOMS = (str, int, float, bool, type(None))


Each = Callable[[Listed, Callable[[Value], Value]], Value]


def apply(function: Callable[..., Any], value: Value, each: Each) -> Value:
    """What `function` makes of `value`. Raises Cut if it can't be told from its source. `each` does something for every
    member of a list of unknown length."""
    if type(function) is operator.itemgetter:
        keys = function.__reduce__()[1]
        if len(keys) != 1:
            raise Cut("itemgetter with several keys")
        return item(value, keys[0])
    if type(function) is not types.FunctionType:
        raise Cut(f"{getattr(function, '__name__', type(function).__name__)} is code of the app")
    try:
        expression, argument = _source(function.__code__)
    except Cut as cut:
        raise Cut(f"{function.__name__} is code of the app: {cut}", function) from None
    return _Reader(function, {argument: value}, each).read(expression)


class _Reader:
    """`names`: the values of the local names."""

    def __init__(self, function: types.FunctionType, names: dict[str, Value], each: Each) -> None:
        self._function = function
        self._names = names
        self._each = each

    def read(self, node: ast.expr) -> Value:
        rule = _RULES.get(type(node))
        if rule is None:
            raise Cut(f"{self._function.__name__} is code of the app: {ast.unparse(node)[:60]!r} can't be read")
        return rule(self, node)

    def name(self, node: ast.Name) -> Value:
        if node.id in self._names:
            return self._names[node.id]
        free = self._function.__code__.co_freevars
        if node.id in free:
            value = (self._function.__closure__ or ())[free.index(node.id)].cell_contents
        elif node.id in self._function.__globals__:
            value = self._function.__globals__[node.id]
        else:
            raise Cut(f"the name {node.id!r} can't be read")
        if type(value) not in _ATOMS:
            raise Cut(f"the name {node.id!r} is no constant")
        return Known(value)

    def constant(self, node: ast.Constant) -> Value:
        return Known(node.value)

    def negative(self, node: ast.UnaryOp) -> Value:
        value = constant(self.read(node.operand))
        if not isinstance(node.op, ast.USub) or type(value) not in (int, float):
            raise Cut(f"{ast.unparse(node)[:60]!r} can't be read")
        assert isinstance(value, int | float)
        return Known(-value)

    def dict(self, node: ast.Dict) -> Value:
        found = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                raise Cut("a dict is unpacked")
            found[constant(self.read(key))] = self.read(value)
        return Fields(found)

    def list(self, node: ast.List) -> Value:
        return Items(tuple(self.read(element) for element in node.elts))

    def subscript(self, node: ast.Subscript) -> Value:
        return item(self.read(node.value), constant(self.read(node.slice)))

    def attribute(self, node: ast.Attribute) -> Value:
        value = self.read(node.value)
        if isinstance(value, Answered) and node.attr == "content":
            return Text((value.ref,))
        raise Cut(f"the attribute {node.attr!r} can't be read")

    def f_string(self, node: ast.JoinedStr) -> Value:
        parts: list[Part] = []
        for piece in node.values:
            if isinstance(piece, ast.Constant):
                parts.append(str(piece.value))
            elif isinstance(piece, ast.FormattedValue) and piece.format_spec is None and piece.conversion == -1:
                parts += formatted(self.read(piece.value))
            else:
                raise Cut("an f-string formats a value")
        return joined(parts)

    def plus(self, node: ast.BinOp) -> Value:
        if not isinstance(node.op, ast.Add):
            raise Cut(f"{ast.unparse(node)[:60]!r} can't be read")
        return joined([*string(self.read(node.left)), *string(self.read(node.right))])

    def comprehension(self, node: ast.ListComp | ast.GeneratorExp) -> Value:
        loop = node.generators[0]
        if len(node.generators) != 1 or loop.ifs or loop.is_async or not isinstance(loop.target, ast.Name):
            raise Cut("the comprehension is not simple")
        name = loop.target.id

        def one(member: Value) -> Value:
            return _Reader(self._function, {**self._names, name: member}, self._each).read(node.elt)

        over = self.read(loop.iter)
        dynamic = listed(over)
        if dynamic is not None:
            return self._each(dynamic, one)
        return Items(tuple(one(member) for member in items(over)))

    def call(self, node: ast.Call) -> Value:
        method = node.func
        if isinstance(method, ast.Attribute) and method.attr == "join" and len(node.args) == 1 and not node.keywords:
            between = string(self.read(method.value))
            over = self.read(node.args[0])
            dynamic = listed(over)
            if dynamic is not None:
                if dynamic.member is Answered:
                    raise Cut("it joins whole messages")
                return text(dynamic.ref.then("join", sep=constant(joined(between))))
            parts: list[Part] = []
            for i, value in enumerate(items(over)):
                parts += [*(between if i else ()), *string(value)]
            return joined(parts)
        raise Cut(f"it calls {ast.unparse(node.func)[:60]}")


_RULES: dict[type[ast.expr], Callable[[_Reader, Any], Value]] = {
    ast.Name: _Reader.name,
    ast.Constant: _Reader.constant,
    ast.UnaryOp: _Reader.negative,
    ast.Dict: _Reader.dict,
    ast.List: _Reader.list,
    ast.Subscript: _Reader.subscript,
    ast.Attribute: _Reader.attribute,
    ast.JoinedStr: _Reader.f_string,
    ast.BinOp: _Reader.plus,
    ast.ListComp: _Reader.comprehension,
    ast.GeneratorExp: _Reader.comprehension,
    ast.Call: _Reader.call,
}


# Finding the source. Cached by code object, so a chain built anew for each request is read once.


@functools.lru_cache(4096)
def _source(code: types.CodeType) -> tuple[ast.expr, str]:
    """The one expression that `code` returns, and its one parameter's name."""
    if code.co_argcount != 1 or code.co_kwonlyargcount or code.co_flags & _FLAGS:
        raise Cut("it does not simply take one value")
    try:
        lines, _ = inspect.findsource(code)
        tree = _parsed("".join(lines))
    except (OSError, TypeError, SyntaxError):
        raise Cut("it has no source") from None
    found = [pair for node in ast.walk(tree) if (pair := _body(node, code)) is not None]
    # Of nested lambdas, each of which spans the positions, the innermost is meant.
    inner = [pair for pair in found if not any(o is not pair and _within(o[0], pair[0]) for o in found)]
    if len(inner) != 1:
        raise Cut("its body is more than one expression" if not inner else "its source is ambiguous")
    return inner[0]


@functools.lru_cache(256)
def _parsed(source: str) -> ast.Module:
    return ast.parse(source)


def _body(node: ast.AST, code: types.CodeType) -> tuple[ast.expr, str] | None:
    """(expression, parameter) if `node` may be what `code` was compiled from."""
    if isinstance(node, ast.Lambda) and code.co_name == "<lambda>":
        return (node.body, _parameter(node.args)) if _spans(node.body, code) else None
    if isinstance(node, ast.FunctionDef) and node.name == code.co_name and not node.decorator_list:
        body = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
        if node.lineno == code.co_firstlineno and len(body) == 1 and isinstance(body[0], ast.Return) and body[0].value:
            return body[0].value, _parameter(node.args)
    return None


def _parameter(arguments: ast.arguments) -> str:
    return (*arguments.posonlyargs, *arguments.args, ast.arg("?"))[0].arg


def _spans(body: ast.expr, code: types.CodeType) -> bool:
    start, end = (body.lineno, body.col_offset), (body.end_lineno or 0, body.end_col_offset or 0)
    first = (code.co_firstlineno, 0)  # RESUME carries the function's own position
    places = [p for p in code.co_positions() if None not in p and (p[0], p[2]) != first]
    spans = [(a or 0, c or 0, b or 0, d or 0) for a, b, c, d in places]
    return bool(spans) and all(start <= (a, c) and (b, d) <= end for a, c, b, d in spans)


def _within(a: ast.expr, b: ast.expr) -> bool:
    starts = (b.lineno, b.col_offset) <= (a.lineno, a.col_offset)
    return starts and (a.end_lineno or 0, a.end_col_offset or 0) <= (b.end_lineno or 0, b.end_col_offset or 0)
