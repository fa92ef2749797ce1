"""Servers for the adapters' tests: the real application on a real socket, around a scripted engine."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "helpers"))

if find_spec("semantic_kernel") is None:
    collect_ignore_glob = ["test_sk_*.py"]
else:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of itself when it is imported
        import semantic_kernel.agents
        import semantic_kernel.connectors.ai.open_ai  # noqa: F401
if any(find_spec(name) is None for name in ("langchain_openai", "fastapi")):
    collect_ignore_glob = ["test_*.py"]
else:
    from hostile import HostileServer
    from lc_shapes import formatted_answer
    from live import LiveServer, LocalServer
    from scripted import ScriptedEngine

    from semantic_parrot.adapters.courier import COURIERS
    from semantic_parrot.core.runtime import Runtime


@pytest.fixture(scope="session", autouse=True)
def _courier() -> Iterator[None]:
    yield
    COURIERS.close()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the planner fails the test; what a developer has set for Parrot does not matter."""
    for name in ("PARROT_DISABLE", "PARROT_BASE_URL", "PARROT_API_KEY", "PARROT_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PARROT_DEBUG", "1")


@pytest.fixture(scope="session")
def server() -> Iterator[LocalServer]:
    with LocalServer(Runtime([ScriptedEngine(answers=formatted_answer)], disable={"single-flight"})) as running:
        yield running


@pytest.fixture(scope="session")
def tool_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """`parrot serve` around a small random model that can call tools."""
    pytest.importorskip("torch")
    from tiny_models import make_model

    directory = tmp_path_factory.mktemp("models") / "tiny"
    model = make_model("llama", directory, tools="hermes", max_position_embeddings=4096)
    with LiveServer("--model", str(model), "--deterministic", "--no-single-flight") as running:
        yield running


@pytest.fixture
def hostile() -> Iterator[HostileServer]:
    with HostileServer() as running:
        yield running
