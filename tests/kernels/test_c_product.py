"""Products of few rows in C against the formula in fp64: odd sizes, strides, both types, one thread and two."""

from __future__ import annotations

import pytest
import torch
from c_kernels import kernels

ROWS = (0, 1, 2, 3, 4, 5, 13, 16, 64)  # four go together


@pytest.fixture(params=[1, 2])
def ops(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    found = kernels()
    if not found.few(torch.empty(4, 32, dtype=torch.bfloat16)):
        pytest.skip("this processor has no AVX-512 with bf16")
    yield found
    torch.set_num_threads(before)


def normal(*shape, dtype):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("outer", "inner"), [(4, 32), (12, 96), (64, 64), (132, 768), (260, 2048)])
@torch.inference_mode()
def test_formula(ops, dtype, bias, outer, inner):
    weight = normal(outer, inner, dtype=dtype)
    shift = normal(outer, dtype=dtype) if bias else None
    for rows in ROWS:
        x = normal(1, rows, 2 * inner, dtype=dtype)[..., ::2]
        expected = x.double() @ weight.double().T + (shift.double() if bias else 0.0)
        found = ops.product(x, weight, shift)
        assert found.shape == (1, rows, outer)
        # Of the products' own size, not of their sum's, which may be next to nothing.
        size = x.double().norm(dim=-1, keepdim=True) * weight.double().norm(dim=-1)
        rounding = expected.abs() * (2.0**-8 if dtype == torch.bfloat16 else 2.0**-23)
        assert ((found.double() - expected).abs() <= 1e-6 * size + rounding).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_a_row_has_the_same_bits_in_any_company(ops, dtype):
    weight, x = normal(76, 160, dtype=dtype), normal(64, 160, dtype=dtype)
    whole = ops.product(x, weight, None)
    for first, last in ((0, 1), (1, 3), (5, 12), (60, 64), (63, 64)):
        assert torch.equal(ops.product(x[first:last], weight, None), whole[first:last])


@torch.inference_mode()
def test_what_is_no_number_spoils_its_own_row_only(ops):
    x = torch.ones(6, 64, dtype=torch.bfloat16)
    x[4, 7] = torch.nan
    found = ops.product(x, torch.ones(8, 64, dtype=torch.bfloat16), None)
    assert found[4].isnan().all()
    assert (found[[0, 1, 2, 3, 5]] == 64).all()


def test_what_it_does_not_take(ops):
    bf16 = torch.bfloat16
    taken = [(8, 64, bf16), (8, 16, torch.float32)]
    refused = [(6, 64, bf16), (8, 48, bf16), (8, 24, torch.float32), (8, 64, torch.float16)]
    assert all(ops.few(torch.empty(outer, inner, dtype=dtype)) for outer, inner, dtype in taken)
    assert not any(ops.few(torch.empty(outer, inner, dtype=dtype)) for outer, inner, dtype in refused)
    assert not ops.few(torch.empty(64, 8, dtype=bf16).T)
    for x in (torch.empty(2, 32, dtype=bf16), torch.empty(2, 64)):
        with pytest.raises(ValueError, match=r"rows of .*, not 64 in torch.bfloat16"):
            ops.product(x, torch.empty(8, 64, dtype=bf16), None)
