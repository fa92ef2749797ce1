"""How many threads an engine has where nobody says."""

from __future__ import annotations

import os

import pytest

from semantic_parrot.core.engine.messages import Options
from semantic_parrot.core.engines.native import NativeEngine
from semantic_parrot.core.engines.threads import default_threads
from semantic_parrot.server.engines import native_engines
from semantic_parrot.server.options import ServeOptions


@pytest.fixture
def cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 99)
    return lambda count: monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(count)), raising=False)


@pytest.mark.parametrize(
    ("count", "engines", "threads"),
    [(1, 1, 1), (2, 1, 2), (4, 1, 4), (5, 1, 4), (16, 1, 15), (2, 2, 1), (4, 2, 2), (16, 3, 5), (2, 3, 1)],
)
def test_by_the_cores_that_may_be_used(cores, count, engines, threads):
    cores(count)
    assert default_threads(engines) == threads


@pytest.mark.parametrize(("said", "threads"), [("3", 3), (" 2,1 ", 2), ("0", 4), ("", 4), ("many", 4)])
def test_the_environment_goes_first(cores, monkeypatch, said, threads):
    cores(4)
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert default_threads() == threads


def test_engines_get_them(cores):
    def options(engine: NativeEngine) -> Options:
        return engine._options

    cores(8)
    assert [options(e).threads for e in native_engines(ServeOptions(engines=3))] == [2, 2, 2]
    assert options(NativeEngine("model", names=("m",))).threads == 7
    assert options(NativeEngine("model", names=("m",), threads=1)).threads == 1
