"""Where kernels run: compiled on a GPU, interpreted elsewhere, where bf16 products are wrong (see docs/kernels.md)."""

from __future__ import annotations

import pytest
import torch

GPU = torch.cuda.is_available()
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if GPU else [])]


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda" if GPU else "cpu")


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request) -> torch.dtype:
    return request.param


@pytest.fixture
def close(dtype):
    """Equal but for the rounding of results to the dtype, and of sums in another order."""

    def check(got: torch.Tensor, expected: torch.Tensor, scale: float = 1.0) -> None:
        tolerance = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype] * scale
        torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)

    return check


@pytest.fixture
def poisoned(monkeypatch):
    """What a kernel allocates holds NaN until it is written."""
    empty_like, new_empty = torch.empty_like, torch.Tensor.new_empty
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: empty_like(*a, **k).fill_(torch.nan))
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *a, **k: new_empty(*a, **k).fill_(torch.nan))
