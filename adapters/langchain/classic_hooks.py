"""The hooks of langchain_classic's document chains: they plan, and then call the original."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from semantic_parrot.adapters.hints import stated_in
from semantic_parrot.adapters.langchain.classic import PLANNERS, ROOTS, Planner
from semantic_parrot.adapters.langchain.frames import FRAME, Frame
from semantic_parrot.adapters.langchain.planner import PLANNER, Visit, enabled, metadata_of, most_of, running
from semantic_parrot.adapters.langchain.values import Cut

Method = Callable[..., Any]


def _combine(planner: Planner) -> Callable[[Method], Method]:
    def wrap(original: Method) -> Method:
        def combine_docs(self: Any, docs: Any, *args: Any, **kwargs: Any) -> Any:
            visit = _enter_documents(planner, self, docs, args, kwargs)
            if visit is None:
                return original(self, docs, *args, **kwargs)
            try:
                with visit.inside():
                    return original(self, docs, *args, **kwargs)
            finally:
                visit.close()

        return combine_docs

    return wrap


def _acombine(planner: Planner) -> Callable[[Method], Method]:
    def wrap(original: Method) -> Method:
        async def acombine_docs(self: Any, docs: Any, *args: Any, **kwargs: Any) -> Any:
            visit = _enter_documents(planner, self, docs, args, kwargs)
            if visit is None:
                return await original(self, docs, *args, **kwargs)
            try:
                with visit.inside():
                    return await original(self, docs, *args, **kwargs)
            finally:
                visit.close()

        return acombine_docs

    return wrap


def _enter_documents(planner: Planner, chain: Any, docs: Any, args: Any, kwargs: Any) -> Visit | None:
    if args or not isinstance(docs, list):
        return None
    inputs = {name: value for name, value in kwargs.items() if name not in ("callbacks", "token_max")}
    return _enter(planner, chain, docs, inputs)


def _enter(planner: Planner, chain: Any, documents: Sequence[Any], inputs: Mapping[str, Any]) -> Visit | None:
    """`chain`, a document chain that `planner` knows, is about to combine `documents`."""
    if not enabled():
        return None
    scope = running()
    owned = scope is None
    frame = None if owned else FRAME.get()
    if scope is None:
        stated, most = stated_in(metadata_of(None)), most_of(())
        scope = PLANNER.new_scope(streaming=False, stated=stated, inputs=1, max_concurrency=most)
    with PLANNER.guarded():
        low = PLANNER.lowering(scope)
        with suppress(Cut):  # what was planned until then is worth as much
            planner(low, chain, documents, inputs)
        scope.submit(low.plan)
    return Visit(scope, Frame(chain, frame, None), owned)


#: By module and class: the wrappers of its methods.
DOCUMENT_HOOKS: dict[tuple[str, str], dict[str, Callable[[Method], Method]]] = {
    (f"{root}.{module}", name): {"combine_docs": _combine(planner), "acombine_docs": _acombine(planner)}
    for root in ROOTS
    for (module, name), planner in PLANNERS.items()
}
