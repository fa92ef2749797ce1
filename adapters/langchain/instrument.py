"""The hooks: methods of LangChain's composites are replaced by wrappers that plan and then call the original.

Nothing else tells a model what will be done with its answer: callbacks never see the runnable, and `prompt | llm` calls
no method of the model. Signatures stay as they are.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableBranch, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableEachBase, RunnableParallel, RunnableSequence
from langchain_core.runnables.passthrough import RunnableAssign
from langchain_core.runnables.retry import RunnableRetry

from semantic_parrot.adapters.langchain.classic_hooks import DOCUMENT_HOOKS
from semantic_parrot.adapters.langchain.planner import PLANNER, Visit, contains_model, enter

Method = Callable[..., Any]


def _configs(config: Any, count: int) -> Sequence[Any]:
    return config if isinstance(config, list) else [config] * count


def _invoke(original: Method) -> Method:
    def invoke(self: Any, input: Any, config: Any = None, **kwargs: Any) -> Any:
        visit = enter(self, [input], [config], kwargs) if contains_model(self) else None
        if visit is None:
            return original(self, input, config, **kwargs)
        try:
            with visit.inside():
                return original(self, input, config, **kwargs)
        finally:
            visit.close()

    return invoke


def _ainvoke(original: Method) -> Method:
    async def ainvoke(self: Any, input: Any, config: Any = None, **kwargs: Any) -> Any:
        visit = enter(self, [input], [config], kwargs) if contains_model(self) else None
        if visit is None:
            return await original(self, input, config, **kwargs)
        try:
            with visit.inside():
                return await original(self, input, config, **kwargs)
        finally:
            visit.close()

    return ainvoke


def _batch(original: Method) -> Method:
    def batch(self: Any, inputs: Any, config: Any = None, **kwargs: Any) -> Any:
        visit = _enter_batch(self, inputs, config, kwargs)
        if visit is None:
            return original(self, inputs, config, **kwargs)
        try:
            with visit.inside():
                return original(self, inputs, config, **kwargs)
        finally:
            visit.close()

    return batch


def _abatch(original: Method) -> Method:
    async def abatch(self: Any, inputs: Any, config: Any = None, **kwargs: Any) -> Any:
        visit = _enter_batch(self, inputs, config, kwargs)
        if visit is None:
            return await original(self, inputs, config, **kwargs)
        try:
            with visit.inside():
                return await original(self, inputs, config, **kwargs)
        finally:
            visit.close()

    return abatch


def _enter_batch(self: Any, inputs: Any, config: Any, kwargs: dict[str, Any]) -> Visit | None:
    if not inputs or not contains_model(self):
        return None
    bound = {key: value for key, value in kwargs.items() if key != "return_exceptions"}
    return enter(self, list(inputs), _configs(config, len(inputs)), bound)


def _stream(original: Method) -> Method:
    def stream(self: Any, input: Any, config: Any = None, **kwargs: Any) -> Iterator[Any]:
        if not contains_model(self):
            found: Iterator[Any] = original(self, input, config, **kwargs)
            return found
        return _replayed(original, self, input, config, kwargs)

    return stream


def _astream(original: Method) -> Method:
    def astream(self: Any, input: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        if not contains_model(self):
            found: AsyncIterator[Any] = original(self, input, config, **kwargs)
            return found
        return _areplayed(original, self, input, config, kwargs)

    return astream


def _known_inputs(original: Method, input: Any) -> list[Any] | None:
    """`stream` takes a value, `transform` an iterator that must not be read ahead."""
    return [input] if original.__name__ in ("stream", "astream") else None


def _replayed(original: Method, self: Any, input: Any, config: Any, kwargs: dict[str, Any]) -> Iterator[Any]:
    # A generator: nothing happens, and nothing is planned, before somebody reads it. The context is set only while
    # the original runs, never between two chunks, where the reader's code runs.
    visit = enter(self, _known_inputs(original, input), [config], kwargs, streaming=True)
    chunks = original(self, input, config, **kwargs)
    if visit is None:
        yield from chunks
        return
    try:
        while True:
            with visit.inside():
                try:
                    chunk = next(chunks)
                except StopIteration:
                    return
            yield chunk
    finally:
        with visit.inside():
            chunks.close()
        visit.close()


async def _areplayed(
    original: Method, self: Any, input: Any, config: Any, kwargs: dict[str, Any]
) -> AsyncIterator[Any]:
    visit = enter(self, _known_inputs(original, input), [config], kwargs, streaming=True)
    chunks = original(self, input, config, **kwargs)
    if visit is None:
        async for chunk in chunks:
            yield chunk
        return
    try:
        while True:
            with visit.inside():
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
            yield chunk
    finally:
        with visit.inside():
            await chunks.aclose()
        visit.close()


_WRAPPERS: dict[str, Callable[[Method], Method]] = {
    "invoke": _invoke,
    "ainvoke": _ainvoke,
    "batch": _batch,
    "abatch": _abatch,
    "stream": _stream,
    "astream": _astream,
    "transform": _stream,
    "atransform": _astream,
}
_ALL = tuple(_WRAPPERS)
#: Of composites that take no stream, or pass it on as it is.
_WHOLE = ("invoke", "ainvoke", "batch", "abatch", "stream", "astream")
_HOOKS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (RunnableSequence, _ALL),
    (RunnableParallel, _ALL),
    (RunnableAssign, _ALL),
    (RunnableEachBase, ("invoke", "ainvoke", "batch", "abatch")),
    (RunnableBranch, _WHOLE),
    (RunnableRetry, _WHOLE),
    (RunnableWithFallbacks, _WHOLE),
)


def _graph_hooks() -> dict[str, Callable[[Method], Method]]:
    return {name: _WRAPPERS[name] for name in ("invoke", "ainvoke", "stream", "astream")}


#: Of what nobody must import for our sake, by module and class: the wrappers of its methods.
_LATE: dict[tuple[str, str], dict[str, Callable[[Method], Method]]] = {
    ("langgraph._internal._runnable", "RunnableSeq"): _graph_hooks(),
    **DOCUMENT_HOOKS,
}

# What is replaced: (class, method) -> (wrapper, original, whether the class itself defined it). Class methods are
# process-wide, and so is this.
_INSTALLED: dict[tuple[type, str], tuple[Method, Method, bool]] = {}


def install() -> None:
    """Put the hooks in; nothing happens if they are."""
    PLANNER.installed = True
    if not _INSTALLED:
        for cls, names in _HOOKS:
            _hook(cls, {name: _WRAPPERS[name] for name in names})
    catch_up()


def catch_up() -> None:
    """Put hooks into what has been imported since."""
    for (name, kind), wrappers in _LATE.items():
        module = sys.modules.get(name)
        if module is not None and PLANNER.installed:
            cls = getattr(module, kind, None)
            if cls is not None and (cls, next(iter(wrappers))) not in _INSTALLED:
                _hook(cls, wrappers)


def _hook(cls: type, wrappers: Mapping[str, Callable[[Method], Method]]) -> None:
    for name, wrap in wrappers.items():
        original = getattr(cls, name)
        wrapper = functools.update_wrapper(wrap(original), original)
        _INSTALLED[cls, name] = (wrapper, original, name in cls.__dict__)
        setattr(cls, name, wrapper)


def uninstall() -> None:
    """Take the hooks out. A method that somebody else has wrapped since keeps our wrapper, which then does nothing;
    the next ChatParrot installs the hooks again."""
    PLANNER.installed = False
    for (cls, name), (wrapper, original, own) in _INSTALLED.items():
        if cls.__dict__.get(name) is not wrapper:
            continue
        if own:
            setattr(cls, name, original)
        else:
            delattr(cls, name)
    _INSTALLED.clear()
