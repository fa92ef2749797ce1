"""What a tenant may have: rates, concurrency, quotas and queues; refused at once, with the time to come again."""

from __future__ import annotations

import asyncio
import calendar
import time
from contextlib import closing, contextmanager

import httpx
import openai
import pytest
from journals import Recorded, write
from live import LocalServer
from programs import program
from scripted import ScriptedEngine

from semantic_parrot.core.config import ConfigError
from semantic_parrot.core.engines.protocol import Usage
from semantic_parrot.core.errors import InsufficientQuota, QueueFull, RateLimited
from semantic_parrot.core.journal.journal import Journal
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.tenants import LimitsSection, TenantSection, Terms
from semantic_parrot.core.usage import Price
from semantic_parrot.server.tenants.ledger import Ledger
from semantic_parrot.server.tenants.limits import Limits, Used
from semantic_parrot.server.tenants.opening import open_tenants
from semantic_parrot.server.tenants.store import TenantStore

from .test_limits_http import call
from .test_runs_http import PROGRAM

NOON = calendar.timegm((2026, 11, 21, 12, 0, 0))
ASK = {"model": "default", "messages": [{"role": "user", "content": "hello"}]}


class Clock:
    """Stands still until it is told."""

    now = 0.0

    def __call__(self):
        return self.now


def limits(queue=(0, 0, 0.0, 0.0), clock=None, wall=lambda: NOON, used=None, most=10_000, **section):
    terms = Terms(LimitsSection(queued=most), TenantSection(**section), {"rich": TenantSection(quota_tokens=10**9)})
    return Limits(terms, lambda _: queue, used, clock=clock or Clock(), wall=wall)


def refused(made, error, tenant="ann"):
    with pytest.raises(error) as caught:
        made.enter(tenant)
    return caught.value


def test_a_rate_refills_and_says_when():
    clock = Clock()
    made = limits(clock=clock, requests_per_minute=30)
    for _ in range(30):
        made.enter("ann")
    assert refused(made, RateLimited).retry_after == pytest.approx(2)
    clock.now += 1.5
    assert refused(made, RateLimited).retry_after == pytest.approx(0.5)
    made.enter("bob")
    clock.now += 0.5
    made.enter("ann")
    refused(made, RateLimited)
    clock.now += 10_000  # no more than a minute's worth gathers
    for _ in range(30):
        made.enter("ann")
    refused(made, RateLimited)


def test_tokens_are_paid_for_afterwards():
    clock = Clock()
    made = limits(clock=clock, tokens_per_minute=600)
    made.enter("ann")
    made.took("ann", Usage(500, 400, 300), None)
    assert refused(made, RateLimited).retry_after == pytest.approx(20, rel=1e-3)
    clock.now += 20.01
    made.enter("ann")


def test_what_is_refused_uses_up_nothing():
    made = limits(requests_per_minute=2, concurrent=1)
    made.enter("ann")
    for _ in range(5):
        refused(made, RateLimited)
    made.leave("ann")
    made.enter("ann")
    made.leave("ann")
    assert "2 requests a minute" in refused(made, RateLimited).message


def test_so_many_are_open_at_once():
    made = limits(concurrent=2, queue=(4, 9, 12.0, 30.0))
    made.enter("ann")
    made.enter("ann")
    assert refused(made, RateLimited).retry_after == 6
    made.enter("bob")
    made.leave("ann")
    made.enter("ann")


@pytest.mark.parametrize(
    ("period", "left"), [("day", 12 * 3600), ("month", (9 * 24 + 12) * 3600), (None, (9 * 24 + 12) * 3600)]
)
def test_a_quota_is_used_up_until_its_period_ends(period, left):
    now = [float(NOON)]
    made = limits(wall=lambda: now[0], quota_tokens=100, quota_cost=2.0, quota_period=period)
    made.enter("ann")
    made.took("ann", Usage(60, 60, 39), 1.99)
    made.enter("ann")
    made.took("ann", Usage(0, 0, 1), 0.0)
    error = refused(made, InsufficientQuota)
    assert (error.status, error.code, error.retryable, error.retry_after) == (429, "insufficient_quota", False, left)
    made.enter("bob")
    made.enter("rich")
    now[0] += left
    made.enter("ann")
    made.took("ann", Usage(1, 0, 1), 2.0)
    assert "(cost)" in refused(made, InsufficientQuota).message


