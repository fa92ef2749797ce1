"""Runs, sessions and variables are their tenant's: for everybody else they are not there."""

import asyncio
from contextlib import aclosing

import pytest
from programs import program, request
from scripted import ScriptedEngine

from semantic_parrot.core.config import ConfigError
from semantic_parrot.core.errors import NotFound, SessionClosed
from semantic_parrot.core.program import Body, Call
from semantic_parrot.core.report import report
from semantic_parrot.core.runtime import Runtime


async def test_a_run_is_its_tenants(runtime):
    run, other = runtime.submit(program({"a": ("A",)}), "ann"), runtime.submit(program({"a": ("A",)}), "bob")
    await asyncio.gather(run.wait(), other.wait())
    assert (run.tenant, runtime.run(run.id, "ann"), runtime.runs_of("ann")) == ("ann", run, (run,))
    assert runtime.snapshot(run.id, "ann").id == runtime.snapshot("latest", "ann").id == run.id
    for tenant in ("bob", ""):
        for find in (runtime.run, runtime.snapshot):
            with pytest.raises(NotFound, match=f"no run '{run.id}'"):
                find(run.id, tenant)
    with pytest.raises(NotFound, match="there was no run yet"):
        runtime.snapshot("latest")
    assert runtime.runs == (run, other)


async def test_past_runs_are_their_tenants_too():
    runtime = Runtime([ScriptedEngine()], grace=0)
    await runtime.start()
    runs = {}
    for tenant in ("ann", "bob"):
        runs[tenant] = runtime.submit(program({"a": ("A",)}), tenant)
        await runs[tenant].wait()
    gone = asyncio.Event()
    asyncio.get_running_loop().call_later(0, gone.set)  # after what the end of the runs has put there
    await gone.wait()
    for tenant, other in (("ann", "bob"), ("bob", "ann")):
        assert runtime.snapshot(runs[tenant].id, tenant).id == runs[tenant].id
        assert runtime.snapshot("latest", tenant).id == runs[tenant].id
        with pytest.raises(NotFound):
            runtime.snapshot(runs[tenant].id, other)
    await runtime.close()


async def test_a_report_names_no_runs_of_another_tenant(runtime):
    calls = {"a": ("a shared beginning, " * 3, "x"), "b": ("a shared beginning, " * 3, "y")}
    ours = [runtime.submit(program(calls), "ann") for _ in range(2)]
    theirs = runtime.submit(program(calls), "bob")
    await asyncio.gather(*(run.wait() for run in (*ours, theirs)))

    def named(run, tenant):
        prefixes = report(runtime.snapshot(run.id, tenant))["calls"][0]["prefixes"]
        return {other for prefix in prefixes for other in prefix["runs"]}

    assert named(ours[0], "ann") == {ours[1].id}
    assert named(theirs, "bob") == set()


async def test_a_session_is_its_tenants_open_or_closed(runtime):
    session = runtime.sessions.open("ann")
    session.submit(Body(calls=[Call(id="one", output="a", request=request("A"))]), {})
    intruder = program({"b": ("B ", ("a",))}, parrot={"session": session.id})
    eager = {**request("A"), "parrot": {"session": session.id}}
    uses = (
        lambda tenant: runtime.sessions.get(session.id, tenant),
        lambda tenant: runtime.submit(intruder, tenant),
        lambda tenant: runtime.generate(eager, tenant),
        lambda tenant: runtime.sessions.close(session.id, tenant),
    )
    for tenant in ("bob", ""):
        for use in uses:
            with pytest.raises(NotFound, match=f"no session '{session.id}'"):
                use(tenant)
    assert runtime.sessions.get(session.id, "ann") is session
    runtime.sessions.close(session.id, "ann")
    for use in uses:
        with pytest.raises(SessionClosed):
            use("ann")
        with pytest.raises(NotFound) as unknown:
            use("bob")
        assert unknown.value.status == 404


