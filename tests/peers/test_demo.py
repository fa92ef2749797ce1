"""The same LangChain demo on our own engine, on two, in a Ray cluster of two nodes, and on ours beside another's."""

from __future__ import annotations

from contextlib import ExitStack

import httpx
import peer_demo as demo
import pytest
from live import LiveServer

pytestmark = pytest.mark.timeout(1200)


def native(stack, checkpoint, started):
    return ""


def two_native(stack, checkpoint, started):
    return "engines = 2"


def ray(stack, checkpoint, started):
    from ray_cluster import ray_cluster

    cluster = stack.enter_context(ray_cluster(2))
    return f"""
        [engines.ray]
        kind = "ray"
        address = "{cluster.address}"
        replicas = 2
        resources = {{ seat = 1 }}
    """


def mix(stack, checkpoint, started):
    kind, url, model = stack.enter_context(started("llama.cpp"))
    return f"""
        engines = 1
        [engines.theirs]
        kind = "{kind}"
        url = "{url}"
        model = "{model}"
        names = ["{checkpoint.name}", "default", "{checkpoint}"]
    """


SITES = {"native": (native, 1), "two native": (two_native, 2), "ray": (ray, 2), "mix": (mix, 2)}


@pytest.mark.parametrize("name", SITES)
def test_the_demo_runs_unchanged(name, checkpoint, started, words, tmp_path):
    build, engines = SITES[name]
    with ExitStack() as stack:
        config = tmp_path / "parrot.toml"
        own = f'[engine]\nmodel = "{checkpoint}"\ndeterministic = true\nkv_tokens = 16384\n'
        config.write_text(own + build(stack, checkpoint, started))
        server = stack.enter_context(LiveServer("--config", str(config), timeout=600))
        while not all(engine["up"] for engine in httpx.get(f"{server.url}/engines").json()["data"]):
            # One replica serves before the other is there: other texts, or it would rightly be given the same again.
            demo.lowered(server, words, "until all are there")
        said, trips = demo.lowered(server, words)
        assert trips == 2
        assert all(said)
        assert said == demo.eager(server.url, "default", words)
        made = {k: v for k, v in server.metrics().items() if k.startswith("parrot_generated_tokens_total{")}
        assert len(made) == engines
        assert all(made.values()), made  # each had a part
