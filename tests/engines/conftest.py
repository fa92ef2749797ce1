"""Servers that engines talk to, and a small model for ours."""

from __future__ import annotations

import pytest
from live import LiveServer
from tiny_models import make_model


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory):
    return make_model("llama", tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def parrot(tiny_path):
    with LiveServer("--model", str(tiny_path), "--deterministic", "--kv-tokens", "16384", "--dev") as server:
        yield server
