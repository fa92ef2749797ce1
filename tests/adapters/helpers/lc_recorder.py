"""What an app and its callbacks see of a run, comparable: without ids, times, addresses and chunk boundaries."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|chatcmpl-[0-9a-f]{32}")


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(item) for key, item in sorted(value.items(), key=lambda pair: str(pair[0]))}
    if type(value) in (list, tuple):
        return type(value)(_sorted(item) for item in value)
    return value


#: Where and how fast an answer was made: another time each time.
_MADE = re.compile(r", 'parrot': \{[^}]*\}|'parrot': \{[^}]*\}(, )?")


def seen(value: Any) -> str:
    return re.sub(r"0x[0-9a-f]+", "0x", _MADE.sub("", _UUID.sub("ID", repr(_sorted(value)))))


class Recorder(BaseCallbackHandler):
    """The tree of runs. `everything` holds all values that reached it, for a scan."""

    run_inline = True

    def __init__(self) -> None:
        self.runs: dict[Any, dict[str, Any]] = {}
        self.everything: list[Any] = []
        self._lock = threading.Lock()

    def _start(
        self, kind: str, given: Any, run_id: Any, parent_run_id: Any, tags: Any, metadata: Any, more: Any
    ) -> None:
        with self._lock:
            self.everything += [given, metadata, more]
            self.runs[run_id] = {
                "kind": kind,
                "name": more.get("name"),
                "parent": parent_run_id,
                "tags": sorted(tags or []),
                "metadata": seen(metadata or {}),
                "input": seen(given),
                "output": None,
                "tokens": "",
                "params": seen(more.get("invocation_params")),
            }

    def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: Any,
        parent_run_id: Any = None,
        tags: Any = None,
        metadata: Any = None,
        **kw: Any,
    ) -> None:
        self._start("chain", inputs, run_id, parent_run_id, tags, metadata, kw)

    def on_chat_model_start(
        self,
        serialized: Any,
        messages: Any,
        *,
        run_id: Any,
        parent_run_id: Any = None,
        tags: Any = None,
        metadata: Any = None,
        **kw: Any,
    ) -> None:
        self._start("model", messages, run_id, parent_run_id, tags, metadata, kw)

    def on_llm_start(
        self,
        serialized: Any,
        prompts: Any,
        *,
        run_id: Any,
        parent_run_id: Any = None,
        tags: Any = None,
        metadata: Any = None,
        **kw: Any,
    ) -> None:
        self._start("completion", prompts, run_id, parent_run_id, tags, metadata, kw)

    def on_llm_new_token(self, token: Any, *, run_id: Any, **kw: Any) -> None:
        with self._lock:
            self.everything.append(token)
            self.runs[run_id]["tokens"] += str(token)

    def _end(self, run_id: Any, output: Any) -> None:
        with self._lock:
            self.everything.append(output)
            self.runs[run_id]["output"] = seen(output)

    def on_chain_end(self, outputs: Any, *, run_id: Any, **kw: Any) -> None:
        self._end(run_id, outputs)

    def on_llm_end(self, response: Any, *, run_id: Any, **kw: Any) -> None:
        self._end(run_id, response.generations)

    def on_chain_error(self, error: Any, *, run_id: Any, **kw: Any) -> None:
        self._end(run_id, error)

    def on_llm_error(self, error: Any, *, run_id: Any, **kw: Any) -> None:
        self._end(run_id, error)

    def tree(self) -> Any:
        children: dict[Any, list[Any]] = {}
        for run_id, run in self.runs.items():
            children.setdefault(run["parent"], []).append(run_id)

        def node(run_id: Any) -> Any:
            run = {key: value for key, value in self.runs[run_id].items() if key != "parent"}
            return (tuple(map(str, run.items())), *sorted((node(c) for c in children.get(run_id, ())), key=repr))

        return sorted((node(run_id) for run_id in children.get(None, ())), key=repr)


def _sum(chunks: list[Any]) -> str:
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    return seen(total)


async def _astream(chain: Any, given: Any, config: Any) -> str:
    return _sum([chunk async for chunk in chain.astream(given, config)])


async def _events(chain: Any, given: Any, config: Any) -> str:
    """Starts and ends; the stream events between them depend on chunk boundaries."""
    found = []
    async for event in chain.astream_events(given, config, version="v2"):
        if not event["event"].endswith("_stream"):
            data = {key: value for key, value in event["data"].items() if key != "chunk"}
            found.append((event["event"], event["name"], seen(data), tuple(event["tags"])))
    return seen(sorted(found, key=repr))


WAYS: dict[str, Callable[[Any, Any, Any], str]] = {
    "invoke": lambda chain, given, config: seen(chain.invoke(given, config)),
    "ainvoke": lambda chain, given, config: seen(asyncio.run(chain.ainvoke(given, config))),
    "batch": lambda chain, given, config: seen(chain.batch([given] * 3, config)),
    "abatch": lambda chain, given, config: seen(asyncio.run(chain.abatch([given] * 3, config))),
    "batch-exceptions": lambda chain, given, config: seen(chain.batch([given] * 2, config, return_exceptions=True)),
    "stream": lambda chain, given, config: _sum(list(chain.stream(given, config))),
    "astream": lambda chain, given, config: asyncio.run(_astream(chain, given, config)),
    "astream-events": lambda chain, given, config: asyncio.run(_events(chain, given, config)),
}


def run(way: str, chain: Any, given: Any, recorder: Recorder | None = None) -> str:
    """The result, or the exception, of calling `chain` in one of the WAYS."""
    try:
        return WAYS[way](chain, given, {"callbacks": [recorder] if recorder else []})
    except Exception as error:
        return f"raised {type(error).__name__}: {seen(error)}"
