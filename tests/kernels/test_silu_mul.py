"""The gate of an MLP against its formula."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
from semantic_parrot.kernels.silu_mul import reference, refuses, silu_mul


@pytest.mark.parametrize("shape", [(1,), (1, 1023), (1, 1024), (5, 41, 5), (3, 700), (0, 4)], ids=str)
def test_formula(shape, device, dtype, close, poisoned):
    g = torch.Generator().manual_seed(len(shape))
    gate, up = (torch.randn(shape, generator=g).to(device, dtype) for _ in range(2))
    close(silu_mul(gate, up), reference(gate, up))


def test_extremes(device, dtype):
    gate = torch.tensor([-200.0, 0.0, 200.0, torch.nan], device=device).to(dtype)
    out = silu_mul(gate, torch.ones_like(gate))
    assert out[:3].tolist() == [0.0, 0.0, 200.0]
    assert out[3].isnan()


def test_strides(device, dtype, close):
    both = torch.randn(3, 50, device=device).to(dtype)
    gate, up = both.chunk(2, -1)
    close(silu_mul(gate, up), reference(gate, up))


def test_what_it_does_not_take():
    assert refuses(torch.empty(2)) is None
    assert "int64" in str(refuses(torch.empty(2, dtype=torch.int64)))
