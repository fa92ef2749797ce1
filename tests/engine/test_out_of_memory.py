"""A step without memory fails the smallest set of requests, and the engine lives on with no block lost."""

from __future__ import annotations

import pytest
from cramped import Cramped, intact, no_device_memory, no_host_memory, no_python_memory

LINE = "The harbour master wrote down each ship, its cargo and the hour at which it left the quay. "
PROMPTS = [LINE + str(n) for n in range(6)] + ["Nobody: " + LINE * 2, "Two", "naïve café 🦜 " * 6]


def texts(b):
    return {id: done.text for id, done in b.done.items()}


@pytest.fixture
def expected(tiny, bench, ask):
    b = bench(tiny("llama"), deterministic=True)
    b.run(*(ask(p, 20) for p in PROMPTS))
    return texts(b)


@pytest.mark.parametrize("fail", [no_host_memory, no_device_memory, no_python_memory])
def test_halves_that_fit(tiny, bench, ask, expected, fail):
    b = bench(tiny("llama"), deterministic=True, chunk=100)
    cramped = Cramped(b, lambda batch: sum(work.rows for work in batch.work) > 12, fail)
    b.run(*(ask(p, 20) for p in PROMPTS))
    assert cramped.failures > 5
    assert texts(b) == expected
    assert not b.failed
    intact(b)


@pytest.mark.parametrize("at", [0, 30, 70])
def test_one_that_does_not_fit_by_itself(tiny, bench, ask, expected, at):
    """It fails at its token `at`, in prefill or in decode; whatever else was in the step goes on."""
    b = bench(tiny("llama"), deterministic=True, chunk=100)

    def too_little(batch):
        return any(w.sequence.id == 7 and w.sequence.computed + w.rows > at for w in batch.work)

    Cramped(b, too_little, no_device_memory)
    for p in PROMPTS:
        b.submit(ask(p, 20))
    b.drain()
    assert list(b.failed) == [7]
    assert b.failed[7].code == "out_of_memory"
    assert f"out of memory at token {at} " in b.failed[7].message
    assert texts(b) == {id: text for id, text in expected.items() if id != 7}
    intact(b)
    b.recorded.runner.too_little = lambda batch: False
    assert b.run(ask(PROMPTS[6], 20))[0].text == expected[7]


def test_a_prefill_ahead_that_does_not_fit_is_given_up(tiny, bench, ask, expected):
    b = bench(tiny("llama"), deterministic=True)
    Cramped(b, lambda batch: any(w.sequence.ahead for w in batch.work), no_device_memory)
    b.loop.prefill(99, ask(LINE * 2, 1))
    b.drain()
    assert not b.loop.busy
    intact(b)


def test_another_error_is_no_lack_of_memory(tiny, bench, ask):
    b = bench(tiny("llama"))

    def broken():
        raise RuntimeError("something else")

    Cramped(b, lambda batch: True, broken)
    b.submit(ask("Two", 4))
    with pytest.raises(RuntimeError, match="something else"):
        b.drain()
