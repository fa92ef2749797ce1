"""Packed weights multiply as the plain ones do."""

from __future__ import annotations

import pytest
import torch
from c_kernels import kernels
from torch import nn

from semantic_parrot.core.engine import packing
from semantic_parrot.core.engine.packing import PackedLinear, pack


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("plain", [True, False])
@torch.inference_mode()
def test_products_of_any_number_of_rows(dtype, bias, plain):
    torch.manual_seed(1)
    linear = nn.Linear(48, 80, bias=bias).to(dtype)
    packed = PackedLinear(linear, plain=plain)
    for rows in (1, 2, 3, 16, 33, 200):
        x = torch.randn(1, rows, 96).to(dtype)[..., ::2]  # with strides, as a transposed head's rows have
        torch.testing.assert_close(packed(x), linear(x), atol=1e-2 if dtype == torch.bfloat16 else 1e-6, rtol=2e-2)
        assert packed(x).shape == (1, rows, 80)


class Tied(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.embed = nn.Embedding(10, 8, dtype=dtype)
        self.head, self.own = nn.Linear(8, 10, bias=False, dtype=dtype), nn.Linear(8, 8, dtype=dtype)
        self.head.weight = self.embed.weight


# bytes: of the tied weights, which are there already, and in bf16 of the others too
@pytest.mark.parametrize(("dtype", "needed"), [(torch.float32, 10 * 8 * 4), (torch.bfloat16, (10 + 8) * 8 * 2)])
@torch.inference_mode()
def test_weights_are_kept_in_both_forms_if_there_is_room(monkeypatch, caplog, dtype, needed):
    monkeypatch.setattr(packing, "LEAST", dict.fromkeys(packing.LEAST, 0))
    torch.manual_seed(3)
    model, x = Tied(dtype), torch.randn(1, 1, 8, dtype=dtype)
    expected = model.head(x)
    assert pack(model, room=needed) == 2
    torch.testing.assert_close(model.head(x), expected)
    assert model.embed.weight.shape == (10, 8)
    assert (model.own.plain is not None) == (dtype == torch.bfloat16)

    model = Tied(dtype)
    assert pack(model, room=needed - 1) == 1
    assert "in one form" in caplog.text
    assert model.own.plain is None
    assert type(model.head) is nn.Linear  # and something else reads its weights


@torch.inference_mode()
def test_one_row_is_multiplied_by_plain_weights_and_the_switch_is_put_back(monkeypatch):
    packed = PackedLinear(nn.Linear(48, 80, dtype=torch.bfloat16), plain=True)
    found = []
    real = torch.nn.functional.linear
    monkeypatch.setattr(
        torch.nn.functional, "linear", lambda *a: found.append(torch._C._get_mkldnn_enabled()) or real(*a)
    )
    packed(torch.randn(1, 2, 48, dtype=torch.bfloat16))
    assert found == []
    packed(torch.randn(1, 1, 48, dtype=torch.bfloat16))
    assert found == [False]
    assert torch._C._get_mkldnn_enabled()
    with pytest.raises(RuntimeError):
        packed(torch.randn(1, 48, 1, dtype=torch.bfloat16))
    assert torch._C._get_mkldnn_enabled()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_few_rows_are_multiplied_by_plain_weights_in_c(monkeypatch, dtype):
    """Weights in both forms; or, without room for that, plain ones in bf16, which torch multiplies more rows by."""
    monkeypatch.setattr(packing, "LEAST", dict.fromkeys(packing.LEAST, 0))
    ops = kernels()
    if not (few := ops.few(torch.empty(80, 96, dtype=dtype))):
        pytest.skip("this processor has no AVX-512 with bf16")
    found = []
    product = type(ops).product
    monkeypatch.setattr(type(ops), "product", lambda *given: found.append(len(given[1])) or product(*given))
    for room in (1 << 20, 0):
        torch.manual_seed(4)
        model = nn.Sequential(nn.Linear(96, 80), nn.Linear(80, 50)).to(dtype)  # of the second one, no kernel
        expected = nn.Sequential(nn.Linear(96, 80), nn.Linear(80, 50)).to(dtype)
        expected.load_state_dict(model.state_dict())
        assert pack(model, room=room, kernels=ops) == 2
        plain = room > 0 or dtype == torch.bfloat16
        assert (model[0].plain is not None) == plain
        assert (model[0].weight is not None) == (room > 0 or dtype == torch.float32)
        assert (model[1].plain is None) == (room == 0 or dtype == torch.float32)
        for rows in (0, 1, few, few + 1):
            x = torch.randn(rows, 96).to(dtype)
            tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
            torch.testing.assert_close(model(x), expected(x), atol=tolerance, rtol=tolerance)
        assert found == [1, few] * plain
        found.clear()


class Attention(nn.Module):
    def __init__(self, bias=False):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(48, n, bias=bias) for n in (64, 32, 16))

    def forward(self, x, other):
        return self.q_proj(x), self.k_proj(x), self.v_proj(other)


@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_queries_keys_and_values_are_one_product_whatever_they_are_called_with(monkeypatch, bias):
    monkeypatch.setattr(packing, "LEAST", dict.fromkeys(packing.LEAST, 0))
    torch.manual_seed(2)
    model = Attention(bias)
    one, two = torch.randn(2, 1, 7, 48)
    expected = [model(x, other) for x, other in ((one, one), (one, two), (two, two))]
    products = []
    real = PackedLinear.forward
    monkeypatch.setattr(PackedLinear, "forward", lambda self, x: products.append(x) or real(self, x))
    assert pack(model) == 3
    for (x, other), wanted in zip(((one, one), (one, two), (two, two)), expected, strict=True):
        torch.testing.assert_close(model(x, other), wanted, atol=1e-6, rtol=1e-5)
    assert len(products) == 1 + 2 + 1
    # Nothing of a step is left behind.
    assert model.q_proj.together._held == [(None, ())]


def test_a_sibling_that_is_read_elsewhere_too_stays_apart(monkeypatch):
    monkeypatch.setattr(packing, "LEAST", dict.fromkeys(packing.LEAST, 0))
    model = nn.ModuleList([Attention(), nn.Linear(48, 32, bias=False)])
    model[1].weight = model[0].k_proj.weight
    assert pack(model, room=0) == 2
    assert type(model[0].k_proj) is nn.Linear
    assert isinstance(model[0].q_proj, PackedLinear)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1024), (torch.bfloat16, 256)])
def test_small_layers_stay(dtype, size):
    model = nn.Sequential(nn.Linear(size, size), nn.Linear(size, size - 1)).to(dtype)
    assert pack(model) == 1
    assert [type(layer) for layer in model] == [PackedLinear, nn.Linear]


@pytest.mark.parametrize("family", ["llama", "mixtral", "qwen3", "gemma2"])
def test_the_engine_packs_except_in_deterministic_mode(tiny, bench, ask, monkeypatch, family):
    def packed(b):
        return sum(isinstance(module, PackedLinear) for module in b.recorded.runner._model.modules())

    plain = bench(tiny(family))
    assert packed(plain) == 0
    monkeypatch.setattr(packing, "LEAST", dict.fromkeys(packing.LEAST, 0))
    b = bench(tiny(family))
    assert packed(b) > 2 * 2
    requests = [ask(f"The harbour master wrote {n}", 12) for n in range(3)]
    plain.run(*requests)
    b.run(*requests)
    assert [b.tokens(n) for n in (1, 2, 3)] == [plain.tokens(n) for n in (1, 2, 3)]
    if family != "mixtral":
        assert packed(bench(tiny(family), deterministic=True)) == 0
