"""However many cancels, forks and evictions there are, no block is left behind; the check that says so sees faults."""

from __future__ import annotations

import os
import random

import books
import pytest
from machine import Machine, answer

from semantic_parrot.core.engines.protocol import Keep

#: Cancels, forks and evictions: a few in every run of the tests, as many as one likes with PARROT_STRESS.
EVENTS = int(os.environ.get("PARROT_STRESS", "1500"))


class Storm:
    """A machine with tight memory, and what is done to it."""

    def __init__(self, seed, **options):
        self.random = random.Random(seed)
        self.machine = Machine(28, max_batch=5, chunk=40, dt=0.5, **options)
        self.wanted = {}
        self.counts = dict.fromkeys((self.cancel, self.fork, self.evict), 0)

    def submit(self, prompt):
        pick, m = self.random, self.machine
        keep = (Keep(1.0, pick.choice([None, m.now + pick.uniform(0, 50)])),) if pick.random() < 0.4 else ()
        count = pick.randint(1, 30)
        s = m.submit(prompt[:120], count, pick.randrange(3), cap=pick.choice([None, None, 2]), keep=keep)
        self.wanted[s.id] = answer(s.tokens, count)

    def fork(self):
        """A prompt that goes on, anywhere, from what another one has or had."""
        known = [s.tokens for s in self.machine.live.values()] or [[0] * 60, [1] * 90]
        trunk = self.random.choice(known)
        stem = trunk[: self.random.randint(0, len(trunk))]
        self.submit(stem + [self.random.randrange(5) for _ in range(self.random.randint(1, 8))])

    def cancel(self):
        m = self.machine
        if m.live:
            s = self.random.choice([*m.live.values()])
            m.cancel(s)
            self.wanted[s.id] = []

    def evict(self):
        m = self.machine
        if self.random.random() < 0.03:
            m.planner.forget_prefixes()
        else:
            m.tree.evict(self.random.randint(1, 20), m.now)

    def run(self, events):
        m = self.machine
        while sum(self.counts.values()) < events:
            what = self.random.choice([*self.counts])
            if what != self.fork or len(m.live) < 12:
                what()
                self.counts[what] += 1
            m.check()
            m.step(self.random.randint(1, 4))
            del m.batches[:], m.started[:], m.preempted[:]
        m.drain()
        assert m.ended == self.wanted
        m.check()


@pytest.mark.parametrize("options", [{"slots": 60}, {"slots": 12, "per_step": 2}, {"slots": 60, "long_after": 70}, {}])
def test_no_block_is_left_behind(options):
    storm = Storm(repr(options), **options)
    storm.run(EVENTS // 4)
    m = storm.machine
    if m.offload is not None:
        assert m.offload.restored > EVENTS // 100
    m.planner.forget_prefixes()
    m.check()
    assert m.pool.free == m.pool.total
    assert m.offload is None or len(m.offload._free) == m.storage.given == storm.machine.storage._slots


# The check itself. Each of these is a bug that could be.


def nodes(m, wanted):
    return next(n for root in m.tree._roots.values() for n in root.below() if n.parent and wanted(n))


def held(m):
    return nodes(m, lambda n: n.block and m.pool.held(n.block))


def idle(m):
    return nodes(m, lambda n: n.block and not m.pool.held(n.block) and not n.resident)


def kept(m):
    return nodes(m, lambda n: n.slot is not None and not n.exact)


def inner(m):
    return nodes(m, lambda n: n.slot is not None and n.exact)


FAULTS = {
    "a holder too many": lambda m: m.pool.hold(held(m).block),
    "a holder too few": lambda m: m.pool._holders.__setitem__(held(m).block, 0),
    "a block freed twice": lambda m: m.pool._free.append(m.pool._free[0]),
    "a block freed while it is held": lambda m: m.pool._free.append(held(m).block),
    "a block freed while it is resident": lambda m: m.pool._free.append(idle(m).block),
    "a free block lost": lambda m: m.pool._free.pop(),
    "scratch handed out": lambda m: m.pool._free.append(0),
    "used miscounted": lambda m: setattr(m.pool, "used", m.pool.used + 1),
    "cached miscounted": lambda m: setattr(m.pool, "cached", m.pool.cached - 1),
    "resident for the pool only": lambda m: m.pool._resident.__setitem__(m.pool._free[0], True),
    "resident for the tree only": lambda m: m.pool._resident.__setitem__(held(m).block, False),
    "a node that the tree does not list": lambda m: m.tree._nodes.pop(idle(m).block),
    "a node that its parent does not know": lambda m: idle(m).parent.remove(idle(m)),
    "a node known by its tokens only": lambda m: idle(m).parent.by_first.pop(idle(m).tokens[0]),
    "resident children miscounted": lambda m: setattr(held(m).parent, "resident", held(m).parent.resident + 1),
    "both a block and a slot": lambda m: setattr(idle(m), "slot", 0),
    "neither block nor slot": lambda m: m.offload.release(kept(m)),
    "a resident block below a slot": lambda m: m.tree._settle(kept_below(m), m.pool.take(1)[0]),
    "a node no candidate": lambda m: (m.pool.idle.discard(idle(m).block), m.tree._leaves.discard(idle(m))),
    "a slot lost": lambda m: m.offload._free.pop(),
    "a slot twice": lambda m: m.offload._free.append(kept(m).slot),
    "a slot that the tier does not list": lambda m: m.offload._nodes.pop(kept(m).slot),
    "a slot no candidate": lambda m: m.offload._leaves.discard(kept(m)),
    "an inner slot a candidate": lambda m: m.offload._leaves.push(inner(m), m.now),
    "a copy forgotten": lambda m: m.offload._back.append(None),
    "an ancestor let go of": lambda m: let_go(m),
    "a node covered by another": lambda m: cover(m),
}


def kept_below(m):
    node = nodes(m, lambda n: n.slot is not None and n.parent.slot is not None)
    m.offload.release(node)
    return node


def let_go(m):
    s = next(s for s in m.planner.running if len(s.blocks) > 1 and held(m).block in s.blocks)
    m.pool.drop((s.blocks[0],))
    s.blocks = [0, *s.blocks[1:]]


def cover(m):
    parent = idle(m).parent
    shorter = type(parent)(idle(m).tokens[:1], parent)
    parent.add(shorter)
    m.tree._settle(shorter, m.pool.take(1)[0])


def rich():
    """Sequences that run, idle blocks, free ones, and slots in use and free."""
    m = Machine(28, max_batch=5, chunk=40, slots=20)
    for n in range(4):
        m.submit([n] * 100 + [4], 4)
    m.drain()
    m.submit([0] * 100 + [3], 60)
    m.step(8)
    m.tree.evict(12 - m.pool.free, m.now)
    m.offload.moves()
    m.check()
    return m


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_sees(fault):
    m = rich()
    FAULTS[fault](m)
    tables = [s.blocks for s in m.planner.running]
    assert list(books.faults(m.pool, m.tree, m.offload, tables, m.storage.given))


def test_nothing_is_wrong_with_what_the_faults_are_put_into():
    rich()
