"""What a plan depends on in the app's objects, and whether it is still as it was.

A plan reads the attributes of runnables, prompts and models, lists and dicts in them, and the constants that functions
name. All of these are remembered by identity, which runs no code of the app; and kept, so that no identity is used
again.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from langchain_core.globals import get_llm_cache
from langchain_core.runnables import Runnable
from pydantic import BaseModel

from semantic_parrot.adapters.langchain.lower import LowerableModel
from semantic_parrot.adapters.marks import Dependent

#: Of a chain of more objects, no plan is kept.
MOST = 4000

_MISSING = object()


class Guards:
    """Raises Dependent if there is no telling."""

    def __init__(self, root: object) -> None:
        self._dicts: list[tuple[dict[Any, Any], tuple[Any, ...], list[int]]] = []
        self._lists: list[tuple[list[Any], list[int]]] = []
        self._functions: list[tuple[Callable[[], list[int]], list[int]]] = []
        self._kept: list[object] = []
        self._cache = get_llm_cache()
        seen: set[int] = set()
        waiting = [root]
        while waiting:
            found = waiting.pop()
            if id(found) in seen:
                continue
            seen.add(id(found))
            if len(seen) > MOST:
                raise Dependent
            waiting.extend(self._guard(found))

    def hold(self) -> bool:
        """Whether everything is as it was."""
        if get_llm_cache() is not self._cache:
            return False
        for mapping, keys, ids in self._dicts:
            if [*map(id, mapping.values())] != ids or tuple(mapping) != keys:
                return False
        for sequence, ids in self._lists:
            if [*map(id, sequence)] != ids:
                return False
        return all(read() == ids for read, ids in self._functions)

    def _guard(self, found: object) -> Sequence[object]:
        """Remember what is directly in `found`; what else is to be guarded."""
        if isinstance(found, LowerableModel):
            # Of what is in it, only settings are read.
            return [value for value in self._attributes(found) if type(value) in (list, dict)]
        if isinstance(found, Runnable | BaseModel):
            return self._attributes(found)
        if isinstance(found, types.FunctionType):
            self._function(found)
            return ()
        if type(found) is dict:
            return self._dict(found)
        if type(found) is list:
            self._lists.append((found, [*map(id, found)]))
            self._kept.append(list(found))
            return found
        return found if type(found) is tuple else ()

    def _attributes(self, found: Any) -> Sequence[object]:
        private = getattr(found, "__pydantic_private__", None)
        if private is not None:
            self._dict(private)
        return self._dict(vars(found))

    def _dict(self, found: dict[Any, Any]) -> Sequence[object]:
        values = list(found.values())
        self._dicts.append((found, tuple(found), [*map(id, values)]))
        self._kept.append(values)
        return values

    def _function(self, function: types.FunctionType) -> None:
        """What it names: constants in its closure and its module."""
        names = tuple(dict.fromkeys(_names(function.__code__)))
        cells = function.__closure__ or ()

        def read() -> list[Any]:
            named = [function.__globals__.get(name, _MISSING) for name in names]
            return [function.__code__, function.__closure__, *named, *[_content(cell) for cell in cells]]

        values = read()
        self._kept.append(values)
        self._functions.append((lambda: [*map(id, read())], [*map(id, values)]))


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING  # not assigned yet


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
