"""Each branch of the table is reached, and what a kernel does not take is torch's, said once."""

from __future__ import annotations

import logging
from functools import partial

import pytest
import torch

from semantic_parrot.kernels import deterministic_attention, torch_attention, torch_tree, worth
from semantic_parrot.kernels.dispatch import Guarded, paged_attention
from semantic_parrot.kernels.paging import Segment

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SIZE = 16


def test_torch():
    tree = paged_attention("torch", CPU, deterministic=False)
    assert isinstance(tree, partial)
    assert tree.func is torch_tree.plan
    assert tree.keywords == {"worth": worth.read("torch", "cpu")}
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
        for dim, taken in ((8, True), (triton_attention.WIDEST + 8, False), (triton_attention.WIDEST + 8, False)):
            g = torch.Generator().manual_seed(dim)
            query = torch.randn(1, 4, 4, dim, generator=g).to(device)
            new = [torch.randn(1, 2, 4, dim, generator=g).to(device) for _ in range(2)]
            caches = [torch.randn(4, 2, SIZE, dim, generator=g).to(device) for _ in range(2)]
            found = []
            for way in (planner, reference):
                plan = way(segments, 4, SIZE, device)
                own = [cache.clone() for cache in caches]
                found.append(plan.attend(query, *new, *own, scale=dim**-0.5, window=None))
                if isinstance(plan, Guarded):
                    assert ("_other" in plan.__dict__) is not taken
                    assert (plan.plan._slots is not None) is taken
            torch.testing.assert_close(*found, atol=2e-6, rtol=1e-5)
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"heads of {triton_attention.WIDEST + 8}" in said
    assert "torch computes it" in said


def test_deterministic_triton_shares_nothing():
    triton_attention = pytest.importorskip("semantic_parrot.kernels.triton_attention", exc_type=ImportError)
    plans = {
        mode: paged_attention("triton", CPU, deterministic=mode)([Segment(0, 1, 5, [1])], 1, SIZE, CPU).plan
        for mode in (False, True)
    }
    assert plans[True].how is triton_attention.DETERMINISTIC
    assert plans[False].how.worth == worth.read("triton", "cpu")
