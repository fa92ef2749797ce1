"""What became of a run: GET /v1/runs/{id}/report, as JSON or as a page, and GET /v1/runs/{id}/trace for Perfetto."""

from __future__ import annotations

import asyncio
import json

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from semantic_parrot.core.errors import InvalidRequest
from semantic_parrot.core.report import report as make
from semantic_parrot.core.snapshot import Snapshot
from semantic_parrot.server.body import refuse_query
from semantic_parrot.server.explain.page import page
from semantic_parrot.server.explain.perfetto import perfetto
from semantic_parrot.server.route import Route
from semantic_parrot.server.service import Service
from semantic_parrot.server.tenants.identity import tenant_of

#: The page has its style in it, and needs nothing else.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def _json(run: Snapshot) -> str:
    """Call by call: the encoder lets no other thread run before it has done, and a run may be large."""
    found = make(run)
    calls = ",".join(map(json.dumps, found.pop("calls")))
    return f'{json.dumps(found)[:-1]}, "calls": [{calls}]}}'


def routes(service: Service) -> APIRouter:
    router = APIRouter(route_class=Route)

    @router.get("/v1/runs/{run_id}/report")
    async def report(request: Request, run_id: str) -> Response:
        """For each call of the run: what was planned, what happened, and why. `latest`: of the run that began last."""
        refuse_query(request, {"format"})
        form = request.query_params.get("format")
        if form is None:
            form = "html" if "text/html" in request.headers.get("accept", "") else "json"
        if form not in ("json", "html"):
            raise InvalidRequest(f"format is json or html, not {form!r}", where="format")
        found = await service.runtime.retell(run_id, tenant_of(request))
        if form == "json":
            return Response(await asyncio.to_thread(_json, found), media_type="application/json")
        text = await asyncio.to_thread(lambda: page(make(found)))
        return HTMLResponse(text, headers={"Content-Security-Policy": POLICY})

    @router.get("/v1/runs/{run_id}/trace")
    async def trace(request: Request, run_id: str) -> Response:
        """The report as a Chrome trace, for Perfetto."""
        refuse_query(request)
        found = await service.runtime.retell(run_id, tenant_of(request))
        text = await asyncio.to_thread(lambda: json.dumps(perfetto(make(found))))
        headers = {"Content-Disposition": f'attachment; filename="{found.id}.json"'}
        return Response(text, media_type="application/json", headers=headers)

    return router
