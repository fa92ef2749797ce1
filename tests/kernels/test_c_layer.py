"""A layer's small operations in C against their formulas: odd sizes, strides, both types, one thread and two."""

from __future__ import annotations

import pytest
import torch
from c_kernels import kernels
from torch.nn import functional

ROWS = (1, 3, 16, 33)  # 16 rows are a piece of work


@pytest.fixture(params=[1, 2])
def ops(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield kernels()
    torch.set_num_threads(before)


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request):
    return request.param


def close(got, expected, dtype):
    tolerance = 2e-6 if dtype == torch.float32 else 1.6e-2
    torch.testing.assert_close(got, expected.to(dtype), atol=tolerance, rtol=tolerance)


def normal(*shape, dtype):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def normed(x, weight, eps):
    wide = x.double()
    return weight.double() * (wide / (wide.square().mean(-1, keepdim=True) + eps).sqrt())


@pytest.mark.parametrize("dim", [1, 17, 64, 768])
def test_rms_norm(ops, dtype, dim):
    weight = normal(dim, dtype=dtype)
    for rows in ROWS:
        x, other = normal(rows, dim, dtype=dtype), normal(rows, dim, dtype=dtype).flip(0)
        for eps in (1e-6, 0.5):
            out, total = ops.rms_norm(x, weight, eps)
            close(out, normed(x, weight, eps), dtype)
            assert total is x
            out, total = ops.rms_norm(x, weight, eps, other)
            assert torch.equal(total, x + other)
            close(out, normed(x + other, weight, eps), dtype)


def test_rms_norm_of_heads_that_stand_in_wider_rows(ops, dtype):
    wide, weight = normal(33, 3 * 16 + 5, dtype=dtype), normal(16, dtype=dtype)
    x = wide[:, 2 : 2 + 48].view(33, 3, 16)
    close(ops.rms_norm(x, weight, 1e-6)[0], normed(x, weight, 1e-6), dtype)


@pytest.mark.parametrize(("dim", "rotated"), [(2, 2), (16, 16), (80, 80), (64, 24)])
def test_rope(ops, dtype, dim, rotated):
    for rows in ROWS:
        wide = normal(rows, 5 * dim, dtype=dtype)  # three heads of queries and two of keys, as one product gives them
        query, key = (part.view(rows, -1, dim) for part in wide.split([3 * dim, 2 * dim], -1))
        angle = normal(rows, rotated // 2, dtype=torch.float32).repeat(1, 2)
        cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)

        def turned(x, rotated=rotated, cos=cos, sin=sin):
            x = x.double()
            some = x[..., :rotated]
            first, second = some.chunk(2, -1)
            spun = some * cos[:, None].double() + torch.cat((-second, first), -1) * sin[:, None].double()
            return torch.cat((spun, x[..., rotated:]), -1)

        expected = turned(query), turned(key)
        ops.rope(query, key, cos, sin)
        for got, want in zip((query, key), expected, strict=True):
            close(got, want, dtype)


def test_silu_mul(ops, dtype):
    for shape in ((1, 7), (3, 64), (9, 4099)):  # the last one is three pieces of work
        gate, up = 20 * normal(*shape, dtype=dtype), normal(*shape, dtype=dtype)
        gate[0, :6] = torch.tensor([0.0, -0.0, 1e4, -1e4, 88.0, -88.0])
        out = ops.silu_mul(gate, up)
        close(out, functional.silu(gate.double()).to(dtype).double() * up.double(), dtype)


def test_what_is_no_number_stays_none(ops, dtype):
    bad = torch.ones(2, 24, dtype=dtype)
    bad[1, 5] = torch.nan
    for out in (ops.rms_norm(bad, bad[0], 1e-6)[0], ops.rms_norm(bad[:1], bad[0], 1e-6, bad[1:])[0]):
        assert out[-1].isnan().all()
    assert ops.silu_mul(bad, torch.ones_like(bad)).isnan().sum() == 1
    assert ops.silu_mul(torch.ones_like(bad), bad).isnan().sum() == 1


def test_no_rows(ops, dtype):
    none = torch.empty(0, 8, dtype=dtype)
    assert ops.rms_norm(none, torch.ones(8, dtype=dtype), 1e-6, none)[0].shape == (0, 8)
    assert ops.silu_mul(none, none).shape == (0, 8)