def test_full_queues_refuse_with_the_predicted_wait():
    assert refused(limits(queue=(3, 50, 7.5, 99.0), queued=3), QueueFull).retry_after == 7.5
    assert refused(limits(queue=(1, 50, 7.5, 99.0), queued=3, most=50), QueueFull).retry_after == 99
    limits(queue=(2, 49, 7.5, 99.0), queued=3, most=50).enter("ann")


async def test_the_wait_is_predicted_from_what_waits():
    gate = asyncio.Event()
    engine = ScriptedEngine(window=1, gate=gate)
    runtime = Runtime([engine], disable=("single-flight",), terms=Terms(tenants={"ann": TenantSection(weight=3)}))
    await runtime.start()
    assert runtime.calls.queue("ann") == (0, 0, 0, 0)
    runs = [runtime.submit(program({"a": (str(i),)}), tenant) for i, tenant in enumerate(["ann"] * 5 + ["bob"] * 4)]
    await engine.until(1)
    (ann, every, soon, later), (bob, _, soon_bob, _) = runtime.calls.queue("ann"), runtime.calls.queue("bob")
    assert (ann, bob, every) == (4, 4, 8)
    assert soon == pytest.approx(later / 2 / 0.75)
    assert soon_bob == pytest.approx(min(later / 2 / 0.25, later))
    gate.set()
    await asyncio.gather(*(run.wait() for run in runs))
    assert runtime.calls.queue("ann") == (0, 0, 0, 0)
    await runtime.close()


async def test_weights_are_kept_whatever_happens_to_the_scheduler():
    """With three times the weight, three times as much."""
    engine = ScriptedEngine(window=1, answers=lambda _: "w " * 9 + "w")
    terms = Terms(tenants={"ann": TenantSection(weight=3)})
    runtime = Runtime([engine], disable=("single-flight",), terms=terms)
    await runtime.start()
    runtime.calls.schedulers[0].decider.restart((), 0.0)
    runs = [(t, runtime.submit(program({"a": (f"{t} {i}",)}), t)) for i in range(40) for t in ("ann", "bob")]
    done = []
    for tenant, run in runs:
        run.on_done(lambda _, tenant=tenant: done.append(tenant))
    await asyncio.gather(*(run.wait() for _, run in runs))
    assert 26 <= done[:40].count("ann") <= 34
    await runtime.close()


# Over HTTP.


@contextmanager
def served(terms, *, gate=None, journal=None):
    engine = ScriptedEngine(window=1, gate=gate)
    runtime = Runtime([engine], grace=5, terms=terms, disable=("single-flight",), journal=journal)
    made = Limits(terms, lambda tenant: runtime.calls.queue(tenant))
    made.watch(runtime)
    with LocalServer(runtime, limits=made) as server, httpx.Client(base_url=server.base, timeout=20) as http:
        server.engine, server.limits = engine, made
        yield server, http


def test_a_refusal_is_openais_and_says_when_to_come_again():
    with served(Terms(defaults=TenantSection(requests_per_minute=2))) as (server, http):
        for path, body in (("/v1/runs", PROGRAM), ("/v1/chat/completions", ASK)):
            assert http.post(path, json=body).status_code == 200
        for path in (
            "/v1/runs",
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/responses",
            "/v1/sessions",
            "/v1/sessions/ses_x/calls",
        ):
            response = http.post(path, json={})
            error = response.json()["error"]
            assert (response.status_code, error["code"], error["type"]) == (
                429,
                "rate_limit_exceeded",
                "rate_limit_error",
            )
            assert 1 <= int(response.headers["retry-after"]) <= 30
            assert 0 < int(response.headers["retry-after-ms"]) <= 30_000
        assert http.get("/v1/runs").status_code == http.post("/tokenize", json={"prompt": "a"}).status_code == 200
        assert len(server.engine.seen) == 4
        with openai.OpenAI(base_url=server.url, api_key="x", max_retries=0) as client:
            with pytest.raises(openai.RateLimitError) as caught:
                client.completions.create(model="default", prompt="a")
            assert caught.value.code == "rate_limit_exceeded"


