"""What LangChain calls on a model of ours: where a call sits is known only here, and which calls belong together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from semantic_parrot.adapters.hints import HINTS, Hints
from semantic_parrot.adapters.langchain import instrument
from semantic_parrot.adapters.langchain.frames import FRAME, caller_of
from semantic_parrot.adapters.langchain.lower import Kwargs, LowerableModel
from semantic_parrot.adapters.langchain.planner import PLANNER, ModelSite, enter_calls, hints_for
from semantic_parrot.adapters.scope import SCOPE, SITE


class Placed(LowerableModel):
    """Around the methods of LangChain's own class, which stands after it among the bases."""

    @contextmanager
    def _sited(self, config: Any, hints: Hints) -> Iterator[None]:
        instrument.catch_up()
        frame = FRAME.get() if SCOPE.get() is not None else None
        site = SITE.set(None if frame is None else ModelSite(PLANNER, self, frame, caller_of(config)))
        told = HINTS.set(hints)
        try:
            yield
        finally:
            HINTS.reset(told)
            SITE.reset(site)

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        with self._sited(config, hints_for(config)):
            return super().invoke(input, config, **kwargs)  # type: ignore[misc]

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        with self._sited(config, hints_for(config)):
            return await super().ainvoke(input, config, **kwargs)  # type: ignore[misc]

    # Calls that go out one by one are planned together.

    @contextmanager
    def _together(self, inputs: Any, config: Any, kwargs: Kwargs) -> Iterator[None]:
        instrument.catch_up()
        configs = config if isinstance(config, list) else [config] * len(inputs)
        bound = {name: value for name, value in kwargs.items() if name not in _OF_THE_RUN}
        visit = enter_calls(self, inputs, configs, bound)
        if visit is None:
            yield
            return
        try:
            with visit.inside():
                yield
        finally:
            visit.close()

    def batch(self, inputs: Any, config: Any = None, **kwargs: Any) -> Any:
        with self._together(inputs, config, kwargs):
            return super().batch(inputs, config, **kwargs)  # type: ignore[misc]

    async def abatch(self, inputs: Any, config: Any = None, **kwargs: Any) -> Any:
        with self._together(inputs, config, kwargs):
            return await super().abatch(inputs, config, **kwargs)  # type: ignore[misc]

    def generate_prompt(self, prompts: Any, stop: Any = None, callbacks: Any = None, **kwargs: Any) -> Any:
        with self._together(prompts, None, {"stop": stop, **kwargs}):
            return super().generate_prompt(prompts, stop, callbacks, **kwargs)  # type: ignore[misc]

    async def agenerate_prompt(self, prompts: Any, stop: Any = None, callbacks: Any = None, **kwargs: Any) -> Any:
        with self._together(prompts, None, {"stop": stop, **kwargs}):
            return await super().agenerate_prompt(prompts, stop, callbacks, **kwargs)  # type: ignore[misc]

    def stream(self, input: Any, config: Any = None, **kwargs: Any) -> Iterator[Any]:
        chunks: Any = super().stream(input, config, **kwargs)  # type: ignore[misc]
        hints = hints_for(config)
        try:
            while True:
                with self._sited(config, hints):
                    try:
                        chunk = next(chunks)
                    except StopIteration:
                        return
                yield chunk
        finally:
            chunks.close()

    async def astream(self, input: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        chunks: Any = super().astream(input, config, **kwargs)  # type: ignore[misc]
        hints = hints_for(config)
        try:
            while True:
                with self._sited(config, hints):
                    try:
                        chunk = await anext(chunks)
                    except StopAsyncIteration:
                        return
                yield chunk
        finally:
            await chunks.aclose()


_OF_THE_RUN = ("return_exceptions", "tags", "metadata", "run_name", "run_id")
