"""What became of a run: GET /v1/runs/{id}/report, as JSON or as a page."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from semantic_parrot.core.errors import InvalidRequest
from semantic_parrot.server.body import refuse_query
from semantic_parrot.server.explain.page import page
from semantic_parrot.server.service import Service

#: The page has its style in it, and needs nothing else.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def routes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/runs/{run_id}/report")
    async def report(request: Request, run_id: str) -> Response:
        """For each call of the run: what was planned, what happened, and why. `latest`: of the run that began last."""
        refuse_query(request, {"format"})
        form = request.query_params.get("format")
        if form is None:
            form = "html" if "text/html" in request.headers.get("accept", "") else "json"
        if form not in ("json", "html"):
            raise InvalidRequest(f"format is json or html, not {form!r}", where="format")
        found = service.runtime.report(run_id)
        if form == "json":
            return JSONResponse(found)
        return HTMLResponse(page(found), headers={"Content-Security-Policy": POLICY})

    return router
