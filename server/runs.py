"""Programs: POST /v1/runs, and the run that comes of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from semantic_parrot.core.ended import EndedRun
from semantic_parrot.core.errors import InvalidRequest
from semantic_parrot.core.program import Program, parse_program
from semantic_parrot.core.run import Run
from semantic_parrot.server.body import read_object, refuse_fields, refuse_query
from semantic_parrot.server.route import Route
from semantic_parrot.server.service import Service
from semantic_parrot.server.streams import EventStream, data, unless_gone
from semantic_parrot.server.tenants.identity import tenant_of

#: Characters of an idempotency key; runs in one list.
MAX_KEY, MOST_LISTED = 255, 1000


async def blocks(run: Run | EndedRun, after: int) -> AsyncGenerator[str, None]:
    """The run's events past number `after`, each as one SSE block; those that are there together, in one piece."""
    async for batch in run.events_together(after):
        yield "".join(
            f"id: {number}\nevent: {event.type}\ndata: {data(event.model_dump(mode='json'))}\n\n"
            for number, event in batch
        )


def _last_event_id(request: Request) -> int:
    text = request.headers.get("last-event-id", "0")
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise InvalidRequest(f"Last-Event-ID is no number of an event: {text!r}", where="Last-Event-ID")
    return int(text)


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        raise InvalidRequest(f"Idempotency-Key: 1 to {MAX_KEY} printable characters", where="Idempotency-Key")
    return key


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", "100")
    if not (text.isascii() and text.isdecimal() and len(text) < 5 and 0 < int(text) <= MOST_LISTED):
        raise InvalidRequest(f"limit is 1 to {MOST_LISTED}, not {text[:20]!r}", where="limit")
    return int(text)


def routes(service: Service) -> APIRouter:
    router = APIRouter(route_class=Route)
    runtime, settings = service.runtime, service.settings

    def follow(run: Run | EndedRun, after: int, headers: Mapping[str, str] | None = None) -> EventStream:
        run.audience.attach()
        stream = EventStream(blocks(run, after), heartbeat=settings.heartbeat, closed=run.audience.detach)
        stream.headers.update(headers or {})
        return stream

    async def settled(run: Run | EndedRun, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        """What the run has come to, once it will not be forgotten."""
        answer = JSONResponse(run.result(), status, dict(headers or {}))
        await run.settle()
        return answer

    async def accept(request: Request) -> tuple[Run | EndedRun, Program, dict[str, str]]:
        """(the run, its program, headers that say more of it)."""
        key, tenant = _idempotency_key(request), tenant_of(request)
        body = await read_object(request, settings.max_body)
        program = parse_program(body)
        if key is None and program.parrot.lifetime != "background":
            return runtime.submit(program, tenant), program, {}
        run, new = await runtime.accept(program, body, tenant, key)
        headers = {"Location": f"/v1/runs/{run.id}"}
        return run, program, headers if new else {**headers, "Idempotent-Replayed": "true"}

    @router.post("/v1/runs")
    async def submit(request: Request) -> Response:
        """Run a program: its events as they happen (`stream`), or its result when it has ended; one in the background
        answers at once with what it is."""
        refuse_query(request)
        with service.round_trip("/v1/runs"):
            run, program, headers = await accept(request)
        if program.stream:
            return follow(run, 0, headers)
        if program.parrot.lifetime == "background":
            return await settled(run, 202, headers)
        run.audience.attach()
        try:
            await unless_gone(request, run.wait())
        finally:
            run.audience.detach()
        return JSONResponse(run.result(), headers=headers)

    @router.get("/v1/runs")
    async def listing(request: Request) -> Response:
        """The newest of the tenant's runs that can still be read (`limit`: how many), the oldest of them first."""
        refuse_query(request, {"limit"})
        found = await runtime.listing(tenant_of(request), _limit(request))
        fields = ("id", "status", "created", "ended")
        rows = [{name: getattr(run, name) for name in fields} for run in found]
        return JSONResponse({"object": "list", "data": rows})

    @router.get("/v1/runs/{run_id}")
    async def state(request: Request, run_id: str) -> Response:
        """What the run has come to; as an event stream if that is what the client accepts."""
        refuse_query(request)
        run = await runtime.find(run_id, tenant_of(request))
        if "text/event-stream" in request.headers.get("accept", ""):
            after = _last_event_id(request)
            if after > run.last_event:
                raise InvalidRequest(f"the run has no event {after} yet", where="Last-Event-ID")
            if isinstance(run, Run) and run.background:
                runtime.refuse_if_draining()  # the server that comes next goes on telling it
            return follow(run, after)
        return await settled(run)

    @router.delete("/v1/runs/{run_id}")
    async def cancel(request: Request, run_id: str) -> Response:
        """Cancel what is left of the run. `unclaimed` names the calls whose results the client never used."""
        refuse_query(request)
        body = await read_object(request, settings.max_body, optional=True)
        refuse_fields(body, {"unclaimed"})
        unclaimed = body.get("unclaimed", [])
        if not (isinstance(unclaimed, list) and all(isinstance(name, str) for name in unclaimed)):
            raise InvalidRequest("unclaimed must be a list of call ids", where="unclaimed")
        run = await runtime.find(run_id, tenant_of(request))
        if isinstance(run, Run):
            runtime.release(run, unclaimed)
        return await settled(run)

    return router
