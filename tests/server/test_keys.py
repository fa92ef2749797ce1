"""API keys: on the command line, at the door of a server, and as OpenAI's client meets them."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import stat
from contextlib import closing

import httpx
import openai
import pytest
from live import LocalServer
from scripted import ScriptedEngine
from typer.testing import CliRunner

from semantic_parrot.core.journal.journal import Journal
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.server.cli import app
from semantic_parrot.server.listener import bind
from semantic_parrot.server.options import ServeOptions
from semantic_parrot.server.serve import open_store, serve
from semantic_parrot.server.service import Settings
from semantic_parrot.server.tenants.keys import Keyring, make
from semantic_parrot.server.tenants.store import FILE, StoreError, TenantStore

from .test_runs_http import PROGRAM, chat
from .test_serve import scripted


@pytest.fixture
def store(tmp_path):
    store = TenantStore(tmp_path)
    yield store
    store.close()


@pytest.fixture
def guarded(store):
    settings = Settings(max_body=1_000_000, dev=True)
    with LocalServer(Runtime([ScriptedEngine()], grace=5), settings, keyring=Keyring(store)) as server:
        yield server


def client(server, secret=None):
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    return httpx.Client(base_url=server.base, headers=headers, timeout=20)


def command(directory, *args):
    return CliRunner().invoke(app, ["keys", *args, "--data-dir", str(directory)])


def test_what_is_kept_of_a_key_does_not_open_anything(tmp_path, store):
    secret, key = make(store, "ann")
    assert len(base64.urlsafe_b64decode(secret.removeprefix("parrot-sk-") + "=")) == 32
    kept = (tmp_path / FILE).read_bytes() + (tmp_path / f"{FILE}-wal").read_bytes()
    assert key.id.encode() in kept
    assert secret.encode() not in kept
    assert secret.removeprefix("parrot-sk-").encode() not in kept
    assert stat.S_IMODE(os.stat(tmp_path / FILE).st_mode) == 0o600


def test_the_command_line_adds_lists_and_revokes(tmp_path):
    added = command(tmp_path, "add", "ann")
    assert (added.exit_code, added.stdout.count("\n")) == (0, 1)
    other = command(tmp_path, "add", "ann", "--operator")
    assert added.stdout != other.stdout
    listed = command(tmp_path, "ls", "--json")
    assert added.stdout.strip() not in listed.stdout
    first, second = json.loads(listed.stdout)
    assert [(k["tenant"], k["operator"], k["revoked"]) for k in (first, second)] == [
        ("ann", False, None), ("ann", True, None)
    ]  # fmt: skip
    assert command(tmp_path, "revoke", first["id"]).stdout == f"{first['id']} is revoked\n"
    assert command(tmp_path, "revoke", first["id"]).exit_code == 1
    assert command(tmp_path, "revoke", "ann").stdout == f"{second['id']} is revoked\n"
    assert all(k["revoked"] for k in json.loads(command(tmp_path, "ls", "--json").stdout))
    table = command(tmp_path, "ls").stdout
    assert {first["id"], "(operator)", "revoked"} <= set(table.split())


def test_equal_idempotency_keys_of_two_tenants_are_two_runs(store):
    """And neither learns of the other's, whichever way it asks."""
    program = {**PROGRAM, "parrot": {"lifetime": "background"}}
    runtime = Runtime([ScriptedEngine()], grace=5, journal=Journal())
    ids = {}
    with LocalServer(runtime, Settings(max_body=1_000_000), keyring=Keyring(store)) as server:
        clients = {tenant: client(server, make(store, tenant)[0]) for tenant in ("ann", "bob")}
        for tenant, http in clients.items():
            # Bob's body is another one: he would be refused if the key were known.
            sent = {**program, "outputs": ["s0"]} if tenant == "bob" else program
            answers = [http.post("/v1/runs", json=sent, headers={"Idempotency-Key": "order 17"}) for _ in range(2)]
            assert [answer.status_code for answer in answers] == [202, 202]
            assert ["idempotent-replayed" in answer.headers for answer in answers] == [False, True]
            assert answers[0].json()["id"] == answers[1].json()["id"]
            ids[tenant] = answers[0].json()["id"]
        assert ids["ann"] != ids["bob"]
        for tenant, other in (("ann", "bob"), ("bob", "ann")):
            http = clients[tenant]
            assert [run["id"] for run in http.get("/v1/runs").json()["data"]] == [ids[tenant]]
            for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/report"), ("GET", "/trace")):
                foreign = http.request(method, f"/v1/runs/{ids[other]}{path}")
                unknown = http.request(method, f"/v1/runs/run_{'0' * 32}{path}")
                assert foreign.status_code == unknown.status_code == 404
                assert foreign.text.replace(ids[other], "") == unknown.text.replace(f"run_{'0' * 32}", "")
            http.close()


