"""An engine process that computes with our own runtime: it tells what is in its prefix tree, and fills ahead."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from semantic_parrot.core.engine.child import Child
from semantic_parrot.core.engine.messages import (
    Cancel,
    ForgetPrefixes,
    GetOutline,
    Options,
    Outlined,
    Prefill,
    Ready,
)
from semantic_parrot.core.engines.process_engine import ProcessEngine
from semantic_parrot.core.engines.protocol import CachedPrefix, Keep, PrefixChange
from semantic_parrot.core.request import ModelRequest


class TreeEngine(ProcessEngine):
    def __init__(self, name: str, names: Sequence[str], options: Options) -> None:
        super().__init__(name, names, options)
        self.abilities = frozenset(
            ("preemption", "prefill-ahead", "retention", "salt") if options.prefix_cache else ("preemption", "salt")
        )
        self._tellers: list[Callable[[PrefixChange], None]] = []
        self._ahead: dict[Hashable, int] = {}

    def _took(self, child: Child, ready: Ready) -> None:
        super()._took(child, ready)
        child.told = self._told
        self._ahead.clear()

    def check(self, request: ModelRequest) -> None:
        """Every option is obeyed; what only this model lacks (tools, say) its process says."""

    def watch_prefixes(self, told: Callable[[PrefixChange], None]) -> None:
        """As in Telling."""
        self._tellers.append(told)

    def _told(self, change: PrefixChange) -> None:
        for told in self._tellers:
            told(change)

    def prefill(self, key: Hashable, request: ModelRequest | None, keep: tuple[Keep, ...] = (), salt: str = "") -> None:
        if self._child is None:
            return
        if request is not None:
            id = self._ahead.setdefault(key, next(self._ids))
            self._child.send(Prefill(id, request, keep, salt))
        elif key in self._ahead:
            self._child.send(Cancel(self._ahead.pop(key)))

    async def outline(self, *, text: bool) -> tuple[CachedPrefix, ...]:
        """As in Outlined."""
        id = next(self._ids)
        reply = await self._ask_once(id, GetOutline(id, text))
        assert isinstance(reply, Outlined)
        return reply.prefixes

    async def forget_prefixes(self) -> None:
        id = next(self._ids)
        await self._ask_once(id, ForgetPrefixes(id))
