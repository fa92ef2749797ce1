"""`parrot serve` before other servers: the same program, the same answers, whatever runs it."""

from dataclasses import replace

import httpx
import pytest
from live import LiveServer

from semantic_parrot.core.config import ConfigError
from semantic_parrot.core.public import PublicPrefix
from semantic_parrot.server.engines import all_engines
from semantic_parrot.server.options import ServeOptions, remotes_of

CALL = {"model": "default", "temperature": 0, "max_tokens": 8}
PROGRAM = {
    "calls": [
        {"id": i, "output": o, "request": {**CALL, "messages": [{"role": "user", "content": {"$t": parts}}]}}
        for i, o, parts in (("a", "x", ["Tell me of the sea"]), ("b", "y", ["Again: ", {"var": "x"}]))
    ],
    "outputs": ["x", "y"],
}


def answers(url):
    with httpx.Client(timeout=120) as client:
        done = client.post(f"{url}/runs", json=PROGRAM).json()
        return done["status"], done["outputs"], {call["schedule"]["engine"] for call in done["calls"].values()}


def test_a_server_before_a_server(parrot, tmp_path):
    wanted = answers(parrot.url)
    config = tmp_path / "engines.toml"
    config.write_text(f'[engines.far]\nkind = "parrot"\nurl = "{parrot.url}"\nwindow = 8\n')
    with LiveServer("--config", str(config)) as server:
        status, outputs, engines = answers(server.url)
        assert (status, outputs) == wanted[:2]
        assert engines == {"far"}
        assert httpx.get(f"{server.base}/readyz").json()["down"] == {}
        tokens = [
            httpx.post(f"{base}/tokenize", json={"prompt": "a ship"}).json()["tokens"]
            for base in (parrot.base, server.base)
        ]
        assert tokens[0] == tokens[1]
        assert server.metrics()["parrot_prompt_tokens_computed_total"] > 0
        refused = httpx.post(f"{server.url}/completions", json={"model": "far", "prompt": "x"})
        assert refused.status_code == 404


def test_a_key_that_is_not_there(monkeypatch):
    (remote,) = remotes_of(["vllm=http://127.0.0.1:9/v1"]).values()
    options = ServeOptions(elsewhere={"big": remote.model_copy(update={"key_env": "NO_SUCH_KEY"})})
    with pytest.raises(ConfigError, match=r"engines\.big: the environment variable NO_SUCH_KEY is not set"):
        all_engines(options)
    monkeypatch.setenv("NO_SUCH_KEY", "secret")
    (engine,) = all_engines(options)
    assert engine._http.headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({"deterministic": True}, "deterministic"),
        ({"kv_tokens": 64}, "kv_tokens"),
        ({"kv_offload_tokens": 0}, "kv_offload_tokens"),
        ({"prefix_cache": False}, "prefix_cache"),
        ({"kernels": "c"}, "kernels"),
        ({"public": (PublicPrefix(prompt="x"),)}, "public_prefixes"),
    ],
)
def test_options_of_engines_that_are_not_there(said, name):
    options = ServeOptions(elsewhere=remotes_of(["vllm=http://127.0.0.1:9/v1"]))
    assert len(all_engines(options)) == 1
    with pytest.raises(ConfigError, match=f"^{name} is for engines of our own, and none is started"):
        all_engines(replace(options, **said))
    assert len(all_engines(replace(options, engines=1, **said))) == 2