@pytest.mark.parametrize("name", ["", "a b", "../etc", "a" * 65, ".hidden", "é"])
def test_a_name_that_is_none_is_refused(tmp_path, name):
    result = CliRunner().invoke(app, ["keys", "add", "--data-dir", str(tmp_path), "--", name])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is no name" in result.stderr
    assert json.loads(command(tmp_path, "ls", "--json").stdout) == []


def test_a_store_that_is_not_ours_is_one_line(tmp_path):
    (tmp_path / FILE).write_bytes(b"this is no database, and long enough to be read as one" * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        TenantStore(tmp_path)
    (tmp_path / "new").mkdir()
    with sqlite3.connect(tmp_path / "new" / FILE) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="version 99"):
        TenantStore(tmp_path / "new")
    result = command(tmp_path / FILE, "ls")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_without_a_key_only_health_is_told(guarded):
    with client(guarded) as http:
        for path in ("/healthz", "/readyz"):
            assert http.get(path).status_code == 200
        for method, path in (
            ("GET", "/v1/models"), ("GET", "/v1/runs"), ("GET", "/metrics"), ("GET", "/openapi.json"),
            ("POST", "/v1/runs"), ("POST", "/v1/chat/completions"), ("POST", "/v1/sessions"), ("GET", "/no/such"),
            ("GET", "/healthz/"),
        ):  # fmt: skip
            response = http.request(method, path)
            assert response.status_code == 401, path
            error = response.json()["error"]
            assert (error["code"], error["type"]) == ("invalid_api_key", "invalid_request_error")
            assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer parrot-sk-wrong",
        "Basic",
        "Basic !!",
        "Basic /w==",
        "Digest x",
        "parrot-sk-x",
        "Bearer é",
    ],
)
def test_what_is_no_key_is_refused(guarded, header):
    with client(guarded) as http:
        response = http.get("/v1/models", headers={"Authorization": header.encode("latin-1")})
        assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")


def test_a_large_body_without_a_key_is_answered_all_the_same(guarded):
    with client(guarded) as http:
        response = http.post("/v1/runs", content=b" " * 900_000)
        assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
        assert http.get("/healthz").status_code == 200


def test_several_keys_of_a_tenant_open_the_same_things_and_others_none(guarded, store):
    (one, _), (two, _), (other, _) = make(store, "ann"), make(store, "ann"), make(store, "bob")
    with client(guarded, one) as ann, client(guarded, two) as also, client(guarded, other) as bob:
        run = ann.post("/v1/runs", json=PROGRAM).json()["id"]
        session = ann.post("/v1/sessions").json()["id"]
        body = {"calls": [{"id": "a", "output": "a", "request": chat("A")}], "inputs": {"free": None}}
        ids = ann.post(f"/v1/sessions/{session}/calls", json=body).json()["variables"]
        gets = (f"/v1/runs/{run}", f"/v1/runs/{run}/report", f"/v1/variables/{ids['a']}")
        for path in gets:
            assert also.get(path).status_code == 200
            assert bob.get(path).status_code == 404
        assert also.get("/v1/runs").json()["data"][0]["id"] == run
        assert bob.get("/v1/runs").json()["data"] == []
        assert bob.get("/v1/runs/latest/report").status_code == 404
        intruder = {**PROGRAM, "parrot": {"session": session}}
        eager = {**chat("A"), "parrot": {"session": session}}
        refused = [
            bob.delete(f"/v1/runs/{run}"),
            bob.delete(f"/v1/sessions/{session}"),
            bob.post(f"/v1/sessions/{session}/calls", json=body),
            bob.put(f"/v1/variables/{ids['free']}", json={"value": "x"}),
            bob.post("/v1/runs", json=intruder),
            bob.post("/v1/chat/completions", json=eager),
        ]
        assert [r.status_code for r in refused] == [404] * len(refused)
        assert also.put(f"/v1/variables/{ids['free']}", json={"value": "x"}).status_code == 200


