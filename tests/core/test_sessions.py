"""Sessions on a scripted engine: submit, set and get; how they end, and how they are remembered."""

import asyncio

import pytest
from programs import expected, program, request

from semantic_parrot.core.errors import (
    Cancelled,
    EngineFailed,
    InvalidRequest,
    NotFound,
    ParrotError,
    SessionClosed,
)
from semantic_parrot.core.program import Body, Call
from semantic_parrot.core.runtime import Runtime


async def test_step_wise_submit_set_get(runtime):
    session = runtime.sessions.open()
    ids = session.submit(Body(calls=[Call(id="one", output="a", request=request("A ", ("in",)))]), {"in": None})
    assert ids == [f"{session.id}.a"]
    session.submit(Body(calls=[Call(id="one", output="b", request=request("B ", ("a",)))]), {})
    waiting = asyncio.create_task(session.get("b"))
    await asyncio.sleep(0)
    session.set("in", "x")
    values = expected({"a": ("A ", ("in",)), "b": ("B ", ("a",))}, {"in": "x"})
    assert await waiting == values["b"]
    assert await session.get("a") == values["a"]
    for name, error in (("in", InvalidRequest), ("a", InvalidRequest), ("nobody", NotFound)):
        with pytest.raises(error):
            session.set(name, "again")
    with pytest.raises(NotFound):
        await session.get("nobody")


async def test_a_session_that_is_gone_says_so(runtime):
    session = runtime.sessions.open()
    runtime.sessions.close(session.id)
    for use in (
        lambda: runtime.sessions.get(session.id),
        lambda: runtime.sessions.close(session.id),
        lambda: runtime.submit(program({"b": ("B",)}, parrot={"session": session.id})),
    ):
        with pytest.raises(SessionClosed, match="was closed; open another one") as caught:
            use()
        assert (caught.value.status, caught.value.where) == (410, session.id)
    with pytest.raises(NotFound) as unknown:
        runtime.sessions.get("ses_nobody")
    assert unknown.value.status == 404


async def test_only_so_many_closed_sessions_are_remembered(runtime, monkeypatch):
    monkeypatch.setattr("semantic_parrot.core.sessions.REMEMBERED", 2)
    gone = [runtime.sessions.open().id for _ in range(3)]
    for session_id in gone:
        runtime.sessions.close(session_id)
    for session_id, status in zip(gone, (404, 410, 410), strict=True):
        with pytest.raises(NotFound) as caught:
            runtime.sessions.get(session_id)
        assert caught.value.status == status


async def test_closing_a_session_ends_its_runs_and_its_waiters(runtime):
    session = runtime.sessions.open()
    session.submit(Body(calls=[Call(id="one", output="a", request=request("A ", ("in",)))]), {"in": None})
    waiting = [asyncio.create_task(session.get(name)) for name in ("a", "in")]
    await asyncio.sleep(0)
    runtime.sessions.close(session.id)
    for task in waiting:
        with pytest.raises(Cancelled):
            await task
    with pytest.raises(NotFound):
        runtime.sessions.get(session.id)


async def test_a_session_that_nobody_uses_expires(engine):
    runtime = Runtime([engine], session_idle=0.02)
    await runtime.start()
    idle, used = runtime.sessions.open(), runtime.sessions.open()
    waiting = asyncio.create_task(used.get("nobody-sets-it"))
    with pytest.raises(NotFound):
        await waiting
    used.submit(Body(calls=[Call(id="one", output="a", request=request(("in",)))]), {"in": None})
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(0.2, later.set)
    await later.wait()
    with pytest.raises(SessionClosed, match=r"was not used for 0\.02 s"):
        runtime.sessions.get(idle.id)
    assert runtime.sessions.get(used.id) is used
    await runtime.close()


async def test_a_program_may_read_its_sessions_variables(runtime):
    session = runtime.sessions.open()
    session.submit(Body(calls=[Call(id="one", output="a", request=request("A"))]), {})
    run = runtime.submit(program({"b": ("B ", ("a",))}, parrot={"session": session.id}))
    await run.wait()
    assert run.outputs() == {"b": expected({"a": ("A",), "b": ("B ", ("a",))}, {})["b"]}


async def test_a_waiter_that_leaves_is_forgotten(runtime):
    session = runtime.sessions.open()
    session.submit(Body(calls=[Call(id="one", output="a", request=request(("in",)))]), {"in": None})
    waiting = asyncio.create_task(session.get("in"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    for run in tuple(session.runs):
        run.cancel()
    assert not session.busy


async def test_an_error_reaches_whoever_gets_the_variable(runtime, engine):
    engine._fail = lambda r: EngineFailed("lost")
    session = runtime.sessions.open()
    calls = [Call(id="one", output="a", request=request("A")), Call(id="two", output="b", request=request(("a",)))]
    session.submit(Body(calls=calls), {})
    with pytest.raises(ParrotError, match="lost"):
        await session.get("b")
    with pytest.raises(EngineFailed):
        await session.get("a")