def test_what_a_client_left_is_paid_for_and_is_not_open_any_more():
    gate = asyncio.Event()
    terms = Terms(defaults=TenantSection(concurrent=1, quota_tokens=3))
    with served(terms, gate=gate) as (server, http):
        with http.stream("POST", "/v1/chat/completions", json={**ASK, "stream": True}) as response:
            lines = response.iter_lines()  # what nobody holds is closed
            next(lines)
            refusal = http.post("/v1/chat/completions", json=ASK)
            assert (refusal.status_code, refusal.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        while (refusal := http.post("/v1/chat/completions", json=ASK)).json()["error"]["code"] != "insufficient_quota":
            pass  # it takes a moment to notice
        assert refusal.status_code == 429
        assert refusal.headers["x-should-retry"] == "false"
        assert int(refusal.headers["retry-after"]) > 0
        assert server.limits.used[""].tokens == 3  # the two words of the prompt, and one
        assert not server.limits._open


def test_a_full_queue_refuses_and_one_with_room_does_not():
    gate = asyncio.Event()
    with served(Terms(LimitsSection(queued=3)), gate=gate) as (server, http):
        calls = [{"id": f"c{i}", "output": f"o{i}", "request": {**ASK, "n": 1}} for i in range(4)]
        with http.stream("POST", "/v1/runs", json={"calls": calls, "stream": True}) as response:
            lines = response.iter_lines()
            while "call.ready" not in next(lines):
                pass
            server.call(lambda: None)
            refusal = http.post("/v1/chat/completions", json=ASK)
            assert (refusal.status_code, refusal.json()["error"]["code"]) == (429, "queue_full")
            assert int(refusal.headers["retry-after"]) >= 1
            server.call(gate.set)
            assert any("run.finished" in line for line in lines)
        assert http.post("/v1/chat/completions", json=ASK).status_code == 200


# From one start to the next.


async def test_what_was_used_is_known_after_a_restart(tmp_path):
    terms, engine = Terms(defaults=TenantSection(quota_tokens=6, quota_period="month")), ScriptedEngine()
    for refusing in (False, True):
        runtime = Runtime([engine], terms=terms)
        with closing(TenantStore(tmp_path)) as store:
            tenants = open_tenants(terms, runtime, store)
            await runtime.start()
            if refusing:
                refused(tenants.limits, InsufficientQuota)
                tenants.limits.enter("bob")
            else:
                tenants.limits.enter("ann")
                await runtime.submit(program({"a": ("one two three",)}), "ann").wait()
            await tenants.close()
        await runtime.close()


CHAIN = {"calls": [call(name, *parts) for name, *parts in (("a", "A"), ("b", "B ", ("a",)), ("c", "C ", ("b",)))]}
#: Tokens of the first call of CHAIN, and of the first two: prompts and answers, as ScriptedEngine counts words.
FIRST, BOTH = 2 + 3, (2 + 3) + (5 + 3)


async def opened(terms, directory, journal, engine=None):
    """A server without its socket: (its runtime, what its tenants have)."""
    store = TenantStore(directory)
    runtime = Runtime([engine or ScriptedEngine(window=1)], terms=terms, journal=journal)
    tenants = open_tenants(terms, runtime, store)
    await runtime.start()
    return runtime, tenants, store


@pytest.mark.parametrize("lifetime", ["foreground", "background"])
async def test_a_run_gets_no_further_than_its_tenants_quota(tmp_path, lifetime):
    """It was let in, and what it has is its own; but a program is not a way around the quota."""
    terms = Terms(tenants={"ann": TenantSection(quota_tokens=FIRST + 1)})
    runtime, tenants, store = await opened(terms, tmp_path, Journal())
    for tenant, status in (("ann", "failed"), ("bob", "finished")):
        tenants.limits.enter(tenant)
        sent = {**CHAIN, "parrot": {"lifetime": lifetime}}
        if lifetime == "background":
            run, _ = await runtime.accept(parse_program(sent), sent, tenant)
        else:
            run = runtime.submit(parse_program(sent), tenant)
        await run.wait()
        assert run.status == status
        if tenant == "ann":
            codes = {name: error["code"] for name, error in run.errors().items()}
            assert codes == {"c": "insufficient_quota"}
            failed = run.result()["calls"]["c"]
            assert (failed["status"], failed["body"]["error"]["type"]) == (429, "insufficient_quota")
            refused(tenants.limits, InsufficientQuota)
    await runtime.close()
    await tenants.close()
    store.close()


async def test_a_run_that_goes_on_after_a_restart_is_counted_from_its_first_token(tmp_path):
    """And its tenant's quota holds: what was told stays, what is left is refused as a run's of this server would be."""
    journal, terms = Recorded(f"sqlite:///{tmp_path / 'whole.db'}"), Terms(defaults=TenantSection(quota_tokens=BOTH))
    sent = {**CHAIN, "parrot": {"lifetime": "background"}, "outputs": ["a", "b", "c"]}
    runtime = Runtime([ScriptedEngine(window=1)], journal=journal)
    await runtime.start()
    run, _ = await runtime.accept(parse_program(sent), sent, "ann")
    await run.wait()
    whole = [event async for _, event in run.events()]
    await runtime.close()
    ended = [i for i, step in enumerate(journal.steps) if any("call.finished" in str(entry.row) for entry in step)]
    for calls in (0, 1, 2):
        url = write(tmp_path / f"{calls}.db", journal.steps[: ended[calls - 1] + 1 if calls else 1])
        (data := tmp_path / f"data{calls}").mkdir()
        with closing(TenantStore(data)) as store:
            store.put_used({"ann": Used(time.strftime("%Y-%m", time.gmtime()), (0, FIRST, BOTH)[calls])})
        runtime, tenants, store = await opened(terms, data, Journal(url))
        again = await runtime.find(run.id, "ann")
        before = again.last_event
        await again.wait()
        events = [event async for _, event in again.events()]
        assert tenants.limits.used["ann"].tokens == BOTH
        assert [event.id for event in events[:before]] == [event.id for event in whole[:before]]
        assert (again.status, list(again.outputs())) == ("failed", ["a", "b"])
        assert {name: error["code"] for name, error in again.errors().items()} == {"c": "insufficient_quota"}
        refused(tenants.limits, InsufficientQuota)
        await runtime.close()
        await tenants.close()
        store.close()


def test_a_durable_run_over_quota_is_refused_and_nothing_of_it_is_kept():
    terms = Terms(defaults=TenantSection(quota_tokens=1))
    with served(terms, journal=Journal()) as (server, http):
        assert http.post("/v1/chat/completions", json=ASK).status_code == 200
        sent = {**CHAIN, "parrot": {"lifetime": "background"}}
        for headers in ({}, {"Idempotency-Key": "k"}):
            refusal = http.post("/v1/runs", json=sent, headers=headers)
            assert (refusal.status_code, refusal.json()["error"]["code"]) == (429, "insufficient_quota")
        assert http.get("/v1/runs").json()["data"] == []
        server.call(server.limits.used.clear)  # the period is over
        accepted = http.post("/v1/runs", json=sent, headers={"Idempotency-Key": "k"})
        assert accepted.status_code == 202
        assert "idempotent-replayed" not in accepted.headers


def test_a_repeat_over_quota_is_given_its_run():
    """It costs nothing; what is new under a key is refused as any."""
    with served(Terms(defaults=TenantSection(quota_tokens=1)), journal=Journal()) as (_, http):

        def post(key, sent=CHAIN):
            return http.post("/v1/runs", json=sent, headers={"Idempotency-Key": key})

        first = post("k")
        assert http.post("/v1/runs", json=CHAIN).json()["error"]["code"] == "insufficient_quota"
        again = post("k")
        assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
        assert again.json() == first.json()
        assert post("k", PROGRAM).json()["error"]["code"] == "idempotency_key_reused"
        refusal = post("other")
        assert (refusal.status_code, refusal.json()["error"]["code"]) == (429, "insufficient_quota")
        assert len(http.get("/v1/runs").json()["data"]) == 1


async def test_a_ledger_that_cannot_be_written_stops_nobody(tmp_path, caplog):
    store = TenantStore(tmp_path)
    made = limits(quota_tokens=1)
    ledger = Ledger(store)
    ledger.keep(made)
    made.used["ann"] = Used(time.strftime("%Y-%m"), 5, 0.0)
    with store._transaction() as connection:
        connection.exec_driver_sql("DROP TABLE used")
    ledger.changed()
    await ledger.close()
    store.close()
    assert "what tenants have used can't be written" in caplog.text


async def test_a_quota_of_cost_needs_prices():
    terms = Terms(tenants={"ann": TenantSection(quota_cost=1.0)})
    for prices in (None, {"default": Price(1, 1, 1)}):
        runtime = Runtime([ScriptedEngine()], terms=terms, prices=prices)
        made = open_tenants(terms, runtime, None).limits
        if prices is None:
            with pytest.raises(ConfigError, match="ann: a quota_cost needs a price for each model, and 'scripted'"):
                await runtime.start()
        else:
            await runtime.start()
            await runtime.submit(program({"a": ("one two",)}), "ann").wait()
            assert made.used["ann"].cost == pytest.approx(6e-6)
        await runtime.close()
