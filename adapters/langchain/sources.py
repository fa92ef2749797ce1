"""Where the app's code stands because of which a piece was cut."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator

from langchain_core.runnables import RunnableBranch

from semantic_parrot.adapters.explanation import Source

#: Where LangChain's own objects keep functions and classes of the app.
_HOLDERS = ("func", "afunc", "_transform", "_atransform", "coroutine", "get_session_history", "pydantic_object")
_OURS = ("langchain", "langgraph", "semantic_parrot", "pydantic", "builtins")


def source_of(piece: object, cause: object) -> Source | None:
    """Of `cause`, if there is one; else of its class, if that is the app's; else of what `piece` calls."""
    places = (_place(code) for code in (cause, type(piece), *_held(piece)) if code is not None)
    return next((place for place in places if place is not None), None)


def _held(piece: object) -> Iterator[object]:
    if isinstance(piece, RunnableBranch):
        for condition, _ in piece.branches:
            yield from _held(condition)
    for name in _HOLDERS:
        yield getattr(piece, name, None)


def _place(code: object) -> Source | None:
    while isinstance(code, functools.partial):
        code = code.func
    code = inspect.unwrap(code) if callable(code) else code
    code = getattr(code, "__func__", code)
    function = getattr(code, "__code__", None)
    if function is not None:
        return None if _is_library(code) else Source(function.co_filename, function.co_firstlineno)
    kind = code if isinstance(code, type) else type(code)
    if _is_library(kind):
        return None
    try:
        file = inspect.getsourcefile(kind)
        return None if file is None else Source(file, inspect.getsourcelines(kind)[1])
    except (OSError, TypeError):
        return None  # written in C, or at a prompt


def _is_library(code: object) -> bool:
    return str(getattr(code, "__module__", "")).partition(".")[0].partition("_")[0] in _OURS
