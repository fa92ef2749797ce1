"""Whether a program may start: what of its calls, transforms and values can be known before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from semantic_parrot.core.errors import InvalidRequest, TooLarge
from semantic_parrot.core.program import Branch, Call, Map, Program
from semantic_parrot.core.request import ModelRequest, parse_request
from semantic_parrot.core.shape import Shape
from semantic_parrot.core.transforms import check as check_transform
from semantic_parrot.core.value import JSON, refuse_large
from semantic_parrot.core.wire import TEMPLATE, references, render

#: Of a request, at a place of the program.
Check = Callable[[ModelRequest, str], object]


def admit(program: Program, existing: Collection[str], check: Check) -> None:
    """Raises ParrotError with the place of the first fault. `existing`: the variables of the session that it joins;
    `check` (request, place) raises UnknownModel, or Unsupported for what its engines can't do. Cycles and unknown
    references are the graph's to refuse."""
    checked: set[Shape | str] = set()
    for where, node in program.places():
        if isinstance(node, Call):
            _check_call(node, f"{where}.request", checked, check)
        elif not isinstance(node, Map | Branch):
            check_transform(node, where)
    for name, value in program.inputs.items():
        if value is None and program.parrot.session is None:
            raise InvalidRequest("an input without a value needs a session to set it in", where=f"inputs.{name}")
        refuse_large_input(f"inputs.{name}", value)
    known = {node.output for node in program.nodes()} | set(program.inputs) | set(existing)
    for place in ("outputs", "parrot.objectives"):
        for name in (program.outputs or ()) if place == "outputs" else program.parrot.objectives:
            if name not in known:
                raise InvalidRequest(f"{place} names the unknown variable {name!r}", where=place)


def refuse_large_input(where: str, value: JSON) -> None:
    """Raises InvalidRequest for JSON larger than transforms may make; a text may be as long as a body."""
    try:
        if not isinstance(value, str):
            refuse_large(value)
    except TooLarge as error:
        raise InvalidRequest(f"{where}: {error.message}", where=where) from None


class _AnyText(dict[str, str]):
    """Stands for every variable while a program is checked before it has values."""

    def __missing__(self, name: str) -> str:
        return "x"


def _check_call(
    call: Call, where: str, checked: set[Shape | str], check: Callable[[ModelRequest, str], object]
) -> None:
    """What can be known of a call before its inputs have values. `checked`: what is valid."""
    shape = call.prompt.shape
    if shape in checked:
        return
    checked.add(shape)
    kind = _kind(shape.request)
    if kind is None or kind not in checked:
        if variables := references({"model": call.request.get("model")}, where):
            message = f"{where}.model: the model must be known beforehand, and not by variable {variables[0]!r}"
            raise InvalidRequest(message, where=f"{where}.model")
        request = parse_request(render(shape.request, _AnyText()), prefix=where, allow_empty=True)
        check(request, where)
        if kind is not None:
            checked.add(kind)


def _kind(request: Mapping[str, Any]) -> str | None:
    """All of a chat request that its validity can depend on, once its templates are known to be well-formed; None if
    that is not plain to see. A program's calls are of few kinds, and validating one costs more than all the rest."""
    kinds = []
    messages = request.get("messages")
    if not isinstance(messages, list):
        return None
    for message in messages:
        if not isinstance(message, dict) or len(message) != 2 or "content" not in message:
            return None
        content = message["content"]
        if not isinstance(content, str) and not (isinstance(content, dict) and TEMPLATE in content):
            return None
        kinds.append(message.get("role"))
    return repr(({key: value for key, value in request.items() if key != "messages"}, kinds))
