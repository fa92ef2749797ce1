"""Packed weights multiply as the plain ones do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from semantic_parrot.core.engine.packing import PackedLinear, pack


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_products_of_any_number_of_rows(dtype, bias):
    torch.manual_seed(1)
    linear = nn.Linear(48, 80, bias=bias).to(dtype)
    packed = PackedLinear(linear)
    for rows in (1, 2, 3, 16, 33, 200):
        x = torch.randn(1, rows, 96).to(dtype)[..., ::2]  # with strides, as a transposed head's rows have
        torch.testing.assert_close(packed(x), linear(x), atol=1e-2 if dtype == torch.bfloat16 else 1e-6, rtol=2e-2)
        assert packed(x).shape == (1, rows, 80)


def test_what_something_else_reads_stays():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head, self.own = nn.Embedding(10, 8), nn.Linear(8, 10, bias=False), nn.Linear(8, 8)
            self.head.weight = self.embed.weight

    model = Tied()
    assert pack(model) == 1
    assert isinstance(model.own, PackedLinear)
    assert type(model.head) is nn.Linear


def test_the_engine_packs_except_in_deterministic_mode(tiny, bench):
    def packed(**options):
        model = bench(tiny("llama"), **options).recorded.runner._model
        return sum(isinstance(module, PackedLinear) for module in model.modules())

    assert packed() == 2 * 7 + 1
    assert packed(deterministic=True) == 0
