"""Durable runs over a SIGKILL of the server's process."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from followed import followed
from live import LiveServer

COMMAND = [sys.executable, str(Path(__file__).parents[1] / "support" / "scripted_serve.py"), "serve"]


def call(output: str, *parts: Any, **fields: Any) -> dict[str, Any]:
    request = {"model": "default", "temperature": 0, "messages": [{"role": "user", "content": {"$t": list(parts)}}]}
    return {"id": output, "output": output, "request": {**request, **fields}}


#: "first" has one word, which is said before the gate of an engine that is stuck.
PROGRAM = {
    "calls": [call("first", "One", max_tokens=1), call("second", "Two ", {"var": "first"})],
    "parrot": {"lifetime": "background"},
    "deltas": "all",
}


@contextmanager
def server(*args: str, stuck: bool = False):
    with (
        LiveServer(*args, *(["--model", "stuck"] if stuck else []), command=COMMAND) as live,
        httpx.Client(base_url=live.base, timeout=20) as http,
    ):
        yield live, http


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_goes_on_after_its_server_was_ended(tmp_path, end):
    args = ("--data-dir", str(tmp_path / "data"))
    with server(*args, stuck=True) as (live, http):
        run = http.post("/v1/runs", json=PROGRAM, headers={"Idempotency-Key": "k"}).json()["id"]
        heard = []
        with http.stream("GET", f"/v1/runs/{run}", headers={"Accept": "text/event-stream"}) as response:
            for line in response.iter_lines():
                if line.startswith("id: "):
                    heard.append(int(line[4:]))
                if '"id":"second"' in line and "variable.delta" in line:
                    break  # it is in the middle of its answer
            live.process.send_signal(end)
        live.wait()
        assert "Traceback" not in live.log()
    with server(*args) as (live, http):
        assert "1 unfinished runs go on" in live.log()
        events = followed(http, run)
        assert [number for number, _ in events] == list(range(1, len(events) + 1))
        assert events[len(heard) - 1][1]["type"] == "variable.delta"
        again = http.post("/v1/runs", json=PROGRAM, headers={"Idempotency-Key": "k"}).json()
        assert (again["id"], again["status"]) == (run, "finished")
        assert followed(http, run, heard[-1]) == events[heard[-1] :]
        text = "".join(event["text"] for _, event in events if event.get("variable") == "second")
        assert text == again["outputs"]["second"]
        assert live.metrics()["parrot_calls_executed_total"] == 1  # the second call, and not the first again


def test_two_servers_do_not_share_a_journal(tmp_path):
    with server("--data-dir", str(tmp_path)), pytest.raises(AssertionError, match="in use by another server"):
        LiveServer("--data-dir", str(tmp_path), command=COMMAND).__enter__()


def test_sigterm_lets_open_requests_end_and_takes_no_new_ones(tmp_path):
    ask = {"model": "default", "messages": [{"role": "user", "content": "hello"}], "stream": True}
    with server("--data-dir", str(tmp_path), stuck=True) as (live, http):
        run = http.post("/v1/runs", json=PROGRAM).json()["id"]
        background = {"Accept": "text/event-stream"}
        with (
            http.stream("POST", "/v1/chat/completions", json=ask) as response,
            http.stream("GET", f"/v1/runs/{run}", headers=background) as events,
        ):
            lines = response.iter_lines()
            assert any("content" in line for line in lines)
            live.process.send_signal(signal.SIGTERM)
            assert not any("run.finished" in line for line in events.iter_lines())  # its end is the stream's alone
            assert http.get("/readyz").status_code == 503
            for path, body in (
                ("/v1/chat/completions", ask),
                ("/v1/runs", PROGRAM),
                ("/v1/runs", {**PROGRAM, "parrot": {}}),
                ("/v1/sessions", {}),
            ):
                refused = http.post(path, json=body)
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining"), path
                assert int(refused.headers["retry-after"]) > 0
            refused = http.get(f"/v1/runs/{run}", headers=background)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
            assert http.get(f"/v1/runs/{run}").json()["status"] == "running"
            live.process.send_signal(signal.SIGUSR1)  # opens the engine's gate
            assert list(lines)[-2] == "data: [DONE]"
        assert live.wait() == 0
        assert "Traceback" not in live.log()
