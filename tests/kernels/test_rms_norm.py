"""The norm against its formula, and a row against itself in other company."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
from semantic_parrot.kernels.rms_norm import WIDEST, reference, refuses, rms_norm

SHAPES = [(1, 1), (1, 64), (3, 65), (7, 100), (2, 3, 1000), (0, 8)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("adds", [False, True])
def test_formula(shape, adds, device, dtype, close, poisoned):
    g = torch.Generator().manual_seed(len(shape))
    x, other = (torch.randn(shape, generator=g).to(device, dtype) for _ in range(2))
    weight = torch.randn(shape[-1], generator=g).to(device, dtype)
    for eps in (1e-6, 0.5):
        got = rms_norm(x, weight, eps, other if adds else None)
        expected = reference(x, weight, eps, other if adds else None)
        close(got[0], expected[0])
        assert torch.equal(got[1], expected[1])


def test_large_numbers_do_not_overflow(device, dtype, close):
    x = torch.full((2, 33), 3e4, device=device).to(dtype)  # its square is no fp16 number
    out, _ = rms_norm(x, torch.ones(33, device=device, dtype=dtype), 1e-6)
    close(out, torch.ones_like(x))


def test_strides(device, dtype, close):
    x = torch.randn(6, 40, device=device).to(dtype)[::2, ::2]
    weight = torch.randn(20, device=device).to(dtype)
    close(rms_norm(x, weight, 1e-6, x)[0], reference(x, weight, 1e-6, x)[0])


def test_a_row_does_not_depend_on_the_others(device, dtype):
    x = torch.randn(9, 321, device=device).to(dtype)
    weight = torch.randn(321, device=device).to(dtype)
    whole, _ = rms_norm(x, weight, 1e-6, x)
    for rows in (slice(0, 1), slice(3, 8)):
        assert torch.equal(rms_norm(x[rows], weight, 1e-6, x[rows])[0], whole[rows])


def test_what_it_does_not_take():
    assert refuses(torch.empty(2, WIDEST)) is None
    assert str(WIDEST + 1) in str(refuses(torch.empty(2, WIDEST + 1)))
    assert "float64" in str(refuses(torch.empty(2, 8, dtype=torch.float64)))
    bf16 = refuses(torch.empty(2, 8, dtype=torch.bfloat16))
    assert bf16 is None if torch.cuda.is_available() else "interpreter" in str(bf16)