async def test_equal_calls_of_two_tenants_are_two_executions(engine, runtime):
    for tenants in (("ann", "ann"), ("ann", "bob")):
        before = runtime.calls.executed
        runs = [runtime.submit(program({"a": ("A",)}), tenant) for tenant in tenants]
        await asyncio.gather(*(run.wait() for run in runs))
        assert runtime.calls.executed - before == len(set(tenants))


async def test_who_waits_goes_by_its_tenants_share():
    """One engine with room for one: a tenant with a backlog does not keep out one that comes later."""
    gate = asyncio.Event()
    engine = ScriptedEngine(window=1, gate=gate)
    runtime = Runtime([engine], disable=("single-flight",))
    await runtime.start()
    backlog = [runtime.submit(program({"a": ("backlog ", str(i))}), "ann") for i in range(8)]
    await engine.until(1)
    late = runtime.submit(program({"a": ("late",)}), "bob")
    await asyncio.sleep(0)
    gate.set()
    await late.wait()
    assert sum(run.ended for run in backlog) <= 2
    await asyncio.gather(*(run.wait() for run in backlog))
    await runtime.close()


async def test_engines_are_told_a_salt_that_a_name_alone_does_not_give(engine):
    salts = []
    for secret in (b"one", b"one", b"other"):
        runtime = Runtime([engine], secret=secret)
        await runtime.start()
        for tenant in ("ann", "bob"):
            await runtime.submit(program({"a": ("A",)}), tenant).wait()
            async with aclosing(runtime.generate({"model": "default", "prompt": "B"}, tenant)) as items:
                async for _ in items:
                    pass
        salts.append([directions.salt for directions in engine.directed])
        engine.directed.clear()
        await runtime.close()
    ann, bob = salts[0][0], salts[0][2]
    assert salts[0] == salts[1] == [ann, ann, bob, bob]
    assert len({ann, bob, *salts[2]}) == 4
    assert all(len(bytes.fromhex(salt)) == 32 for salt in (ann, bob))


async def test_without_a_secret_there_is_no_salt(runtime, engine):
    await runtime.submit(program({"a": ("A",)})).wait()
    assert engine.directed[0].salt == ""


async def test_what_is_filled_ahead_has_its_tenants_salt():
    gate = asyncio.Event()
    engine = ScriptedEngine(gate=gate)
    runtime = Runtime([engine], secret=b"secret")
    await runtime.start()
    run = runtime.submit(
        program({"a": ("A",), "b": ("a beginning that is long enough to be filled " * 9, ("a",))}), "ann"
    )
    await engine.until_asked(1)
    gate.set()
    await run.wait()
    asked = {salt for salt, (_, request) in zip(engine.salts, engine.prefills, strict=True) if request is not None}
    assert asked == {engine.directed[0].salt} != {""}
    await runtime.close()


async def test_an_engine_that_takes_no_salt_serves_no_tenants(engine):
    engine.abilities = frozenset(("prefill-ahead",))
    runtime = Runtime([engine], secret=b"secret")
    with pytest.raises(ConfigError, match="scripted-0 can't keep the caches of tenants apart"):
        await runtime.start()
    assert not engine.healthy


async def test_the_schedule_tells_nothing_of_another_tenants_calls():
    """What an engine is believed to hold, and how long an answer will be, are learned from one's own calls."""
    told = {}
    for victim in ("ann", "bob"):
        runtime = Runtime([ScriptedEngine()], disable=("single-flight",))
        await runtime.start()
        seen = []
        for tenant in (victim, victim, "bob"):
            run = runtime.submit(program({"a": ("a shared beginning, " * 9, "end")}), tenant)
            await run.wait()
            call = report(runtime.snapshot(run.id, tenant))["calls"][0]
            seen.append((call["predicted"]["cached_tokens"] > 0, call["predicted"]["output_tokens"]))
        told[victim] = seen[-1]
        await runtime.close()
    assert told["bob"][0]
    assert not told["ann"][0]
