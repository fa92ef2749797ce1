"""The engine's process is killed in the middle of things: its requests get an error, and the server serves on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import psutil
from live import LiveServer
from tiny_models import make_model

LONG = {"temperature": 0, "max_tokens": 900, "ignore_eos": True}


def data(response: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def ask(*content: object) -> dict[str, Any]:
    return {"model": "default", "messages": [{"role": "user", "content": {"$t": list(content)}}], **LONG}


def test_killed_in_the_middle(tmp_path):
    program = {
        "calls": [
            {"id": "a", "output": "x", "request": ask("Tell me of the sea")},
            {"id": "b", "output": "y", "request": ask({"var": "x"})},
        ],
        "outputs": ["x", "y"],
        "deltas": "all",
        "stream": True,
    }
    chat = {**ask(), "messages": [{"role": "user", "content": "Tell me of the quay"}]}
    path = make_model("llama", tmp_path / "llama")
    with LiveServer("--model", str(path), "--deterministic") as server, httpx.Client(timeout=60) as client:
        (engine,) = psutil.Process(server.pid).children()
        with (
            client.stream("POST", f"{server.url}/runs", json=program) as run,
            client.stream("POST", f"{server.url}/chat/completions", json={**chat, "stream": True}) as answer,
        ):
            of_run, of_answer = data(run), data(answer)
            assert any(event["type"] == "variable.delta" for event in of_run)
            assert any(chunk["choices"][0]["delta"]["content"] for chunk in of_answer)
            os.kill(engine.pid, signal.SIGKILL)
            *_, error = of_answer
            rest = list(of_run)
        assert error["error"]["code"] == "engine_failed"
        (failed,) = (event for event in rest if event["type"] == "call.failed" and event["id"] == "a")
        assert failed["body"]["error"]["code"] == "engine_failed"
        assert rest[-1]["type"] == "run.finished"
        assert rest[-1]["status"] == "failed"

        # Refused as retryable until the model is loaded again: a client that goes by Retry-After gets its answer.
        with openai.OpenAI(base_url=server.url, api_key="any", max_retries=100) as patient:
            again = patient.chat.completions.create(model="default", messages=chat["messages"], max_tokens=5)
        assert again.usage.completion_tokens > 0
        (restarted,) = psutil.Process(server.pid).children()
        assert restarted.pid != engine.pid
        assert server.metrics()["parrot_kv_blocks_used"] == 0
