"""An engine whose memory does not suffice for some steps, and what it must look like afterwards."""

from __future__ import annotations

import torch


def no_host_memory():
    torch.empty(1 << 60, dtype=torch.uint8)


def no_device_memory():
    raise torch.OutOfMemoryError("CUDA out of memory")


def no_python_memory():
    raise MemoryError


class Cramped:
    """Stands before a runner: a batch for which there is `too_little` memory ends behind the model's output layer, when
    its keys and values have been written, whatever computes the layers."""

    def __init__(self, b, too_little, fail):
        self.runner, self.too_little, self.fail, self.failures = b.recorded.runner, too_little, fail, 0
        self.runner._model.lm_head.register_forward_hook(self.leave)
        self.lacking = False
        b.recorded.runner = self

    def leave(self, *_):
        if self.lacking:
            self.failures += 1
            self.fail()

    def prepare(self, batch):
        self.runner.prepare(batch)

    def run(self, batch):
        self.lacking = self.too_little(batch)
        return self.runner.run(batch)


def intact(b):
    """Every block is free or in the tree, where all of them are to be had."""
    stats = b.loop.stats()
    assert (stats.kv_blocks_used, stats.running, stats.waiting) == (0, 0, 0)
    assert stats.kv_blocks_cached + b.loop._pool.free == stats.kv_blocks_total
    b.loop.forget_prefixes()
    assert b.loop._pool.free == b.loop.stats().kv_blocks_total
