"""`parrot serve` with a real model in its own engine process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import psutil
import pytest
from live import LiveServer

from semantic_parrot.core.wire import render, template


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    from tiny_models import make_model

    return make_model("llama", tmp_path_factory.mktemp("models") / "llama-tiny")


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[LiveServer]:
    with LiveServer("--model", str(model), "--deterministic") as server:
        yield server


def chat(*parts: str | tuple[str]) -> dict[str, Any]:
    messages = [{"role": "user", "content": template(*parts)}]
    return {"model": "default", "temperature": 0, "max_tokens": 12, "messages": messages}


def test_a_program_says_what_eager_calls_say(server):
    calls = {
        "m0": chat("Summarise ", ("doc",)),
        "m1": chat("Criticise ", ("doc",)),
        "r": chat("Merge ", ("a",), ("b",)),
    }
    outputs = {"m0": "a", "m1": "b", "r": "out"}
    program = {
        "calls": [{"id": id, "output": outputs[id], "request": request} for id, request in calls.items()],
        "inputs": {"doc": "the harbour master wrote down each ship"},
        "outputs": ["a", "b", "out"],
    }
    found = httpx.post(f"{server.url}/runs", json=program, timeout=60).json()["outputs"]
    values = dict(program["inputs"])
    for id, request in calls.items():
        response = httpx.post(f"{server.url}/chat/completions", json=render(request, values), timeout=60)
        values[outputs[id]] = response.json()["choices"][0]["message"]["content"]
        assert found[outputs[id]] == values[outputs[id]]


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "n": {"type": "integer"}},
    "required": ["name", "n"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMA, "strict": True}}


def test_an_answer_within_a_schema(server):
    """Eager, streamed, and as a call of a program whose JSON another call's prompt is made of."""
    request = {**chat("Invent"), "max_tokens": 60, "temperature": 1, "seed": 7, "response_format": FORMAT}
    eager = httpx.post(f"{server.url}/chat/completions", json=render(request, {}), timeout=60).json()
    text = eager["choices"][0]["message"]["content"]
    jsonschema.validate(json.loads(text), SCHEMA)
    assert eager["choices"][0]["finish_reason"] == "stop"

    body = render(request, {}) | {"stream": True}
    with httpx.stream("POST", f"{server.url}/chat/completions", json=body, timeout=60) as stream:
        blocks = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: {")]
    assert "".join(block["choices"][0]["delta"].get("content", "") for block in blocks) == text

    program = {
        "calls": [
            {"id": "a", "output": "made", "request": request},
            {"id": "b", "output": "said", "request": chat("Name: ", ("name",))},
        ],
        "transforms": [
            {"id": "t", "op": "json", "of": "made", "output": "value"},
            {"id": "u", "op": "get", "path": ["name"], "of": "value", "output": "name"},
        ],
        "outputs": ["made", "said"],
    }
    outputs = httpx.post(f"{server.url}/runs", json=program, timeout=60).json()["outputs"]
    assert outputs["made"] == text
    assert "said" in outputs


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}},
            "response_format.json_schema.schema",
        ),
        ({"structured_outputs": {"regex": "x(?=y)"}}, "structured_outputs.regex"),
    ],
)
def test_a_grammar_that_is_refused(server, fields, where):
    before = server.metrics()["parrot_prompt_tokens_computed_total"]
    response = httpx.post(f"{server.url}/chat/completions", json=render(chat("no"), {}) | fields, timeout=60)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == where
    assert server.metrics()["parrot_prompt_tokens_computed_total"] == before


def test_prefixes_can_be_forgotten_where_the_server_says_so(server, model):
    assert httpx.post(f"{server.base}/reset_prefix_cache").status_code == 404
    with LiveServer("--model", str(model), "--dev") as dev:

        def cached() -> int:
            body = render(chat("Say it"), {})
            usage = httpx.post(f"{dev.url}/chat/completions", json=body, timeout=60).json()["usage"]
            return int(usage["prompt_tokens_details"]["cached_tokens"])

        assert cached() == 0
        assert cached() > 0
        assert httpx.post(f"{dev.base}/reset_prefix_cache").status_code == 200
        assert dev.metrics()["parrot_kv_blocks_cached"] == 0
        assert cached() == 0


