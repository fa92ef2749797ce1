"""The second tier of the prefix cache: what is evicted comes back as it was, is not computed, and costs nobody else."""

from __future__ import annotations

import errno
import os
import tempfile

import books
import pytest
import torch
from machine import Machine, Slots, answer

from semantic_parrot.core.engine.kv import BLOCK_SIZE, BlockCopy, BlockPool, LayerShape, PagedCache
from semantic_parrot.core.engine.offload import Offload
from semantic_parrot.core.engine.offload_pinned import PinnedStore
from semantic_parrot.core.engine.offload_store import MappedFile, open_store, per_step
from semantic_parrot.core.engine.prefix_tree import PrefixTree
from semantic_parrot.core.engine.retention import NEVER, Uses
from semantic_parrot.core.engines.protocol import Keep

NOW = 1000.0
LONG = [n % 3 for n in range(150)]


def test_a_prompt_that_was_evicted_is_copied_back_and_not_computed():
    m = Machine(12, chunk=64, slots=40, per_step=100)
    m.submit(LONG, 4)
    m.drain()
    m.submit([4] * 180, 4)  # takes all there is
    m.drain()
    assert m.offload.used >= 9
    rows = m.rows
    s = m.submit([*LONG, 4], 4)
    m.drain()
    assert m.ended[s.id] == answer([*LONG, 4], 4)
    assert s.cached == 150  # to the token
    assert m.rows - rows == 1 + 3
    assert m.offload.restored == 10


def test_a_step_copies_so_many_blocks_and_others_go_on_meanwhile():
    m = Machine(20, chunk=200, slots=60, per_step=2)
    m.submit(LONG, 4)
    m.drain()
    m.submit([4] * 300, 4)
    m.drain()
    other = m.submit([3] * 4, 60)
    m.step(3)
    s = m.submit([*LONG, 4], 4)
    before, decoded, rows = len(m.batches), len(other.tokens), m.rows
    while s.pending > 1:
        m.step()
    steps = len(m.batches) - before
    assert m.rows == rows + steps + 1  # of `s` nothing but its last token is computed
    assert steps >= 2 * 9 // 2  # ten blocks out, two a step; then ten back
    assert len(other.tokens) == decoded + steps
    assert m.offload.restored == 10
    for batch in m.batches:
        assert len(batch.moves.back) <= 2
        assert len(batch.moves.out) <= 2 + 8  # one that decodes doesn't wait for its next block
    m.drain()
    assert m.ended[s.id] == answer([*LONG, 4], 4)
    assert s.cached == 150


def test_two_that_want_the_same_share_what_comes_back():
    m = Machine(24, chunk=64, slots=60, per_step=3)
    m.submit(LONG, 4)
    m.drain()
    m.submit([4] * 370, 4)
    m.drain()
    rows = m.rows
    twins = [m.submit([*LONG, n], 4) for n in range(2)]
    m.drain()
    assert [m.ended[s.id] for s in twins] == [answer([*LONG, n], 4) for n in range(2)]
    assert m.offload.restored <= 9 + 2  # the nine whole blocks once, the tenth for each
    assert m.rows - rows <= 2 * 4 + 6


def test_what_a_preempted_sequence_gets_back_does_not_count_as_cached():
    m = Machine(14, max_batch=4, chunk=64, slots=60, per_step=2)
    slow = m.submit(LONG, 20, 2)
    m.step(6)
    assert slow.pending == 1
    quick = m.submit([4] * 200, 4, 0)
    m.drain()
    assert m.offload.restored > 0
    assert (slow.cached, quick.cached) == (0, 0)
    assert m.ended[slow.id] == answer(LONG, 20)
    assert m.rows <= 150 + 19 + 200 + 3 + 2  # hardly anything is computed twice


def test_what_was_read_for_the_last_time_gets_no_slot():
    m = Machine(12, chunk=64, slots=40)
    m.submit(LONG, 4, keep=(Keep(1.0, None),))
    m.drain()
    m.submit([4] * 170, 4)
    m.drain()
    assert m.offload.used == 0


