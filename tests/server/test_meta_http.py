from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families
from scripted import ScriptedEngine

from semantic_parrot.core.engines.protocol import Stats
from semantic_parrot.core.errors import EngineFailed
from semantic_parrot.core.runtime import Runtime

NAMES = [
    "parrot_requests_total",
    "parrot_runs_total",
    "parrot_calls_executed_total",
    "parrot_prompt_tokens_computed_total",
    "parrot_prompt_tokens_reused_total",
    "parrot_generated_tokens_total",
    "parrot_unclaimed_tokens_total",
    "parrot_kv_blocks_used",
    "parrot_kv_blocks_cached",
    "parrot_kv_blocks_offloaded",
    "parrot_kv_blocks_restored_total",
    "parrot_kv_blocks_total",
    "parrot_engine_up",
]


def test_metrics_have_the_promised_names(site):
    response = site.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    samples = {s.name for family in text_string_to_metric_families(response.text) for s in family.samples}
    assert samples.issuperset(NAMES)


def test_metrics_report_what_the_engine_says_and_keep_it_when_it_is_down(gated):
    async def says() -> Stats:
        return Stats(prompt_tokens_computed=7, prompt_tokens_reused=5, kv_blocks_used=3)

    async def fails() -> Stats:
        raise EngineFailed("it is down")

    gated.engine.stats = says
    for _ in range(2):
        found = gated.server.metrics()
        assert found["parrot_prompt_tokens_computed_total"] == 7
        assert found["parrot_prompt_tokens_reused_total"] == 5
        assert found["parrot_kv_blocks_used"] == 3
        gated.engine.stats = fails


def test_readiness_follows_the_engine_and_health_does_not(gated):
    assert gated.http.get("/readyz").json() == {"status": "ready", "models": {"scripted": True}, "down": {}}
    gated.engine.healthy = False
    response = gated.http.get("/readyz")
    assert response.status_code == 503
    assert response.json()["down"] == {"scripted-0": "it is down"}
    assert gated.http.get("/healthz").status_code == 200
    assert gated.server.metrics()["parrot_engine_up"] == 0
    response = gated.http.post("/v1/completions", json={"model": "default", "prompt": "x"})
    assert response.status_code == 503


def test_probes_may_ask_for_the_head_alone(gated):
    for path, status in (("/healthz", 200), ("/readyz", 503)):
        gated.engine.healthy = path == "/healthz"
        response = gated.http.head(path)
        assert (response.status_code, response.content) == (status, b"")


async def test_tokens_are_told_by_an_engine_that_is_up():
    engines = ScriptedEngine(name="a"), ScriptedEngine(name="b")
    runtime = Runtime(engines)
    await runtime.start()
    engines[0].healthy = False
    engines[0].tokenize = None
    assert await runtime.tokenize("default", "a bc") == [1, 2]
    await runtime.close()


def test_tokenize(site):
    assert site.http.post("/tokenize", json={"prompt": "a bc def"}).json() == {
        "tokens": [1, 2, 3],
        "count": 3,
        "max_model_len": 4096,
    }
    messages = [{"role": "user", "content": "abcd"}]
    assert site.http.post("/tokenize", json={"model": "scripted", "messages": messages}).json()["tokens"] == [4]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": "a", "messages": []}, "prompt"),
        ({"messages": []}, "messages"),
        ({"prompt": "a", "temperature": 0}, "temperature"),
        ({"prompt": "a", "model": "gpt-9"}, "model"),
    ],
)
def test_tokenize_names_what_is_wrong(site, body, where):
    response = site.http.post("/tokenize", json=body)
    assert response.status_code in (400, 404)
    assert response.json()["error"]["param"] == where


def test_every_route_is_in_the_schema(site):
    paths = set(site.http.get("/openapi.json").json()["paths"])
    assert paths.issuperset({"/v1/runs", "/v1/chat/completions", "/v1/sessions", "/tokenize", "/metrics"})
