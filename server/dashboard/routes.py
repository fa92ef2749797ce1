"""/dashboard: a tenant's runs, one run, the engines; pages that a small script keeps up to date."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from semantic_parrot.core.ended import EndedRun
from semantic_parrot.core.engines.protocol import CachedPrefix, Engine, Outlined
from semantic_parrot.core.errors import EngineFailed, JournalUnavailable, NotFound
from semantic_parrot.core.journal.values import Listed
from semantic_parrot.core.report import report
from semantic_parrot.core.run import Run
from semantic_parrot.core.snapshot import Snapshot, snapshot
from semantic_parrot.server.body import refuse_query
from semantic_parrot.server.dashboard.live import Changes, follow, sample
from semantic_parrot.server.dashboard.own import HEADERS, own_page_only
from semantic_parrot.server.dashboard.values import kept_values, values
from semantic_parrot.server.dashboard.view import LISTED, Parts, View
from semantic_parrot.server.explain.page import page
from semantic_parrot.server.explain.perfetto import perfetto
from semantic_parrot.server.metrics import PATIENCE, Readings
from semantic_parrot.server.reports import POLICY as REPORT
from semantic_parrot.server.route import Route
from semantic_parrot.server.service import Service
from semantic_parrot.server.streams import EventStream
from semantic_parrot.server.tenants.identity import operates, tenant_of

STATIC = Path(__file__).parent / "static"
KINDS = {"style.css": "text/css", "script.js": "text/javascript", "icon.svg": "image/svg+xml"}

if TYPE_CHECKING:
    from semantic_parrot.server.dashboard.visits import Visits

#: Seconds between readings of the engines.
READ_EVERY = 2.0


def routes(service: Service, visits: Visits | None) -> APIRouter:
    """`visits` None: nobody has to log in."""
    router = APIRouter(route_class=Route, include_in_schema=False)
    runtime, view, changes = service.runtime, View(), Changes()
    readings = Readings(runtime.engines)
    runtime.observers.append(changes)

    if visits is not None:
        from semantic_parrot.server.dashboard import login

        router.routes += login.routes(view, visits).routes

    def html(request: Request, name: str, **about: Any) -> Response:
        """A page for whoever asks; `who` they are, if that had to be said."""
        who = "" if visits is None else tenant_of(request) or "operator"
        return HTMLResponse(view.page(name, who=who, **about), headers=HEADERS)

    def stream(blocks: AsyncGenerator[str, None]) -> Response:
        return EventStream(blocks, heartbeat=service.settings.heartbeat)

    async def listed(tenant: str) -> Parts:
        kept, trouble = list[Listed](), ""
        try:
            kept = await runtime.listing(tenant, LISTED)
        except JournalUnavailable as error:
            trouble = error.message
        past = list(islice(runtime.history.past(tenant), LISTED))
        return view.runs(runtime.runs_of(tenant), past, kept, trouble)

    async def shown(taken: Snapshot, run: Run | EndedRun | None) -> Parts:
        """`run` None: it can't be read any more."""
        show = values(run) if isinstance(run, Run) else None if run is None else partial(kept_values, run)
        return await asyncio.to_thread(lambda: view.run(taken, None if show is None else show()))

    async def read(request: Request) -> Parts:
        whole = operates(request)
        stats = await readings.take()
        # Where tenants are told apart, what they say is theirs.
        trees = [await outline(engine, text=visits is None) if whole else None for engine in runtime.engines]
        rows: list[Mapping[str, Any]] = [
            {"engine": engine, "stats": own, "lacks": runtime.lacking(engine), "tree": tree}
            for engine, own, tree in zip(runtime.engines, stats, trees, strict=True)
        ]
        return view.engines(rows, whole=whole)

    @router.get("/dashboard")
    async def runs_page(request: Request) -> Response:
        refuse_query(request)
        return html(request, "runs", parts=await listed(tenant_of(request)), live="/dashboard/live/runs")

    @router.get("/dashboard/runs/{run_id}")
    async def run_page(request: Request, run_id: str) -> Response:
        refuse_query(request)
        taken = await runtime.retell(run_id, tenant_of(request))
        try:
            run = await runtime.find(taken.id, tenant_of(request))
        except NotFound:
            run = None
        live = f"/dashboard/live/runs/{taken.id}" if isinstance(run, Run) else ""
        return html(request, "run", parts=await shown(taken, run), id=taken.id, live=live)

    @router.get("/dashboard/runs/{run_id}/report")
    async def report_page(request: Request, run_id: str) -> Response:
        """As /v1/runs/{id}/report, for who has no key to send but a cookie."""
        taken = await runtime.retell(run_id, tenant_of(request))
        text = await asyncio.to_thread(lambda: page(report(taken)))
        return HTMLResponse(text, headers={**HEADERS, "Content-Security-Policy": REPORT})

    @router.get("/dashboard/runs/{run_id}/trace")
    async def trace(request: Request, run_id: str) -> Response:
        """As /v1/runs/{id}/trace."""
        taken = await runtime.retell(run_id, tenant_of(request))
        text = await asyncio.to_thread(lambda: json.dumps(perfetto(report(taken))))
        headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{taken.id}.json"'}
        return Response(text, media_type="application/json", headers=headers)

    @router.post("/dashboard/runs/{run_id}/cancel")
    async def cancel(request: Request, run_id: str) -> Response:
        refuse_query(request)
        own_page_only(request)
        runtime.run(run_id, tenant_of(request)).cancel("it was cancelled in the dashboard")
        return RedirectResponse(f"/dashboard/runs/{run_id}", 303)

    @router.get("/dashboard/engines")
    async def engines_page(request: Request) -> Response:
        refuse_query(request)
        return html(request, "engines", parts=await read(request), live="/dashboard/live/engines")

    @router.get("/dashboard/live/runs")
    async def live_runs(request: Request) -> Response:
        tenant = tenant_of(request)

        return stream(follow(lambda: listed(tenant), changes.watch(tenant)))

    @router.get("/dashboard/live/runs/{run_id}")
    async def live_run(request: Request, run_id: str) -> Response:
        run = runtime.run(run_id, tenant_of(request))
        return stream(follow(lambda: shown(snapshot(run), run), run.spoken.watch(), lambda: run.ended))

    @router.get("/dashboard/live/engines")
    async def live_engines(request: Request) -> Response:
        return stream(sample(lambda: read(request), READ_EVERY))

    @router.get("/dashboard/static/{name}")
    async def static(_: Request, name: str) -> Response:
        if name not in KINDS:
            raise NotFound(f"no file {name!r} here", where=name)
        return FileResponse(STATIC / name, media_type=KINDS[name], headers={**HEADERS, "Cache-Control": "no-cache"})

    return router


async def outline(engine: Engine, *, text: bool) -> tuple[CachedPrefix, ...] | None:
    """None for an engine that can't tell, or can't now."""
    if not isinstance(engine, Outlined):
        return None
    try:
        async with asyncio.timeout(PATIENCE):
            return await engine.outline(text=text)
    except (EngineFailed, TimeoutError):
        return None
