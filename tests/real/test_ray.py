"""Engines in a real Ray cluster of two nodes on this machine: nodes are lost and join under open runs."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest
from live import LiveServer
from ray_cluster import ray_cluster
from soak_fleet import run
from tiny_models import make_model

from semantic_parrot.core.engine.messages import Options
from semantic_parrot.core.engines.conformance import EngineConformance
from semantic_parrot.core.engines.protocol import ModelLoadError
from semantic_parrot.core.engines.ray.messages import Needs
from semantic_parrot.core.engines.ray.pool import RayPool

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model("llama", tmp_path_factory.mktemp("models") / "llama")


class TestRay(EngineConformance):
    @classmethod
    def make(cls, request):
        address, model = request.getfixturevalue("cluster").address, request.getfixturevalue("model")
        options = Options(str(model), deterministic=True, threads=1, kv_tokens=16384)
        (engine,) = RayPool(address, (1, 1), Needs(), options, names=("tiny",)).engines
        return engine

    async def test_its_port_is_for_those_who_know_the_secret(self, engine):
        """One that connects first, and says something else, has nothing; nor does one that comes later."""
        replica = engine._child._process
        with pytest.raises(ConnectionRefusedError), socket.create_connection((replica.host, replica._placed.port)):
            pass


async def test_what_can_not_be_started(cluster, model, tmp_path):
    for address, needs, path, why in (
        ("127.0.0.1:9", Needs(), model, "no Ray cluster at 127"),
        (cluster.address, Needs(), tmp_path, str(tmp_path)),
        (cluster.address, Needs(resources={"CPU": 1}), model, "can't be placed: .*CPU"),
    ):
        pool = RayPool(address, (2, 2), needs, Options(str(path)), names=("tiny",))
        try:
            with pytest.raises(ModelLoadError, match=why):
                await asyncio.gather(*(engine.start() for engine in pool.engines))
        finally:
            for engine in pool.engines:
                await engine.close()


async def test_nodes_are_lost_and_join_under_open_runs(cluster, model, tmp_path):
    """More calls than one replica is to have start another one, on the other node. That node is killed: every run
    ends with the texts that it had before. Another node joins, and is used; in the end one replica is left."""
    config = tmp_path / "parrot.toml"
    config.write_text(f"""
        [engine]
        model = "{model}"
        deterministic = true
        kv_tokens = 16384
        [scheduling]
        disable = ["single-flight"]
        [engines.ray]
        kind = "ray"
        address = "{cluster.address}"
        replicas = "1..2"
        resources = {{ seat = 1 }}
        window = 4
        scale_down_seconds = 1
    """)
    with LiveServer("--config", str(config), timeout=600) as server:
        async with httpx.AsyncClient(timeout=600) as http:
            wanted = [await run(http, server.url, number) for number in range(4)]
            assert all(told == whole and not errors for told, whole, errors in wanted)
            enough = asyncio.Event()
            changed = asyncio.Condition()
            runs = 0

            async def client(number):
                nonlocal runs
                while not enough.is_set():
                    assert await run(http, server.url, number % 4) == wanted[number % 4]
                    async with changed:
                        runs += 1
                        changed.notify_all()

            async def until(up):
                """The engines, once as many are up as that."""
                while True:
                    found = (await http.get(f"{server.url}/engines")).json()["data"]
                    if sum(engine["up"] for engine in found) == up:
                        return found
                    async with changed:  # a look after each run that ends
                        await changed.wait()

            clients = [asyncio.create_task(client(number)) for number in range(12)]
            await until(2)
            cluster.kill(cluster.others[-1])
            (lost,) = (engine for engine in await until(1) if not engine["up"])
            assert "lost" in lost["trouble"] or "waits for room" in lost["trouble"]
            cluster.add()
            await until(2)
            joined, before = server.metrics(), runs
            async with changed:
                await changed.wait_for(lambda: runs > before + 24)
            enough.set()
            await asyncio.gather(*clients)
            name = f'parrot_generated_tokens_total{{engine="{lost["id"]}"}}'
            assert server.metrics()[name] > joined[name]  # the newcomer has work
            while sum(e["up"] for e in (await http.get(f"{server.url}/engines")).json()["data"]) > 1:
                await run(http, server.url, 0)
        assert "a call is run again" in server.log()
        assert "Traceback" not in server.log()
