"""Programs: POST /v1/runs, and the run that comes of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from semantic_parrot.core.errors import InvalidRequest, Unsupported
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.run import Run
from semantic_parrot.server.body import read_object, refuse_fields, refuse_query
from semantic_parrot.server.service import Service
from semantic_parrot.server.streams import EventStream, data, unless_gone
from semantic_parrot.server.tenants.identity import tenant_of


async def blocks(run: Run, after: int) -> AsyncGenerator[str, None]:
    """The run's events past number `after`, each as one SSE block."""
    async for number, event in run.events(after):
        yield f"id: {number}\nevent: {event.type}\ndata: {data(event.model_dump(mode='json'))}\n\n"


def _last_event_id(request: Request) -> int:
    text = request.headers.get("last-event-id", "0")
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise InvalidRequest(f"Last-Event-ID is no number of an event: {text!r}", where="Last-Event-ID")
    return int(text)


def routes(service: Service) -> APIRouter:
    router = APIRouter()
    runtime, settings = service.runtime, service.settings

    def follow(run: Run, after: int) -> EventStream:
        run.audience.attach()
        return EventStream(blocks(run, after), heartbeat=settings.heartbeat, closed=run.audience.detach)

    def accept(body: object, tenant: str) -> tuple[Run, bool]:
        """(the run, whether its events are wanted). The program itself is not kept while the run goes on."""
        program = parse_program(body)
        return runtime.submit(program, tenant), program.stream

    @router.post("/v1/runs")
    async def submit(request: Request) -> Response:
        """Run a program: its events as they happen (`stream`), or its result when it has ended."""
        refuse_query(request)
        if "idempotency-key" in request.headers:
            # A client that sends it relies on it: running the program again would break its promise.
            raise Unsupported("Idempotency-Key is not supported yet", where="Idempotency-Key")
        with service.round_trip("/v1/runs"):
            run, stream = accept(await read_object(request, settings.max_body), tenant_of(request))
        if stream:
            return follow(run, 0)
        run.audience.attach()
        try:
            await unless_gone(request, run.wait())
        finally:
            run.audience.detach()
        return JSONResponse(run.result())

    @router.get("/v1/runs")
    async def listing(request: Request) -> Response:
        """The tenant's runs that can still be read, oldest first."""
        refuse_query(request)
        found = [{"id": run.id, "status": run.status} for run in runtime.runs_of(tenant_of(request))]
        return JSONResponse({"object": "list", "data": found})

    @router.get("/v1/runs/{run_id}")
    async def state(request: Request, run_id: str) -> Response:
        """What the run has come to; as an event stream if that is what the client accepts."""
        refuse_query(request)
        run = runtime.run(run_id, tenant_of(request))
        if "text/event-stream" in request.headers.get("accept", ""):
            after = _last_event_id(request)
            if after > run.last_event:
                raise InvalidRequest(f"the run has no event {after} yet", where="Last-Event-ID")
            return follow(run, after)
        return JSONResponse(run.result())

    @router.delete("/v1/runs/{run_id}")
    async def cancel(request: Request, run_id: str) -> Response:
        """Cancel what is left of the run. `unclaimed` names the calls whose results the client never used."""
        refuse_query(request)
        body = await read_object(request, settings.max_body, optional=True)
        refuse_fields(body, {"unclaimed"})
        unclaimed = body.get("unclaimed", [])
        if not (isinstance(unclaimed, list) and all(isinstance(name, str) for name in unclaimed)):
            raise InvalidRequest("unclaimed must be a list of call ids", where="unclaimed")
        run = runtime.run(run_id, tenant_of(request))
        runtime.release(run, unclaimed)
        return JSONResponse(run.result())

    return router
