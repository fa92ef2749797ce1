"""What /metrics measures of calls, runs and tenants, and the Grafana dashboard that shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from programs import request
from prometheus_client.parser import text_string_to_metric_families

from semantic_parrot.core.engines.protocol import Done, Usage
from semantic_parrot.core.events import Timings
from semantic_parrot.core.observer import Execution
from semantic_parrot.core.wire import template
from semantic_parrot.server.measures import TENANTS, Measures

BOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "parrot.json"

TWO = [
    {"id": "one", "output": "a", "request": request("one")},
    {"id": "two", "output": "b", "request": request("two", ("a",))},
]


def samples(measures: Measures) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in measures.registry.collect()
        for sample in family.samples
    }


def execution(tenant: str = "", queued: float = 0.0, prefill: float = 0.0, decode: float = 0.0, usage=(9, 4, 3)):
    timings = Timings(queued=queued, prefill=prefill, decode=decode)
    return Execution(tenant, "m", "latency", Done("text", "stop", Usage(*usage), timings))


def test_times_of_an_execution_are_those_that_its_client_feels():
    measures = Measures()
    measures.executed(execution("acme", queued=2.0, prefill=0.5, decode=0.8, usage=(9, 4, 3)))
    found = samples(measures)
    assert found["parrot_queue_seconds_sum", "latency"] == 2.0
    assert found["parrot_time_to_first_token_seconds_sum", "latency"] == 2.5
    assert found["parrot_time_per_output_token_seconds_sum", "latency"] == pytest.approx(0.4)
    tokens = {kind: found["parrot_tenant_tokens_total", "acme", kind] for kind in ("prompt", "cached", "completion")}
    assert tokens == {"prompt": 5, "cached": 4, "completion": 3}


def test_one_token_has_no_time_between_tokens():
    measures = Measures()
    measures.executed(execution(decode=1.0, usage=(9, 0, 1)))
    assert ("parrot_time_per_output_token_seconds_count", "latency") not in samples(measures)


def test_tenants_beyond_the_bound_share_one_series():
    measures = Measures()
    for number in range(TENANTS + 5):
        measures.executed(execution(f"tenant-{number}"))
    found = samples(measures)
    series = {key[1] for key in found if key[0] == "parrot_tenant_tokens_total"}
    assert len(series) == TENANTS + 1
    assert found["parrot_tenant_tokens_total", "other", "completion"] == 5 * 3
    assert found["parrot_tenant_tokens_total", "tenant-0", "completion"] == 3


def test_calls_and_runs_are_counted_by_how_they_end(site):
    blank = {"model": "default", "prompt": template(("none",))}
    bad = {"calls": [{"id": "bad", "output": "x", "request": blank}], "inputs": {"none": ""}}
    site.http.post("/v1/runs", json={"calls": TWO})
    site.http.post("/v1/runs", json=bad)
    assert site.counted('parrot_calls_total{status="finished"}') == 2
    assert site.counted("parrot_run_seconds_count") == site.counted("parrot_runs_total") == 2
    assert site.counted("parrot_tenant_runs_total") == 2
    assert site.counted('parrot_calls_total{status="failed"}') == 1
    assert site.counted("parrot_time_to_first_token_seconds_count") == site.counted("parrot_calls_executed_total") == 2
    assert site.counted("parrot_prefetched_answers_total") == 0


def test_a_run_under_way_and_its_waiting_calls_are_gauges(gated):
    with gated.http.stream("POST", "/v1/runs", json={"calls": TWO, "stream": True}):
        assert gated.engine.came.acquire(timeout=10)
        assert gated.server.metrics()["parrot_runs_open"] == 1
        gated.open_gate()


def test_claimed_answers_are_those_that_the_client_does_not_give_back(site):
    calls = [*TWO, {"id": "three", "output": "c", "request": request("three")}]
    program = {"calls": calls, "parrot": {"lifetime": "prefetch"}}
    run = site.http.post("/v1/runs", json=program).json()["id"]
    site.http.request("DELETE", f"/v1/runs/{run}", json={"unclaimed": ["three", "never there"]})
    assert site.counted("parrot_prefetched_answers_total") == 3
    assert site.counted("parrot_unclaimed_answers_total") == 1
    assert site.counted("parrot_unclaimed_tokens_total") == 3


def _queries() -> list[str]:
    return [target["expr"] for panel in json.loads(BOARD.read_text())["panels"] for target in panel["targets"]]


def test_every_query_of_the_grafana_dashboard_names_metrics_and_labels_that_are_there(site):
    site.http.post("/v1/runs", json={"calls": TWO})
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(site.http.get("/metrics").text):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    assert len(_queries()) > 15
    for query in _queries():
        used = re.findall(r"(parrot_\w+)(?:\{(\w+)=)?", query)
        assert used
        for name, label in used:
            assert name in labels, query
            assert not label or label in labels[name], query
        for grouped in re.findall(r"by \(([^)]*)\) \(rate\((parrot_\w+)", query):
            assert set(grouped[0].split(", ")) <= labels[grouped[1]], query
