"""An engine behind OpenAI's routes: vLLM, SGLang, llama.cpp's server, `transformers serve`, Ollama, a hosted API."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import httpx

from semantic_parrot.core.engines.dialects import DIALECTS
from semantic_parrot.core.engines.incoming import answer, refusal
from semantic_parrot.core.engines.outgoing import directed, outgoing, refuse_untold
from semantic_parrot.core.engines.protocol import (
    UNDIRECTED,
    Ability,
    Delta,
    Directions,
    Done,
    Keep,
    ModelInfo,
    ModelLoadError,
    NotUp,
    Stats,
)
from semantic_parrot.core.engines.reachable import PROBE_SECONDS, Reachable, Unfit, describe
from semantic_parrot.core.errors import ContextOverflow, EngineFailed, Unsupported
from semantic_parrot.core.request import Message, ModelRequest

#: Of a model whose server does not say it, and nobody else does.
UNKNOWN_CONTEXT = 1 << 20
#: Seconds that an idle connection is kept: servers close theirs after five (uvicorn's and llama.cpp's default), and a
#: request that is sent just then is lost.
IDLE_CONNECTION = 3.0
#: Seconds to connect in; it is tried twice.
CONNECT_SECONDS = 5.0


class _Http(httpx.AsyncClient):
    """Connects a second time when the first was not in time: nothing was sent, and where this process itself stalled
    for so long, the connection stood all the while."""

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        try:
            return await super().send(request, **options)
        except httpx.ConnectTimeout:
            return await super().send(request, **options)


class RemoteEngine:
    """`url`: with the /v1. `dialect`: see `dialects.DIALECTS`. `model`: what the server calls it (default: the first it
    lists); `names`: what requests may call it here (default: that). `window`: requests in flight. `context`: tokens,
    where the server does not say. `priority`: send vLLM and SGLang priorities, which they must have been started for.
    `idle_seconds`: of silence, or of being put off, after which a request is given up. `key`: sent as a bearer token.

    Owned by the event loop. A server that can't be reached, refuses the key or does not list the model is down; it is
    asked again, every few seconds, until it is there. One that can't be reached at the start may be kept (NotUp), if
    `model` or `names` says what it serves.
    """

    def __init__(
        self,
        url: str,
        *,
        dialect: str = "openai",
        model: str | None = None,
        names: Sequence[str] = (),
        name: str = "remote-0",
        window: int = 64,
        context: int | None = None,
        priority: bool = False,
        key: str | None = None,
        idle_seconds: float = 300.0,
    ) -> None:
        self.name = name
        self.window = window
        self.dialect = DIALECTS[dialect]
        self.abilities: frozenset[Ability] = frozenset({"salt"} if self.dialect.salt else ())
        self._names, self._theirs, self._context, self._priority = tuple(names), model, context, priority
        self._idle = idle_seconds
        self._base = url.rstrip("/")
        self._root = self._base.removesuffix("/v1")
        self._http = _Http(
            headers={} if key is None else {"authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(idle_seconds, connect=CONNECT_SECONDS, pool=None),
            limits=httpx.Limits(max_keepalive_connections=window, keepalive_expiry=IDLE_CONNECTION),
        )
        self._model: ModelInfo | None = None
        self._met = False
        self._stats = Stats()
        self._reachable = Reachable(name, self._probe)

    @property
    def model(self) -> ModelInfo:
        assert self._model is not None, "the engine has not been started"
        return self._model

    @property
    def healthy(self) -> bool:
        return self._reachable.up

    @property
    def coming(self) -> bool:
        return self._reachable.coming

    @property
    def trouble(self) -> str:
        """Why it is not healthy; "" if it is."""
        return self._reachable.trouble

    def watch(self, told: Callable[[], None]) -> None:
        self._reachable.watchers.append(told)

    async def start(self) -> None:
        try:
            await self._probe()
        except EngineFailed as error:
            why, names = f"engine {self.name}: {error.message}", self._names or (self._theirs or "",)
            if isinstance(error, Unfit) or not names[0]:
                await self._http.aclose()
                raise ModelLoadError(why) from None
            self._model = ModelInfo(names, self._context or UNKNOWN_CONTEXT)
            self._reachable.start(error.message)
            raise NotUp(why) from None
        self._reachable.start()

    async def close(self) -> None:
        await self._reachable.close()
        await self._http.aclose()

    def check(self, request: ModelRequest) -> None:
        """Raises Unsupported for what this kind of server can't be told."""
        refuse_untold(request, self.dialect)

    async def generate(
        self, request: ModelRequest, directions: Directions = UNDIRECTED
    ) -> AsyncGenerator[Delta | Done, None]:
        assert self._theirs is not None
        body = outgoing(request, self.dialect, self._theirs)
        directed(body, self.dialect, directions, priority=self._priority)
        path = "/completions" if request.messages is None else "/chat/completions"
        self._stats = replace(self._stats, running=self._stats.running + 1)
        try:
            async with aclosing(self._stream(path, body, request)) as items:
                async for item in items:
                    if isinstance(item, Done):
                        self._count(item)
                        self._reachable.worked()
                    yield item
        except EngineFailed as error:
            self._reachable.failed(error.message)
            raise
        finally:
            self._stats = replace(self._stats, running=self._stats.running - 1)

    async def _stream(
        self, path: str, body: dict[str, Any], request: ModelRequest
    ) -> AsyncGenerator[Delta | Done, None]:
        patience = time.perf_counter() + self._idle
        while True:
            await self._reachable.rested()
            began = time.perf_counter()
            try:
                async with self._http.stream("POST", self._base + path, json=body) as response:
                    if response.status_code == 429 and time.perf_counter() < patience:
                        self._reachable.rest(response.headers.get("retry-after"))
                        continue
                    if response.status_code != 200:
                        raise refusal(response.status_code, await response.aread(), self.name)
                    async with aclosing(answer(response.aiter_lines(), request, began)) as items:
                        async for item in items:
                            yield item
                    return
            except httpx.HTTPError as error:
                raise EngineFailed(f"engine {self.name}: {describe(error)}") from None

    def _count(self, done: Done) -> None:
        usage = done.usage
        self._stats = replace(
            self._stats,
            prompt_tokens_computed=self._stats.prompt_tokens_computed + usage.prompt - usage.cached,
            prompt_tokens_reused=self._stats.prompt_tokens_reused + usage.cached,
            generated_tokens=self._stats.generated_tokens + usage.completion,
        )

    def prefill(self, key: Hashable, request: ModelRequest | None, keep: tuple[Keep, ...] = (), salt: str = "") -> None:
        """These servers fill no prompt before its request."""

    async def tokenize(self, content: str | tuple[Message, ...]) -> list[int]:
        """Raises Unsupported where the server has no such route for it."""
        dialect, text = self.dialect, isinstance(content, str)
        if not dialect.tokenize or not (text or dialect.chat_tokens):
            raise Unsupported(f"engine {self.name} does not tell its tokens", where="/tokenize")
        told = content if isinstance(content, str) else [{"role": m.role, "content": m.content} for m in content]
        body = {dialect.text_field if text else "messages": told}
        found = await self._ask("POST", self._root + self.dialect.tokenize, {"model": self._theirs, **body})
        tokens = found.get("tokens")
        if not isinstance(tokens, list):
            raise EngineFailed(f"engine {self.name}: /tokenize answered no tokens")
        return tokens

    async def stats(self) -> Stats:
        return self._stats

    async def forget_prefixes(self) -> None:
        if not self.dialect.forget:
            raise Unsupported(f"engine {self.name} can't forget its prefixes", where="/reset_prefix_cache")
        await self._ask("POST", self._root + self.dialect.forget, None)

    async def _probe(self) -> None:
        """Raises EngineFailed with what is wrong."""
        if self.dialect.health:
            await self._ask("GET", self._root + self.dialect.health, None)
            if self._theirs is None:
                raise Unfit("a server of this kind does not say what it serves: configure its model")
            self._model = ModelInfo(self._names or (self._theirs,), self._context or UNKNOWN_CONTEXT)
            return
        found = await self._ask("GET", f"{self._base}/models", None)
        listed = {str(card["id"]): card for card in found.get("data") or () if isinstance(card, dict) and "id" in card}
        wanted = self._theirs or next(iter(listed), "")
        if wanted not in listed:
            there = ", ".join(sorted(listed)) or "none"
            raise Unfit(f"{self._base} has no model {wanted!r}; there is: {there}")
        context = _context(listed[wanted])
        if self._context is not None and context is not None and context < self._context:
            raise Unfit(f"its context is {context} tokens, and {self._context} are configured")
        if not self._met:
            self._met, self._theirs = True, wanted
            self._model = ModelInfo(self._names or (wanted,), self._context or context or UNKNOWN_CONTEXT)

    async def _ask(self, method: str, url: str, body: dict[str, Any] | None) -> dict[str, Any]:
        try:
            patience = httpx.Timeout(PROBE_SECONDS, connect=CONNECT_SECONDS)
            response = await self._http.request(method, url, json=body, timeout=patience)
            if response.status_code != 200:
                error = refusal(response.status_code, response.content, self.name)
                if isinstance(error, ContextOverflow):
                    raise error
                refused = 400 <= response.status_code < 500 and response.status_code != 429
                raise (Unfit if refused else EngineFailed)(error.message)
            found = response.json() if response.content else {}
        except httpx.HTTPError as error:
            raise EngineFailed(f"{url}: {describe(error)}") from None
        except ValueError:
            raise Unfit(f"{url} answered what is no JSON") from None
        if not isinstance(found, dict):
            raise Unfit(f"{url} answered what is no object")
        return found


def _context(card: dict[str, Any]) -> int | None:
    """Of a model, as vLLM, SGLang and Parrot say it, or llama.cpp's server."""
    meta = card.get("meta")
    for value in (card.get("max_model_len"), meta.get("n_ctx") if isinstance(meta, dict) else None):
        if isinstance(value, int) and value > 0:
            return value
    return None
