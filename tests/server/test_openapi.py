"""/openapi.json held against the server: schemathesis makes requests of it, good ones and bad ones.

PARROT_FUZZ_CASES: how many requests in all (make fuzz-api: 100,000). PARROT_FUZZ_SEED: another one makes others.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from live import LocalServer
from schemathesis import Case, CheckContext, GenerationMode, Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from scripted import ScriptedEngine

from semantic_parrot.core.journal.journal import Journal
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.tenants import TenantSection, Terms
from semantic_parrot.server.app import create_app
from semantic_parrot.server.openapi.operations import OPERATIONS
from semantic_parrot.server.service import Settings
from semantic_parrot.server.tenants.keys import Keyring, make
from semantic_parrot.server.tenants.limits import Limits
from semantic_parrot.server.tenants.store import TenantStore

CASES = int(os.environ.get("PARROT_FUZZ_CASES", "150"))
SEED = int(os.environ.get("PARROT_FUZZ_SEED", "8"))

#: Seconds that one answer may take: a wait that nothing ends is a failure.
PATIENCE = 30

#: How much of all requests goes to an operation, good ones and bad ones; what is not named takes hardly any
#: input, or none.
SHARES = {
    ("post", "/v1/chat/completions"): (16, 3),
    ("post", "/v1/completions"): (26, 6),
    ("post", "/v1/responses"): (10, 2),
    ("post", "/v1/runs"): (0.6, 0.3),
    ("post", "/v1/sessions/{session_id}/calls"): (0.4, 0.3),
    ("put", "/v1/variables/{variable_id}"): (8, 4),
    ("post", "/tokenize"): (10, 4),
}


def share(method: str, path: str, operation: Any, bad: bool) -> float:
    """Nothing for bad requests of an operation that takes nothing; of good ones there is just one then."""
    if bad and not (operation.body or operation.query or operation.headers):
        return 0
    return SHARES.get((method, path), (1, 1))[bad]


def described() -> dict[str, Any]:
    """The document, with names in it that this server knows: a request for another model says little."""
    document: dict[str, Any] = create_app(Runtime([ScriptedEngine()])).openapi()
    schemas = document["components"]["schemas"]
    for body in ("ChatRequest", "CompletionRequest", "ResponsesRequest", "TokenizePrompt"):
        schemas[body]["properties"]["model"] = {"enum": ["default", "scripted", "default", "other"]}
    requests_of_calls = [{"$ref": f"#/components/schemas/{body}"} for body in ("ChatRequest", "CompletionRequest")]
    schemas["Call"]["properties"]["request"] = {"anyOf": [*requests_of_calls, {"type": "object"}]}
    schemas["Program"] |= {"required": ["calls"]}
    for called in ("_CalledFunction", "FunctionCallItem"):
        schemas[called]["properties"]["arguments"] = {"enum": ["{}", '{"a": [1]}', "", "[]"]}
    return document


def names(document: dict[str, Any], server: LocalServer) -> None:
    """Give the parameters of paths values that exist."""
    session = httpx.post(f"{server.url}/sessions").json()["id"]
    call = {"id": "c", "output": "made", "request": {"model": "default", "prompt": {"$t": ["Of ", {"var": "given"}]}}}
    body = {"calls": [call], "inputs": {"given": "x"}}
    variables = httpx.post(f"{server.url}/sessions/{session}/calls", json=body).json()["variables"]
    known = {"session_id": [session], "variable_id": [variables["given"]], "name": ["default"], "run_id": ["latest"]}
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path":
                    parameter["schema"] = {"anyOf": [{"enum": known[parameter["name"]]}, {"type": "string"}]}


@dataclass
class Api:
    """`answered`: how often with which status."""

    base: str
    schema: Any
    answered: Counter[int] = field(default_factory=Counter)

    def all(self) -> float:
        """What the shares add up to."""
        return sum(share(m, p, self.schema[p][m.upper()], bad) for m, p in OPERATIONS for bad in (False, True))


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    document = described()
    with LocalServer(Runtime([ScriptedEngine()], grace=0.2, journal=Journal())) as server:
        names(document, server)
        api = Api(server.base, schemathesis.openapi.from_dict(document))
        yield api
    print(f"\n{api.answered.total()} requests, answered with", dict(api.answered.most_common()))


def no_fault_of_the_server(_: CheckContext, response: Response, case: Case) -> bool | None:
    """No 5xx but the one that a deadline of the request itself brings, and every refusal of one shape."""
    if response.status_code >= 400:
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert response.status_code < 500 or error["code"] == "deadline_exceeded", error
    return None


CHECKS = [
    no_fault_of_the_server, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance,
]  # fmt: skip


@pytest.mark.parametrize("bad", [False, True], ids=["good", "bad"])
@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=lambda part: part)
def test_requests_of_the_description(api: Api, method: str, path: str, bad: bool):
    operation = api.schema[path][method.upper()]
    part = share(method, path, operation, bad)
    if not part:
        pytest.skip("it takes nothing that can be bad")
    strategy = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE if bad else GenerationMode.POSITIVE)

    @seed(SEED)
    @settings(
        max_examples=max(1, math.ceil(CASES * part / api.all())),
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def ask(case: Case) -> None:
        response = case.call(base_url=api.base, session=session, timeout=PATIENCE)
        api.answered[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    with requests.Session() as session:
        ask()


def test_every_route_is_described():
    document = create_app(Runtime([ScriptedEngine()])).openapi()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if path.startswith("/dashboard"):
                continue  # pages, for people
            assert (method, path) in OPERATIONS, f"{method} {path}: server/openapi/operations.py lacks it"
            assert "4XX" in operation["responses"]
            assert (
                ("408" in operation["responses"]) == ("413" in operation["responses"]) == ("requestBody" in operation)
            )
            assert ("401" in operation["responses"]) == (path not in ("/healthz", "/readyz"))


def test_refusals_of_keys_sizes_and_limits_are_described(tmp_path):
    """What the server above, which asks for no key and has no limits, does not answer."""
    terms = Terms(defaults=TenantSection(requests_per_minute=1))
    runtime = Runtime([ScriptedEngine()], terms=terms)
    limits = Limits(terms, lambda tenant: runtime.calls.queue(tenant))
    settings, schema = Settings(max_body=1_000, slow=0.2), schemathesis.openapi.from_dict(described())
    ask = {"model": "default", "prompt": "a"}
    with closing(TenantStore(tmp_path)) as store:
        headers = {"Authorization": f"Bearer {make(store, 'ann')[0]}"}
        with LocalServer(runtime, settings, keyring=Keyring(store), limits=limits) as server:
            for status, path, body, sent in (
                (401, "/v1/completions", ask, {}),
                (403, "/metrics", None, headers),
                (200, "/v1/completions", ask, headers),
                (429, "/v1/completions", ask, headers),
                (413, "/tokenize", {"prompt": "x" * 2_000}, headers),
            ):
                operation = schema[path]["GET" if body is None else "POST"]
                case = operation.Case(headers=sent) if body is None else operation.Case(headers=sent, body=body)
                response = case.call(base_url=server.base, timeout=PATIENCE)
                assert response.status_code == status
                assert str(status) in operation.definition.raw["responses"]
                case.validate_response(response, checks=CHECKS)
