"""Hypothesis, where it is installed; elsewhere (the GPU machine has little) its tests are skipped, by name."""

from __future__ import annotations

from typing import Any

import pytest

try:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
except ModuleNotFoundError:

    class _Absent:
        """Whatever a module says at its top about how to draw."""

        def __getattr__(self, name: str) -> Any:
            return self

        def __call__(self, *args: Any, **options: Any) -> Any:
            return self

    def given(*args: Any, **options: Any) -> Any:
        return pytest.mark.skip(reason="hypothesis is not installed")

    def settings(*args: Any, **options: Any) -> Any:
        return lambda test: test

    HealthCheck = st = _Absent()

__all__ = ["HealthCheck", "given", "settings", "st"]
