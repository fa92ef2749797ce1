"""Rotation in place against the formula, partial ones and strided heads too."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
from semantic_parrot.kernels.rope import reference, refuses, rope


@pytest.mark.parametrize(("heads", "kv_heads", "rows", "dim", "rotated"), [
    (4, 2, 5, 64, 64), (3, 1, 1, 24, 24), (6, 6, 3, 20, 12), (1, 1, 7, 6, 2), (5, 1, 0, 8, 8), (2, 1, 4, 80, 0),
])  # fmt: skip
@pytest.mark.parametrize("packed", [False, True])
def test_formula(heads, kv_heads, rows, dim, rotated, packed, device, dtype, close):
    g = torch.Generator().manual_seed(dim)
    if packed:  # as one product gives them: row by row, queries and keys side by side
        both = torch.randn(1, rows, heads + kv_heads + 1, dim, generator=g).to(device, dtype)
        query, key, rest = both.split([heads, kv_heads, 1], 2)
        query, key = query.transpose(1, 2), key.transpose(1, 2)
    else:
        query, key = (torch.randn(1, n, rows, dim, generator=g).to(device, dtype) for n in (heads, kv_heads))
        rest = torch.zeros(0, device=device)
    before = rest.clone()
    cos, sin = (torch.randn(1, rows, rotated, generator=g).to(device, dtype) for _ in range(2))
    expected = reference(query, key, cos, sin)
    rope(query, key, cos, sin)
    close(query, expected[0], 2)
    close(key, expected[1], 2)
    assert torch.equal(query[..., rotated:], expected[0][..., rotated:])
    assert torch.equal(rest, before)  # neighbours of what is rotated


def test_what_it_does_not_take():
    query = torch.empty(1, 2, 3, 8)
    assert refuses(query, torch.empty(1, 3, 8)) is None
    assert "3 rotated" in str(refuses(query, torch.empty(1, 3, 3)))
    assert "10 rotated" in str(refuses(query, torch.empty(1, 3, 10)))
    assert "batch" in str(refuses(query, torch.empty(2, 3, 8)))
    assert "float64" in str(refuses(query.double(), torch.empty(1, 3, 8)))
