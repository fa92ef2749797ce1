"""Each branch of the table is reached, and what a kernel does not take is torch's, said once."""

from __future__ import annotations

import logging
from functools import partial

import pytest
import torch

from semantic_parrot.kernels import deterministic_attention, torch_attention, torch_tree, worth
from semantic_parrot.kernels.dispatch import Guarded, paged_attention
from semantic_parrot.kernels.paging import Scores, Segment

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SIZE = 16


def test_torch():
    tree = paged_attention("torch", CPU, deterministic=False)
    assert isinstance(tree, partial)
    assert tree.func is torch_tree.plan
    assert tree.keywords == {"worth": worth.read("torch", "cpu", group=1)}
    eight = paged_attention("torch", CPU, deterministic=False, group=8)
    assert isinstance(eight, partial)
    assert eight.keywords == {"worth": worth.read("torch", "cpu", group=8)} != tree.keywords
    assert paged_attention("c", CPU, deterministic=True) is deterministic_attention.plan
    assert paged_attention("torch", CPU, deterministic=True) is deterministic_attention.plan
    assert paged_attention("torch", GPU, deterministic=False) is torch_attention.plan
    assert paged_attention("torch", GPU, deterministic=True) is deterministic_attention.plan


@pytest.mark.parametrize("deterministic", [False, True])
def test_triton_and_what_it_does_not_take(deterministic, device, caplog):
    triton_attention = pytest.importorskip("semantic_parrot.kernels.triton_attention", exc_type=ImportError)
    reference = deterministic_attention.plan if deterministic else torch_attention.plan
    planner = paged_attention("triton", device, deterministic=deterministic)
    segments = [Segment(0, 1, 20, [1, 2]), Segment(1, 3, 3, [3])]
    with caplog.at_level(logging.WARNING):
        wide, many, double = (triton_attention.WIDEST + 8, 4, 4), (8, 2 * triton_attention.MOST + 2, 4), (8, 4, 8)
        for dim, heads, itemsize in ((8, 4, 4), wide, wide, many, double, many):
            taken = (dim, heads, itemsize) == (8, 4, 4)
            dtype = {4: torch.float32, 8: torch.float64}[itemsize]
            g = torch.Generator().manual_seed(dim)
            query = torch.randn(1, heads, 4, dim, generator=g, dtype=dtype).to(device)
            new = [torch.randn(1, 2, 4, dim, generator=g, dtype=dtype).to(device) for _ in range(2)]
            caches = [torch.randn(4, 2, SIZE, dim, generator=g, dtype=dtype).to(device) for _ in range(2)]
            found = []
            for way in (planner, reference):
                plan = way(segments, 4, SIZE, device)
                own = [cache.clone() for cache in caches]
                found.append(plan.attend(query, *new, *own, Scores(dim**-0.5)))
                if isinstance(plan, Guarded):
                    assert ("_other" in plan.__dict__) is not taken
                    assert (plan.plan._slots is not None) is taken
            torch.testing.assert_close(*found, atol=2e-6, rtol=1e-5)
    assert [record.getMessage() for record in caplog.records] == [
        f"the Triton kernels of attention do not take {what}: torch computes it"
        for what in ("heads of 264, more than 256", "65 query heads to a KV head, more than 64", "float64 tensors")
    ]


def test_deterministic_triton_shares_nothing():
    triton_attention = pytest.importorskip("semantic_parrot.kernels.triton_attention", exc_type=ImportError)
    plans = {
        mode: paged_attention("triton", CPU, deterministic=mode)([Segment(0, 1, 5, [1])], 1, SIZE, CPU).plan
        for mode in (False, True)
    }
    assert plans[True].how is triton_attention.DETERMINISTIC
    assert plans[False].how.worth == worth.read("triton", "cpu")
