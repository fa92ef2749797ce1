"""The input of a chain as the shape that its plan depends on, and the strings that its plan is filled with."""

from __future__ import annotations

from collections.abc import Hashable

from langchain_core.runnables.utils import AddableDict

from semantic_parrot.adapters.langchain.values import Fields, Items, Known, Text, Value
from semantic_parrot.adapters.marks import Dependent, Hole

#: Of larger inputs, no plan is kept.
MOST = 512


def shape_of(value: object, strings: list[str]) -> Hashable:
    """What is alike of all inputs that one plan is for; what differs is added to `strings`. Raises Dependent if no
    plan can be kept."""
    kind = type(value)
    if kind is str:
        assert isinstance(value, str)
        strings.append(value)
        if len(strings) > MOST:
            raise Dependent
        return str
    if kind is dict or kind is AddableDict:
        assert isinstance(value, dict)
        for key in value:
            if type(key) is not str:
                raise Dependent
        return (dict, *value, *[shape_of(item, strings) for item in value.values()])
    if kind is list:
        assert isinstance(value, list)
        if len(value) > MOST:
            raise Dependent
        return (list, *[shape_of(item, strings) for item in value])
    if kind in _ATOMS:
        return (kind, repr(value))  # 1 is True, and 0.0 is -0.0, but not in a prompt
    raise Dependent


_ATOMS = (int, float, bool, type(None))


def lift_shape(value: object, holes: list[Hole]) -> Value:
    """An input, of which `shape_of` is known, as a symbolic value with holes for its strings, in the same order."""
    if type(value) is str:
        holes.append(Hole(len(holes)))
        return Text((holes[-1],))
    if isinstance(value, dict):
        return Fields({key: lift_shape(item, holes) for key, item in value.items()})
    if isinstance(value, list):
        return Items(tuple(lift_shape(item, holes) for item in value))
    return Known(value)
