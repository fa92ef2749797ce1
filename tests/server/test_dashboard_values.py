"""Large values of a run, and what the journal has of it, are written down beside the event loop, which serves all."""

from __future__ import annotations

import json
import threading

import httpx
from followed import followed
from live import LocalServer
from scripted import ScriptedEngine

from semantic_parrot.core import runtime as core
from semantic_parrot.core.journal.journal import Journal
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.server.dashboard import values

from .test_dashboard import CHAIN


def test_the_loop_does_not_write_values(monkeypatch):
    threads = []

    class Recording:
        @staticmethod
        def dumps(*args, **kwargs):
            threads.append(threading.current_thread().name)
            return json.dumps(*args, **kwargs)

    monkeypatch.setattr(values, "json", Recording)
    first = {"id": "t", "op": "get", "path": [0], "of": "list", "output": "first"}
    program = {**CHAIN, "inputs": {"list": [["zwölf"], "two"]}, "transforms": [first], "outputs": ["first"]}
    with (
        LocalServer(Runtime([ScriptedEngine()], grace=60)) as server,
        httpx.Client(base_url=server.base, timeout=20) as http,
    ):
        run = http.post("/v1/runs", json=program).json()
        assert run["outputs"] == {"first": ["zwölf"]}
        assert "zwölf" in http.get(f"/dashboard/runs/{run['id']}").text
    assert threads
    assert "local-server" not in threads


def test_the_loop_does_not_tell_old_runs_again(monkeypatch, tmp_path):
    threads, trace_of = [], core.trace_of
    monkeypatch.setattr(
        core, "trace_of", lambda stored: threads.append(threading.current_thread().name) or trace_of(stored)
    )
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    sent, report = {**CHAIN, "parrot": {"lifetime": "background"}}, {}
    for _ in range(2):
        with (
            LocalServer(Runtime([ScriptedEngine()], journal=Journal(url))) as server,
            httpx.Client(base_url=server.base, timeout=60) as http,
        ):
            if not report:
                run = http.post("/v1/runs", json=sent).json()["id"]
                followed(http, run)
            report = http.get(f"/v1/runs/{run}/report").json()
    assert report["retold"]
    assert threads
    assert "local-server" not in threads
