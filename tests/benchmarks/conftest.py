"""Semantic Kernel warns of itself when it is imported; here warnings are errors."""

import warnings

import pytest


@pytest.fixture
def semantic_kernel() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("semantic_kernel.connectors.ai.open_ai")
