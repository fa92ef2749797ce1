"""What of Ray engines needs no Ray: how many there are to be, their clocks, and what their process says."""

import asyncio
import importlib.util
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semantic_parrot import core
from semantic_parrot.core.config import ConfigError, RaySection
from semantic_parrot.core.engine.clocks import shifted
from semantic_parrot.core.engine.messages import Generate, Options, Prefill, Tokenize
from semantic_parrot.core.engines.hope import Lost
from semantic_parrot.core.engines.protocol import Directions, Keep, ModelInfo, ModelLoadError
from semantic_parrot.core.engines.ray import actor, messages
from semantic_parrot.core.engines.ray import engine as ray_engine
from semantic_parrot.core.engines.ray import pool as ray_pool
from semantic_parrot.core.engines.ray.cluster import NotPlaced
from semantic_parrot.core.engines.ray.demand import Demand
from semantic_parrot.core.engines.ray.messages import Needs
from semantic_parrot.core.engines.ray.pool import RayPool
from semantic_parrot.core.engines.ray.replica import Replica
from semantic_parrot.core.request import ModelRequest
from semantic_parrot.core.sampling import Sampling
from semantic_parrot.server import engines
from semantic_parrot.server.options import ServeOptions


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 100)), min_size=1, max_size=40))
def test_as_many_as_the_highest_load_of_late_asked_for(looks):
    demand, now, seen = Demand(1, 6, 8, 60), 0.0, []
    for later, calls in looks:
        now += later
        seen.append((now, calls))
        late = [calls for when, calls in seen if now - when <= 60]
        assert demand.replicas(now, calls) == min(max(-(-max(late) // 8), 1), 6)


def test_times_are_told_in_the_clock_of_whoever_hears_them():
    request = ModelRequest("m", None, "a", Sampling())
    keeps, later = (Keep(0.5, 3.0), Keep(1.0, None)), (Keep(0.5, 13.0), Keep(1.0, None))
    asked = Generate(1, request, 2.0, Directions(keep=keeps, slack=4.0))
    assert shifted(asked, 10.0) == Generate(1, request, 12.0, Directions(keep=later, slack=4.0))
    assert shifted(Prefill(1, request, keeps), 10.0) == Prefill(1, request, later)
    assert shifted(Tokenize(1, "a"), 10.0) == Tokenize(1, "a")


def test_what_is_said_is_read():
    place = messages.Place(3, Needs(0.5, 1, {"a100": 1}, {"A": "b"}))
    assert messages.decode_order(messages.encode_order(place)) == place
    placed = messages.Placed(3, "10.0.0.1", 7, "secret", 9)
    assert messages.decode_word(messages.encode_word(placed)) == placed
    assert str(place.needs) == "CPU 0.5, GPU 1, a100 1"


def test_without_ray_it_is_said_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "ray" else find(name))
    with pytest.raises(ConfigError, match=r"engines\.far: Ray is not installed: pip install 'semantic-parrot\[ray\]'"):
        engines.all_engines(ServeOptions(elsewhere={"far": RaySection(kind="ray")}))


async def test_only_who_knows_the_secret_is_let_in_and_told_the_time(monkeypatch):
    monkeypatch.setattr(actor, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 1000))
    replica = actor.EngineActor()
    replica._secret, replica._listener = "s" * 64, socket.create_server(("127.0.0.1", 0))
    port = replica._listener.getsockname()[1]
    async with asyncio.timeout(240):
        with ThreadPoolExecutor(1) as threads:
            let_in = asyncio.get_running_loop().run_in_executor(threads, replica._accept)
            for said in (b"t" * 65, b"s\n"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(said)
                writer.write_eof()
                assert await reader.read() == b""
                writer.close()
            placed = messages.Placed(1, "127.0.0.1", port, "s" * 64, 9)
            gone = asyncio.get_running_loop().create_future()
            reader, writer, ahead = await Replica(placed, gone, lambda: None).connect()
            assert round(ahead, -2) == 1000
            with await let_in as sock:
                sock.sendall(b"engine\n")
                assert await reader.readline() == b"engine\n"
            writer.close()
            replica._listener.close()


async def test_who_connects_is_let_in_before_torch_is_loaded(monkeypatch):
    """That can take longer, on a busy node, than the server waits for an answer."""
    monkeypatch.setitem(sys.modules, "semantic_parrot.core.engine.process", None)
    monkeypatch.delattr(core.engine, "process", raising=False)
    replica = actor.EngineActor()
    replica._secret, replica._listener = "s" * 64, socket.create_server(("127.0.0.1", 0))
    placed = messages.Placed(1, "127.0.0.1", replica._listener.getsockname()[1], "s" * 64, 9)
    async with asyncio.timeout(240):
        with ThreadPoolExecutor(1) as threads:
            serving = asyncio.get_running_loop().run_in_executor(threads, replica.serve)
            _, writer, _ = await Replica(placed, asyncio.get_running_loop().create_future(), lambda: None).connect()
            with pytest.raises(ImportError, match="process"):
                await serving
            writer.close()
            await writer.wait_closed()


class Fake:
    """A replica's process."""

    alive = True

    def __init__(self):
        self.ended = asyncio.get_running_loop().create_future()
        self.closed = asyncio.Event()

    async def close(self):
        self.alive = False
        self.closed.set()


async def test_who_goes_first_and_who_comes_back(monkeypatch):
    """Replicas that run nothing end before those that do; the latter take nothing new, and end when they are done."""
    pool = RayPool("nowhere", (1, 3), Needs(), Options("m", max_batch=4), names=("m",), scale_down_seconds=10.0)
    children = {}

    async def spawn(engine):
        children[engine] = Fake()
        return children[engine], type("Ready", (), {"context": 8, "calls": None})

    monkeypatch.setattr(pool, "spawn", spawn)
    one, two, three = pool.engines
    changes = asyncio.Event()
    for engine in pool.engines:
        engine.watch(changes.set)

    async def until(so):
        while not so():
            changes.clear()
            await changes.wait()

    async with asyncio.timeout(240):
        await asyncio.gather(*(engine.start() for engine in pool.engines))
        assert (one.healthy, two.healthy, two.coming, two.model) == (True, False, False, ModelInfo(("m",), 8))
        assert "does not ask" in two.trouble
        waiting = [None]
        for engine in pool.engines:
            engine.scale_by(waiting.__len__)
        one.running = 4  # with the one that waits five, of which a replica is to have two
        pool.scale(0.0)
        assert two.coming
        await until(lambda: two.healthy and three.healthy)
        one.running, two.running = 0, 1
        waiting.clear()
        pool.scale(9.0)
        assert one.healthy  # the load may come back
        pool.scale(11.0)
        assert [engine.healthy for engine in pool.engines] == [False, True, False]
        await asyncio.gather(children[one].closed.wait(), children[three].closed.wait())
        one.running = 0
        two.want(False)
        assert (two.alive, two.healthy) == (True, False)  # it has something to finish
        two.want(True)
        assert two.healthy
        children[two].alive = False  # lost
        children[two].ended.set_result(None)
        children[two].reap = lambda: asyncio.sleep(0, "signal 9")
        lost = children[two]
        await until(lambda: children[two] is not lost and two.healthy)
        for engine in pool.engines:
            await engine.close()
        assert not two.healthy


async def test_one_that_is_lost_as_the_server_starts_is_placed_again(monkeypatch):
    said = asyncio.Queue()
    monkeypatch.setattr(ray_engine.log, "error", lambda text, *about: said.put_nowait(text % about))
    pool = RayPool("nowhere", (1, 1), Needs(), Options("m"), names=("m",))
    ends = [Lost("its node burns"), (Fake(), SimpleNamespace(context=8, calls=None))]

    async def spawn(engine):
        if isinstance(end := ends.pop(0), Lost):
            raise end
        return end

    monkeypatch.setattr(pool, "spawn", spawn)
    async with asyncio.timeout(240):
        await pool.engines[0].start()
        assert said.get_nowait() == "engine ray-0 can't be started: its node burns"
        assert pool.engines[0].healthy
        await pool.engines[0].close()


async def test_one_that_is_lost_while_it_loads_says_why():
    ours, theirs = socket.socketpair()
    gone = asyncio.get_running_loop().create_future()

    async def connect():
        gone.set_result("No module named 'torch'")
        return *await asyncio.open_connection(sock=ours), 0.0

    with theirs, pytest.raises(Lost, match="on far was lost while it loaded m: No module named 'torch'"):
        await ray_pool._load(SimpleNamespace(host="far", gone=gone, connect=connect), Options("m"))


@pytest.mark.parametrize("kind", [ModelLoadError, NotPlaced])
async def test_why_it_does_not_start_is_said_once(kind, monkeypatch):
    """By who starts it. What fails later is in the log, which is all that says it then."""
    failing, said = asyncio.Event(), asyncio.Queue()
    monkeypatch.setattr(ray_engine.log, "error", lambda text, *about: said.put_nowait(text % about))

    def pool():
        made = RayPool("nowhere", (2, 2), Needs(), Options("m"), names=("m",))

        async def spawn(engine):
            if failing.is_set() or engine is made.engines[1]:
                raise kind("no room")
            return Fake(), type("Ready", (), {"context": 8, "calls": None})

        monkeypatch.setattr(made, "spawn", spawn)
        return made

    async with asyncio.timeout(240):
        failing.set()
        engines = pool().engines
        for one in engines:
            with pytest.raises(ModelLoadError, match="no room"):
                await one.start()
        await asyncio.gather(*(one.close() for one in engines))
        assert said.empty()
        failing.clear()
        engines = pool().engines
        await engines[0].start()
        assert await said.get() == "engine ray-1 can't be started: no room"
        await asyncio.gather(*(one.close() for one in engines))
