"""A web page whose name leads to this machine reads nothing of a server without keys."""

from __future__ import annotations

import httpx
import pytest
from live import LocalServer
from scripted import ScriptedEngine

from semantic_parrot.core.runtime import Runtime
from semantic_parrot.server.hosts import is_own
from semantic_parrot.server.tenants.keys import Keyring, make
from semantic_parrot.server.tenants.store import TenantStore

OWN = ["localhost", "LOCALHOST:87", "127.0.0.1:87", "[::1]:87", "[::1]", "parrot:80", "a.localhost", "10.0.0.7", ""]
FOREIGN = [
    "evil.example",
    "evil.example:87",
    "127.0.0.1.evil.example",
    "localhost.evil.example:1",
    "evil.a.",
    "[evil.a]",
]


@pytest.mark.parametrize("host", OWN)
def test_own_names(host):
    assert is_own(host)


@pytest.mark.parametrize("host", FOREIGN)
def test_foreign_names(host):
    assert not is_own(host)


def test_a_server_without_keys_answers_under_its_own_names_alone(tmp_path):
    with LocalServer(Runtime([ScriptedEngine()])) as server, httpx.Client(base_url=server.base) as http:
        for path in ("/v1/models", "/dashboard", "/metrics", "/openapi.json"):
            assert http.get(path).status_code == 200
            for _ in range(2):
                refused = http.get(path, headers={"Host": "evil.example:8765"})
                assert (refused.status_code, refused.json()["error"]["param"]) == (403, "Host")
        run = {"calls": []}
        assert http.post("/v1/runs", json=run, headers={"Host": "evil.example"}).status_code == 403
    store = TenantStore(tmp_path)
    headers = {"Authorization": f"Bearer {make(store, 'ann')[0]}", "Host": "parrot.example"}
    with (
        LocalServer(Runtime([ScriptedEngine()]), keyring=Keyring(store)) as server,
        httpx.Client(base_url=server.base, headers=headers) as http,
    ):
        assert http.get("/v1/models").status_code == 200  # who has a key is no page
    store.close()