def test_reuse_and_blocks_are_measured(server):
    body = render(chat("A prompt that is long enough to fill some blocks of the cache. " * 4), {})
    first = httpx.post(f"{server.url}/chat/completions", json=body, timeout=60).json()
    before = server.metrics()
    again = httpx.post(f"{server.url}/chat/completions", json=body, timeout=60).json()
    after = server.metrics()
    cached = again["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached > 0
    assert after["parrot_prompt_tokens_reused_total"] - before["parrot_prompt_tokens_reused_total"] == cached
    assert after["parrot_kv_blocks_used"] == 0
    assert 0 < after["parrot_kv_blocks_cached"] <= after["parrot_kv_blocks_total"]
    assert first["choices"] == again["choices"]


def test_a_stream_is_the_whole_answer_and_counts_its_tokens(server):
    body = render(chat("Tell me of the sea"), {})
    whole = httpx.post(f"{server.url}/chat/completions", json=body, timeout=60).json()
    counted = httpx.post(f"{server.base}/tokenize", json={"messages": body["messages"]}, timeout=60).json()
    assert counted["count"] == whole["usage"]["prompt_tokens"]
    import openai

    with openai.OpenAI(base_url=server.url, api_key="any", max_retries=0) as client:
        chunks = list(client.chat.completions.create(**body, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole["choices"][0]["message"]["content"]


def test_a_prompt_beyond_the_context_is_a_400_even_as_a_stream_and_no_round_trip(server):
    body = render(chat("word " * 5000), {})
    before = server.requests()
    for stream in (False, True):
        response = httpx.post(f"{server.url}/chat/completions", json={**body, "stream": stream}, timeout=60)
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "context_length_exceeded"
    assert server.requests() == before


def test_the_server_process_never_loads_torch(server):
    maps = Path(f"/proc/{server.pid}/maps")
    if not maps.exists():
        pytest.skip("no /proc here")
    assert "libtorch" not in maps.read_text()


def test_its_engines_end_with_it(model):
    with LiveServer("--model", str(model)) as server:
        assert server.model == "llama-tiny"
        names = {m["id"] for m in httpx.get(f"{server.url}/models").json()["data"]}
        assert names == {"llama-tiny", "default", str(model)}
        (engine,) = psutil.Process(server.pid).children()
        assert engine.cmdline()[0].startswith("parrot-engine")
        assert server.stop() == 0
        assert not engine.is_running()


def test_the_demo_model_is_the_default_and_ctrl_c_ends_everything():
    with LiveServer() as server:
        assert server.model == "parrot-demo"
        (engine,) = psutil.Process(server.pid).children()
        body = {**render(chat("harbour"), {}), "max_tokens": 1500, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{server.url}/chat/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            assert any("content" in line for line in lines)
            os.killpg(server.pid, signal.SIGINT)  # as a terminal does: the engine's process gets it too
            *_, error, done = [line for line in lines if line]
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == "engine_failed"
        assert done == "data: [DONE]"
        assert server.wait() == 0
        assert not engine.is_running()
        assert "Traceback" not in server.log()


@pytest.mark.parametrize("damage", ["missing", "truncated", "unsupported"])
def test_a_directory_that_holds_no_model_is_one_line_and_exit_code_2(model, tmp_path, damage):
    directory = tmp_path / "damaged"
    if damage != "missing":
        directory.mkdir()
    if damage in ("truncated", "unsupported"):
        for file in model.iterdir():
            (directory / file.name).write_bytes(file.read_bytes())
    if damage == "truncated":
        weights = directory / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    if damage == "unsupported":
        config = directory / "config.json"
        config.write_text(config.read_text().replace('"llama"', '"no-such-architecture"'))
    command = [sys.executable, "-m", "semantic_parrot.server.cli", "serve", "--port", "0", "--model", str(directory)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2, ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert ended.stderr.startswith("parrot: ")
    assert "damaged" in ended.stderr