def test_a_key_that_is_revoked_by_another_process_opens_nothing_at_once(guarded, store, tmp_path):
    with client(guarded, command(tmp_path, "add", "ann").stdout.strip()) as http:
        assert http.get("/v1/models").status_code == 200
        command(tmp_path, "revoke", "ann")
        assert http.get("/v1/models").status_code == 401


def test_an_operators_key_is_for_what_is_about_all_and_for_nothing_else(guarded, store):
    (operator, _), (tenant, _) = make(store, "prometheus", operator=True), make(store, "ann")
    with client(guarded, operator) as watch, client(guarded, tenant) as ann:
        assert b"parrot_requests_total" in watch.get("/metrics").content
        assert watch.post("/reset_prefix_cache").status_code == 200
        assert [c.get("/v1/engines").status_code for c in (watch, ann)] == [200, 200]
        refused = [
            ann.get("/metrics"),
            ann.post("/reset_prefix_cache"),
            watch.get("/v1/runs"),
            watch.post("/v1/runs", json=PROGRAM),
        ]
        assert [(r.status_code, r.json()["error"]["code"]) for r in refused] == [(403, "forbidden")] * 4


def test_a_browser_gives_its_key_as_a_password_but_not_to_other_pages(guarded, store):
    secret, _ = make(store, "ann")
    with client(guarded) as http:
        http.auth = ("anybody", secret)
        assert http.get("/v1/runs", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200
        assert http.post("/v1/sessions", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
        for site in ("cross-site", "same-site"):
            assert http.post("/v1/sessions", headers={"Sec-Fetch-Site": site}).status_code == 401


def test_keys_that_cannot_be_read_let_nobody_in(guarded, store, tmp_path, caplog):
    secret, _ = make(store, "ann")
    with client(guarded, secret) as http:
        assert http.get("/v1/models").status_code == 200
        with sqlite3.connect(tmp_path / FILE) as connection:
            connection.execute("DROP TABLE keys")
        connection.close()
        response = http.get("/v1/models")
        assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
    assert "no such table" in caplog.text


def test_openais_client(guarded, store):
    secret, _ = make(store, "ann")
    with openai.OpenAI(base_url=guarded.url, api_key=secret) as good:
        assert (
            good.chat.completions.create(model="default", messages=[{"role": "user", "content": "Hello"}])
            .choices[0]
            .message.content
        )
    with openai.OpenAI(base_url=guarded.url, api_key="parrot-sk-wrong") as bad:
        with pytest.raises(openai.AuthenticationError) as caught:
            bad.models.list()
        assert caught.value.code == "invalid_api_key"


def test_parrot_serve_asks_for_keys_where_others_can_reach_it(tmp_path):
    with scripted("--host", "0.0.0.0", "--data-dir", str(tmp_path)) as server:
        assert "keys are asked for, and there is none yet: parrot keys add NAME --data-dir" in server.log()
        with client(server) as http:
            assert http.get("/v1/models").status_code == 401
        with client(server, command(tmp_path, "add", "ann").stdout.strip()) as http:
            assert http.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    ("host", "asked", "kept"),
    [("127.0.0.1", None, False), ("::1", None, False), ("127.0.0.1", True, True), ("0.0.0.0", None, True)],
)
def test_on_loopback_keys_are_asked_for_if_that_is_said_and_elsewhere_always(tmp_path, host, asked, kept):
    options = ServeOptions(host=host, api_keys=asked, data_dir=str(tmp_path / "new"))
    with closing(bind(host, 0)) as sock:
        tenants = open_store(options, sock)
    assert (tenants is not None, (tmp_path / "new" / FILE).exists()) == (kept, kept)
    if tenants is not None:
        tenants.close()


def test_elsewhere_the_server_does_not_start_without_keys(tmp_path, capsys):
    options = ServeOptions(host="0.0.0.0", port=0, api_keys=False, data_dir=str(tmp_path))
    assert serve(options, lambda _: [ScriptedEngine()]) == 2
    assert capsys.readouterr().err == (
        "parrot: API keys are required on 0.0.0.0: only on loopback may the server do without\n"
    )
