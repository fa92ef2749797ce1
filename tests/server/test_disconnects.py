"""Clients that leave at any moment, in any manner: nothing of them stays behind. PARROT_DISCONNECTS: how many."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import time
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import httpx
import psutil
from live import LocalServer
from scripted import ScriptedEngine

from semantic_parrot.core.runtime import Runtime

MANY = int(os.environ.get("PARROT_DISCONNECTS", "240"))

ASK = [{"role": "user", "content": "hello"}]
CALL = {"id": "a", "output": "x", "request": {"model": "default", "messages": ASK}}
NEXT = {"model": "default", "messages": [{"role": "user", "content": {"$t": ["Of ", {"var": "x"}]}}]}
PROGRAM = {"calls": [CALL, {"id": "b", "output": "y", "request": NEXT}], "parrot": {"lifetime": "prefetch"}}
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"model": "default", "messages": ASK, "max_tokens": 30}),
    ("/v1/chat/completions", {"model": "default", "messages": ASK, "max_tokens": 30, "stream": True}),
    (
        "/v1/completions",
        {"model": "default", "prompt": "one", "n": 3, "temperature": 0, "max_tokens": 30, "stream": True},
    ),
    ("/v1/responses", {"model": "default", "input": "hello", "max_output_tokens": 30, "stream": True}),
    ("/v1/runs", PROGRAM | {"stream": True, "deltas": "all"}),
    ("/v1/runs", PROGRAM),
]


async def leave(port: int, random: Random) -> None:
    """Send a request, or its beginning; read of the answer as much as comes, or a little; go, politely or not."""
    path, body = random.choice(REQUESTS)
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    whole = head.encode() + raw
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    cut = random.random() < 0.3
    writer.write(whole[: random.randrange(len(whole))] if cut else whole)
    if not cut and random.random() < 0.7:
        await reader.read(random.choice((1, 100, 2_000)))
    else:
        for _ in range(random.randrange(3)):
            await asyncio.sleep(0)
    if random.random() < 0.5:
        writer.transport.abort()
    writer.close()


async def leavers(port: int, many: int) -> None:
    random, room = Random(5), asyncio.Semaphore(20)

    async def one(seed: int) -> None:
        async with room:
            await leave(port, Random(seed))

    await asyncio.gather(*(one(random.randrange(2**32)) for _ in range(many)))


def run_there(server: LocalServer, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """The result of a coroutine on the server's loop."""
    return asyncio.run_coroutine_threadsafe(work(), server.loop).result(60)


async def tasks() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


async def others(known: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """The tasks beside `known` that do not end."""
    while left := await tasks() - known:
        done, _ = await asyncio.wait(left, timeout=20)
        if not done:
            break
    return left


def descriptors(server: LocalServer) -> int:
    """How many there are once no connection is left, nor what other tests have left to be collected."""
    for _ in range(2_000):
        if not server._server.server_state.connections:
            break
        time.sleep(0.01)
    run_there(server, tasks)  # what closed the last one has returned
    gc.collect()
    return psutil.Process().num_fds()


def test_nothing_of_them_stays():
    """No task, no request in the engine or queued before it, no run, no session, no file descriptor."""
    engine = ScriptedEngine(answers=lambda _: " ".join(["word"] * 20), window=4)
    with LocalServer(Runtime([engine], grace=0.0)) as server:
        port = int(server.base.rpartition(":")[2])
        known = run_there(server, tasks)
        asyncio.run(leavers(port, 20))
        assert run_there(server, lambda: others(known)) == set()
        before = descriptors(server)
        asyncio.run(leavers(port, MANY))
        assert run_there(server, lambda: others(known)) == set()
        assert descriptors(server) == before
        assert server._server.server_state.connections == set()
        assert engine.running == 0
        scheduler = server.runtime.calls.scheduler("default")
        assert len(scheduler.decider.waiting) == 0
        assert all(not state.running for state in scheduler.decider.fleet.engines)
        assert not scheduler._turns
        assert server.runtime.runs == ()
        assert engine.cancelled > 0  # some left in the middle of an answer
        engine.seen.clear()


def test_nobody_waits_on_for_a_variable_whose_reader_has_left_it():
    """Also not if the question had a body, of which nothing is read."""
    with LocalServer(Runtime([ScriptedEngine()])) as server, httpx.Client(base_url=server.base) as http:
        session = http.post("/v1/sessions").json()["id"]
        request = CALL["request"] | {"messages": [{"role": "user", "content": {"$t": [{"var": "late"}]}}]}
        body = {"calls": [CALL | {"request": request}], "inputs": {"late": None}}
        found = http.post(f"/v1/sessions/{session}/calls", json=body).json()["variables"]["x"]
        known = run_there(server, tasks)
        host, port = server.base.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(f"GET /v1/variables/{found} HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n".encode())
            sock.sendall(b"x" * 200_000)
            while not run_there(server, tasks) - known:
                pass
        assert run_there(server, lambda: others(known)) == set()


def test_no_block_of_a_real_engine_stays(tool_server):
    asyncio.run(leavers(int(tool_server.base.rpartition(":")[2]), 16))
    for _ in range(2_000):
        metrics = tool_server.metrics()
        held = [metrics[f"parrot_{name}"] for name in ("kv_blocks_used", "running", "waiting", "calls_waiting")]
        if not any(held):
            break
    assert held == [0, 0, 0, 0]
