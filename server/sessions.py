"""The paper's step-wise API (OSDI'24, §4.1) on the same graph: submit calls, set and get variables."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from semantic_parrot.core.admission import refuse_large_input
from semantic_parrot.core.eager import parse_criteria
from semantic_parrot.core.errors import InvalidRequest
from semantic_parrot.core.program import Body, parse_program
from semantic_parrot.core.session import split_variable_id
from semantic_parrot.server.body import read_object, refuse_fields, refuse_query
from semantic_parrot.server.route import Route
from semantic_parrot.server.service import Service
from semantic_parrot.server.streams import unless_gone
from semantic_parrot.server.tenants.identity import tenant_of


def routes(service: Service) -> APIRouter:
    router = APIRouter(route_class=Route)
    runtime, settings = service.runtime, service.settings

    @router.post("/v1/sessions")
    async def open_session(request: Request) -> Response:
        refuse_query(request)
        runtime.refuse_if_draining()
        refuse_fields(await read_object(request, settings.max_body, optional=True), ())
        return JSONResponse({"id": runtime.sessions.open(tenant_of(request)).id})

    @router.delete("/v1/sessions/{session_id}")
    async def close_session(request: Request, session_id: str) -> Response:
        """End the session: its runs are cancelled, whoever waits for a variable gets an error."""
        refuse_query(request)
        runtime.sessions.close(session_id, tenant_of(request))
        return JSONResponse({"id": session_id, "closed": True})

    @router.post("/v1/sessions/{session_id}/calls")
    async def submit(request: Request, session_id: str) -> Response:
        """Submit: the ids of the variables that `inputs` and the nodes add, at once. An input of null is set later."""
        refuse_query(request)
        runtime.refuse_if_draining()
        session = runtime.sessions.get(session_id, tenant_of(request))
        body = await read_object(request, settings.max_body)
        refuse_fields(body, {*Body.model_fields, "inputs"})
        program = parse_program(body)
        session.submit(program, program.inputs)
        names = [*program.inputs, *(node.output for node in program.nodes())]
        return JSONResponse({"variables": {name: session.variable_id(name) for name in names}})

    @router.get("/v1/variables/{variable_id:path}")
    async def get(request: Request, variable_id: str) -> Response:
        """Get: answers when the variable has its value, or with the error of the call that should produce it."""
        refuse_query(request, {"criteria"})
        text = request.query_params.get("criteria")
        criteria = None if text is None else parse_criteria(text)
        session_id, name = split_variable_id(variable_id)
        session = runtime.sessions.get(session_id, tenant_of(request))
        value = await unless_gone(request, session.get(name, criteria))
        return JSONResponse({"id": variable_id, "name": name, "value": value})

    @router.put("/v1/variables/{variable_id:path}")
    async def put(request: Request, variable_id: str) -> Response:
        """Set: once, and only a variable that nothing produces."""
        refuse_query(request)
        session_id, name = split_variable_id(variable_id)
        session = runtime.sessions.get(session_id, tenant_of(request))
        body = await read_object(request, settings.max_body)
        refuse_fields(body, {"value"})
        value = body.get("value")
        if value is None:
            raise InvalidRequest("value must be a text or JSON, and not null", where="value")
        refuse_large_input("value", value)
        session.set(name, value)
        return JSONResponse({"id": variable_id, "name": name})

    return router