def tier(slots, *said):
    """A tree of a block for each, of which that was said, all evicted in this order."""
    pool = BlockPool(1)
    offload = Offload(Slots(slots), 100)
    tree = PrefixTree(pool, offload)
    for n, use in enumerate(said):
        table = pool.take(1)
        uses = None if use is None else Uses(NOW, (), (use,))
        tree.insert("", [n] * BLOCK_SIZE, table, tail=True, uses=uses)
        pool.drop(table)
        tree.evict(1, NOW)
    return {node.tokens[0] for node in offload._nodes.values()}


def test_slots_go_to_what_is_read_soonest():
    assert tier(2, NOW + 9, NOW + 5, NOW + 7, None) == {1, 2}
    assert tier(2, None, None, None) == {1, 2}  # the least recently used goes
    assert tier(2, None, NOW + 5, NEVER, None) == {1, 3}
    assert tier(0, NOW + 1) == set()


def test_regimes_are_kept_apart():
    m = Machine(12, chunk=64, slots=40, per_step=100, long_after=100)
    m.submit(LONG[:90], 4)  # short factors
    m.drain()
    m.submit([4] * 95, 4)
    m.submit([3] * 95, 4)
    m.drain()
    rows = m.rows
    m.submit(LONG, 4)  # long ones: nothing of it stands anywhere
    m.drain()
    assert m.rows - rows == 150 + 3


# The slots.


def cache(blocks=3):
    made = PagedCache.allocate([LayerShape(2, 4), LayerShape(1, 8)], blocks, torch.float32, torch.device("cpu"))
    for tensor in made.tensors:
        tensor.normal_()
    return made


@pytest.mark.parametrize("pinned", [False, True])
def test_copies_are_bit_for_bit(pinned):
    made = cache()
    made.keys[0][1, 0, 0, 0] = -0.0
    made.values[1][1, 0, 3, 2] = torch.nan
    store = PinnedStore(made, 5, 16) if pinned else open_store(made, 5 * BLOCK_SIZE)
    assert len(store.extend()) == 5
    assert len(store.extend()) == 0
    kept = [tensor.clone() for tensor in made.tensors]
    store.write(made, [BlockCopy(1, 4, BLOCK_SIZE), BlockCopy(2, 0, BLOCK_SIZE)])
    for tensor in made.tensors:
        tensor.fill_(torch.inf)
    store.read(made, [BlockCopy(4, 3, BLOCK_SIZE), BlockCopy(0, 1, 5)])
    for tensor, before in zip(made.tensors, kept, strict=True):
        assert torch.equal(tensor[3].view(torch.int32), before[1].view(torch.int32))
        assert torch.equal(tensor[1][:, :5], before[2][:, :5])
        assert not tensor[1][:, 5:].any()
        assert tensor[2].isinf().all()


def test_the_file_has_no_name_and_grows_as_it_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    file = MappedFile(32 << 20, 5)
    assert list(tmp_path.iterdir()) == []
    used = [file.extend()]
    assert os.fstat(file._file.fileno()).st_blocks * 512 == 64 << 20
    while used[-1]:
        used.append(file.extend())
    assert [n for some in used for n in some] == list(range(5))


def test_a_full_disk_stops_its_growth_and_is_said_once(monkeypatch, caplog):
    left = [3]

    def full(*_):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("semantic_parrot.core.engine.offload_store._reserve", full)
    file = MappedFile(1 << 26, 10)
    assert [list(file.extend()) for _ in range(5)] == [[0], [1], [2], [], []]
    assert [record.getMessage() for record in caplog.records] == [
        "the file for evicted KV stays at 192 MiB: No space left on device"
    ]


def test_pinned_memory_is_taken_as_it_is_used_until_there_is_no_more(monkeypatch, caplog):
    made = cache()
    monkeypatch.setattr("semantic_parrot.core.engine.offload_pinned.EXTENT", 2 * made.block_bytes)
    store = PinnedStore(made, 9, 16)
    assert [list(store.extend()) for _ in range(2)] == [[0, 1], [2, 3]]

    def full(*_, **__):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch, "empty", full)
    assert [list(store.extend()) for _ in range(3)] == [[], [], []]
    assert [record.getMessage() for record in caplog.records] == [
        "the memory for evicted KV stays at 4 blocks: CUDA error: out of memory"
    ]


