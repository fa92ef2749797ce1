"""Every script in examples/sk runs, in the round trips that its table promises."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from live import LocalServer
from sk_engine import SkEngine

from semantic_parrot.adapters.planning import disabled
from semantic_parrot.core.runtime import Runtime

FOLDER = Path(__file__).parents[2] / "examples" / "sk"
ROW = re.compile(r"(?m)^\| `(\w+)\.py`.*\| (\d) → (\d) \|$")
PROMISED = {name: (int(stock), int(parrot)) for name, stock, parrot in ROW.findall((FOLDER / "README.md").read_text())}


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    engine = SkEngine()
    engine.arguments = '{"port": "Bremen"}'
    with LocalServer(Runtime([engine], disable={"single-flight"})) as running:
        yield running


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def run(name: str, url: str) -> object:
    module = example(name)
    if name != "service":
        return await module.main(base_url=url)
    transport = httpx.ASGITransport(module.create_app(url))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get("/title", params={"text": "The tug left."})
    assert response.status_code == 200
    return response.text


def test_the_table_names_every_script():
    assert set(PROMISED) == {path.stem for path in FOLDER.glob("*.py")}


@pytest.mark.parametrize("name", PROMISED)
async def test_an_example_gives_what_it_gives_eagerly_in_fewer_round_trips(name, server):
    trips = []
    results = []
    with disabled():
        before = server.requests()
        if name != "map_reduce":  # which is deferred by its own wish
            results.append(await run(name, server.url))
            trips.append(server.requests() - before)
    before = server.requests()
    results.append(await run(name, server.url))
    trips.append(server.requests() - before)
    assert all(results)
    assert all(result == results[0] for result in results)
    assert tuple(trips) == (PROMISED[name] if len(trips) == 2 else PROMISED[name][1:])


async def test_the_agents_tool_is_called(server):
    module = example("agent")
    harbour = module.Harbour()
    assert await module.main(base_url=server.url, harbour=harbour)
    assert len(harbour.asked) == 1
