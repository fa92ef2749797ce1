"""What of a step makes the host wait for the device: nothing, but for the tokens, which are read once the next step has
been launched. On a device that is not there (`tests/support/pretend_device.py`)."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
from pretend_device import DEVICE, OnDevice, PretendDevice, moved, running, take

from semantic_parrot.core.engine.kv import BLOCK_SIZE, BlockCopy, LayerShape, PagedCache
from semantic_parrot.core.engine.offload_pinned import PinnedStore
from semantic_parrot.core.engine.offload_store import open_store
from semantic_parrot.core.engine.penalties import Penalties
from semantic_parrot.core.engine.sampler import sample
from semantic_parrot.core.sampling import Sampling

HOW = [
    Sampling(temperature=0.0),
    Sampling(temperature=0.8, seed=1),
    Sampling(temperature=0.8, seed=2, top_p=0.9),
    Sampling(temperature=1.2, seed=3, top_k=7, min_p=0.05),
    Sampling(temperature=0.0, repetition_penalty=1.7, frequency_penalty=0.5, logit_bias=((3, 4.0),)),
    Sampling(temperature=0.5, seed=4, presence_penalty=1.0, min_tokens=3),
]


def drawn(logits):
    penalties = {i: Penalties(s, [1, 2, 3], [7]) for i, s in enumerate(HOW) if Penalties.needed(s)}
    masks = {0: torch.tensor([-1, 15], dtype=torch.int32), 4: torch.tensor([0x0FF0, 0], dtype=torch.int32)}
    return sample(logits, HOW, range(9, 9 + len(HOW)), penalties, masks)


@torch.inference_mode()
def test_sampling():
    logits = 3 * torch.randn(len(HOW), 64, generator=torch.Generator().manual_seed(0))
    expected = drawn(logits.clone())
    with PretendDevice() as device:
        tokens = drawn(OnDevice(logits))
    assert device.waits == []
    assert tokens.device == DEVICE
    assert torch.equal(tokens.held, expected)


@torch.inference_mode()
def test_copies_and_clearing_of_blocks():
    caches = [PagedCache.allocate([LayerShape(2, 4)], 5, torch.float32, torch.device("cpu")) for _ in range(2)]
    for one, other in zip(*(cache.tensors for cache in caches), strict=True):
        other.copy_(one.normal_())
    copies, clear = [BlockCopy(1, 2, 16), BlockCopy(3, 4, 5)], [5]
    caches[0].copy(copies)
    caches[0].clear(clear)
    with PretendDevice() as device:
        there = moved(caches[1])
        there.copy(copies)
        there.clear(clear)
    assert device.waits == []
    for one, other in zip(caches[0].tensors, there.tensors, strict=True):
        assert torch.equal(one, other.held)


@torch.inference_mode()
def test_the_second_tier():
    made = PagedCache.allocate([LayerShape(2, 4), LayerShape(1, 8)], 4, torch.float32, torch.device("cpu"))
    for tensor in made.tensors:
        tensor.normal_()
    kept = [tensor.clone() for tensor in made.tensors]
    with PretendDevice() as device, running([]):
        there = moved(made)
        store = open_store(there, 3 * BLOCK_SIZE)
        assert isinstance(store, PinnedStore)
        assert open_store(there, None) is None
        assert len(store.extend()) == 3
        store.write(there, [BlockCopy(1, 2, BLOCK_SIZE), BlockCopy(3, 0, BLOCK_SIZE)])
        there.clear([1, 3])
        store.read(there, [BlockCopy(2, 4, 5), BlockCopy(0, 2, BLOCK_SIZE)])
    assert device.waits == []
    for tensor, before in zip(there.tensors, kept, strict=True):
        assert torch.equal(tensor.held[2], before[3])
        assert torch.equal(tensor.held[4][:, :5], before[1][:, :5])
        assert not tensor.held[4][:, 5:].any()


def test_a_device_that_waits_is_noticed():
    with torch.inference_mode(), PretendDevice() as device:
        x = OnDevice(torch.arange(6.0).view(2, 3))
        for asks in (
            lambda: x.max().item(),
            lambda: bool((x > 2).any()),
            lambda: x.cpu(),
            lambda: x[x > 2],
            lambda: x.nonzero(),
            lambda: x[torch.tensor([1])],
            lambda: x.index_copy_(0, OnDevice(torch.tensor([1])), torch.ones(1, 3)),
            lambda: torch.zeros(3).to(DEVICE, non_blocking=True),  # which is not pinned
            lambda: x.to("cpu", non_blocking=True),
            lambda: torch.zeros(2, 3).copy_(x),
        ):
            device.waits.clear()
            asks()
            assert len(device.waits) == 1
        for asks in (lambda: x + torch.tensor([1.0, 2.0, 3.0], device=DEVICE), lambda: x[[0, 1]]):
            with pytest.raises(AssertionError, match="which waits"):
                asks()


def test_the_engine(tiny, bench, ask):
    requests = [ask("The quay", 3), ask("One", 5, temperature=0.9, top_p=0.9, seed=3)]
    path = tiny("qwen3", num_hidden_layers=1)
    expected = bench(path, kernels="triton", kv_tokens=1024).run(*requests)
    b = bench(path, kernels="triton", kv_tokens=1024, overlap=True)
    log: list[str] = []
    launch = b.loop._launch

    def launched(batch):
        log.extend(["launch"] * (batch is not None))
        return launch(batch)

    b.loop._launch = launched
    with PretendDevice() as device, running(log):
        take(b.recorded.runner)
        ids = [b.submit(r) for r in requests]
        b.drain()
    assert [b.done[id].text for id in ids] == [d.text for d in expected]
    assert device.waits == []
    # Of each step that is followed, the tokens are read once the next is launched.
    assert log == ["launch", *["launch", "read"] * 4, "read"]