def test_a_disk_without_room_for_any_of_it_costs_no_request(tiny, bench, ask, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("semantic_parrot.core.engine.offload_store._reserve", full)
    prompts = [ask(f"{n} The harbour master wrote down each ship. " * 2, 8) for n in range(6)]
    b = bench(tiny("llama"), kv_tokens=256, kv_offload_tokens=4096)
    assert len(b.run(*prompts)) == 6
    assert (b.loop.stats().kv_blocks_offloaded, len(caplog.records)) == (0, 1)


@pytest.mark.parametrize("tokens", [1 << 61, 1 << 80])
def test_a_file_that_cannot_be_is_said_and_nothing_else(tokens, caplog):
    assert open_store(cache(), tokens) is None
    assert "evicted KV is not kept: no file for it in " in caplog.text


def test_as_much_as_the_cache_by_default_if_the_disk_has_room(monkeypatch):
    made = cache(blocks=7)
    budget = [1 << 40]
    monkeypatch.setattr("semantic_parrot.core.engine.offload_store.offload_budget", lambda directory: budget[0])
    assert len(open_store(made, None).extend()) == 7
    budget[0] = 3 * made.block_bytes + 1
    assert len(open_store(made, None).extend()) == 3
    budget[0] = 0
    assert open_store(made, None) is None
    assert open_store(made, 0) is None


@pytest.mark.parametrize("pinned", [False, True])
def test_on_and_off_give_the_same_bits(tiny, bench, ask, monkeypatch, pinned):
    """Deterministic mode; the cache holds a part of what three rounds over the same documents read."""
    if pinned:  # on CPU tensors

        def opened(cache, tokens):
            return PinnedStore(cache, tokens // BLOCK_SIZE, per_step(cache)) if tokens else None

        monkeypatch.setattr("semantic_parrot.core.engine.loader.open_store", opened)
    line = "The harbour master wrote down each ship, its cargo and the hour at which it left the quay. "
    requests = [ask(f"{n}: {line * 3}{q}", 6) for q in "ABC" for n in range(5)]
    found = {}
    for tokens in (0, 4096):
        b = bench(tiny("llama"), deterministic=True, kv_tokens=320, kv_offload_tokens=tokens, max_batch=2)
        usages = [b.run(r)[0].usage for r in requests]
        found[tokens] = torch.cat([b.logits(id) for id in range(1, 16)])
        stats = b.loop.stats()
        if tokens:
            assert stats.kv_blocks_restored > 50
            assert sum(u.cached for u in usages) > 0.95 * sum(u.prompt for u in usages[5:])
            assert stats.prompt_tokens_computed < 0.4 * sum(u.prompt for u in usages)
            b.loop.forget_prefixes()
            assert b.loop.stats().kv_blocks_offloaded == 0
            books.check(b.loop._pool, None, None, [])
        else:
            assert stats.kv_blocks_restored == 0
    assert torch.equal(found[0], found[4096])


def test_no_numbers_do_not_come_back(tiny, bench, ask):
    """A request whose logits are no numbers is computed anew with nothing shared, the second tier's included."""
    b = bench(tiny("llama"), kv_tokens=640, kv_offload_tokens=4096)
    b.run(*(ask(f"{n}: " + "The quay. " * 20, 6) for n in range(6)))
    assert b.loop.stats().kv_blocks_offloaded > 0
    inner, poisoned = b.recorded.runner.run, []

    def poison(batch):
        work, logits = inner(batch)
        if not poisoned:
            poisoned.append(work)
            logits = logits * torch.nan
        return work, logits

    b.recorded.runner.run = poison
    assert b.run(ask("Two", 4))[0].usage.completion == 4
    assert b.loop.stats().kv_blocks_offloaded == 0
