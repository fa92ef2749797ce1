"""A runtime on one scripted engine."""

from __future__ import annotations

import pytest
from scripted import ScriptedEngine

from semantic_parrot.core.runtime import Runtime


@pytest.fixture
async def engine():
    return ScriptedEngine()


@pytest.fixture
async def runtime(engine):
    runtime = Runtime([engine], grace=0.05)
    await runtime.start()
    yield runtime
    await runtime.close()
    assert engine.running == 0
