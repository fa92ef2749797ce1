"""The product against its formula, and a row's bits in any company, at any place."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
from semantic_parrot.kernels.matmul import TILE, matmul, reference, refuses


@pytest.mark.parametrize(("rows", "size", "columns"), [
    (1, 1, 1), (1, 64, 64), (3, 65, 63), (TILE + 1, 100, 2 * TILE + 2), (5, 200, 7), (0, 8, 8), (2, 8, 0),
])  # fmt: skip
@pytest.mark.parametrize("bias", [False, True])
def test_formula(rows, size, columns, bias, device, dtype, close, poisoned):
    g = torch.Generator().manual_seed(size)
    x = torch.randn(1, rows, size, generator=g).to(device, dtype)
    weight = (torch.randn(columns, size, generator=g) * size**-0.5).to(device, dtype)
    offset = torch.randn(columns, generator=g).to(device, dtype) if bias else None
    got = matmul(x, weight, offset)
    assert got.shape == (1, rows, columns)
    close(got.double(), reference(x.double(), weight.double(), offset.double() if bias else None), 2)


def test_a_row_has_the_same_bits_in_any_company(device, dtype):
    g = torch.Generator().manual_seed(3)
    x = torch.randn(TILE + 40, 200, generator=g).to(device, dtype)
    weight = torch.randn(130, 200, generator=g).to(device, dtype)
    whole = matmul(x, weight)
    for some in ([0], [TILE], [5, 90, 3], list(range(17)), list(reversed(range(TILE + 40)))):
        assert torch.equal(matmul(x[some], weight), whole[some])


def test_what_is_no_number_stays_in_its_row(device, dtype):
    x = torch.ones(3, 70, device=device).to(dtype)
    x[1, 69] = torch.nan
    out = matmul(x, torch.ones(5, 70, device=device).to(dtype))
    assert out[1].isnan().all()
    assert (out[[0, 2]] == 70).all()


def test_what_it_does_not_take():
    assert refuses(torch.empty(2, 8)) is None
    assert "float64" in str(refuses(torch.empty(2, 8, dtype=torch.float64)))
