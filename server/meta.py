"""What is not about calls: tokens of a text, health, metrics."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from semantic_parrot.core.errors import InvalidRequest
from semantic_parrot.core.request import is_chat, parse_request
from semantic_parrot.server.body import read_object, refuse_fields, refuse_query
from semantic_parrot.server.metrics import CONTENT_TYPE, Readings, exposition
from semantic_parrot.server.route import Route
from semantic_parrot.server.service import Service


def routes(service: Service) -> APIRouter:
    router = APIRouter(route_class=Route)
    runtime, settings = service.runtime, service.settings
    readings = Readings(runtime.engines)

    @router.post("/tokenize")
    async def tokenize(request: Request) -> Response:
        """Token ids of a `prompt`, or of `messages` as the chat template renders them."""
        refuse_query(request)
        body = await read_object(request, settings.max_body)
        refuse_fields(body, {"model", "prompt", "messages"})
        if is_chat(body) and "prompt" in body:
            raise InvalidRequest("give a prompt or messages, not both", where="prompt")
        parsed = parse_request({"model": "default", **body}, allow_empty=True)
        content = parsed.messages if parsed.prompt is None else parsed.prompt
        assert content is not None
        tokens = await runtime.tokenize(parsed.model, content)
        context = runtime.models[parsed.model].context
        return JSONResponse({"tokens": tokens, "count": len(tokens), "max_model_len": context})

    @router.head("/healthz", include_in_schema=False)  # some probes ask for no more
    @router.get("/healthz")
    async def healthz(_: Request) -> Response:
        """The server answers."""
        return JSONResponse({"status": "ok"})

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz")
    async def readyz(_: Request) -> Response:
        """Every model has an engine that takes requests; `down`: the engines that don't, and why."""
        up: dict[str, bool] = {}
        for engine in runtime.engines:
            name = engine.model.names[0]
            up[name] = up.get(name, False) or engine.healthy
        ready = all(up.values()) and not runtime.draining
        down = {engine.name: engine.trouble for engine in runtime.engines if not engine.healthy}
        body = {"status": "ready" if ready else "not ready", "models": up, "down": down}
        return JSONResponse(body, 200 if ready else 503)

    @router.get("/v1/engines")
    async def engines(request: Request) -> Response:
        """What runs the calls; `without`: optimisations that are on and have no effect there."""
        refuse_query(request)
        found = [
            {
                "id": engine.name,
                "object": "engine",
                "model": engine.model.names[0],
                "up": engine.healthy,
                "trouble": engine.trouble,
                "abilities": sorted(engine.abilities),
                "without": runtime.lacking(engine),
            }
            for engine in runtime.engines
        ]
        return JSONResponse({"object": "list", "data": found})

    if settings.dev:

        @router.post("/reset_prefix_cache")
        async def reset_prefix_cache(request: Request) -> Response:
            """Forget every cached prefix that nothing uses, so that a measurement starts cold."""
            refuse_query(request)
            refuse_fields(await read_object(request, settings.max_body, optional=True), ())
            await asyncio.gather(*(engine.forget_prefixes() for engine in runtime.engines if engine.healthy))
            return JSONResponse({"status": "ok"})

    @router.get("/metrics")
    async def metrics(_: Request) -> Response:
        return Response(exposition(service, await readings.take()), media_type=CONTENT_TYPE)

    return router
