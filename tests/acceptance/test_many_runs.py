"""200 programs at once on one real server: every text right, every KV block freed, memory back where it was."""

import asyncio
import random

import httpx
import psutil
import pytest
from live import LiveServer
from tiny_models import make_model

from semantic_parrot.adapters.client import AsyncParrotClient
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.wire import render, template

RUNS, DISTINCT = 200, 20


def request(*parts):
    content = template(*parts)
    return {"model": "default", "temperature": 0, "max_tokens": 8, "messages": [{"role": "user", "content": content}]}


CALLS = {
    **{f"s{i}": request(f"Summarise part {i}:\n", (f"doc{i}",)) for i in range(4)},
    "report": request("Merge these: ", ("s0",), " ", ("s1",), " ", ("s2",), " ", ("s3",)),
    "title": request("Give a title: ", ("report",)),
}


def program(inputs):
    calls = [{"id": name, "output": name, "request": body} for name, body in CALLS.items()]
    return parse_program({"calls": calls, "inputs": inputs, "outputs": ["title"]})


def documents(seed):
    rng = random.Random(seed)
    return {
        f"doc{i}": " ".join(rng.choices("red blue harbour ship fog tide pilot quay".split(), k=30)) for i in range(4)
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    model = make_model("llama", tmp_path_factory.mktemp("model"))
    with LiveServer("--model", str(model), "--deterministic") as server:
        yield server


def resident(server):
    process = psutil.Process(server.pid)
    return sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))


async def eager(http, inputs):
    values = dict(inputs)
    for name, body in CALLS.items():
        response = await http.post("chat/completions", json=render(body, values))
        values[name] = response.json()["choices"][0]["message"]["content"]
    return values["title"]


async def test_two_hundred_runs_at_once(server):
    async with AsyncParrotClient(server.url) as client, httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        expected = await asyncio.gather(*(eager(http, documents(seed)) for seed in range(DISTINCT)))
        assert len(set(expected)) > 1
        await asyncio.gather(*(client.run(program(documents(seed))) for seed in range(DISTINCT)))  # warm
        before = resident(server)
        results = await asyncio.gather(*(client.run(program(documents(i % DISTINCT))) for i in range(RUNS)))
    assert [r.status for r in results] == ["finished"] * RUNS
    assert [r.outputs["title"] for r in results] == [expected[i % DISTINCT] for i in range(RUNS)]
    metrics = server.metrics()
    assert metrics["parrot_kv_blocks_used"] == 0
    assert metrics["parrot_kv_blocks_total"] > 0
    assert resident(server) <= before * 1.1
