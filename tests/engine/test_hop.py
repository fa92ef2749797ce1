"""A step waits a little for calls that follow from those that have ended, and only where that is less in all."""

from __future__ import annotations

import socket
import threading
from types import SimpleNamespace

import pytest

from semantic_parrot.core.engine import hop
from semantic_parrot.core.engine.messages import Cancel, Finished, Generate, encode_commands
from semantic_parrot.core.engine.process import Channel
from semantic_parrot.core.engines.protocol import Directions


def feeding(*names):
    return SimpleNamespace(directions=Directions(feeds=names))


def test_who_comes_is_counted_once_and_not_before_the_last_that_it_reads_has_ended():
    a, b, plain = feeding("x", "y"), feeding("x"), feeding()
    assert hop.coming([a], [], 1.0) == 2
    assert hop.coming([a, b], [plain], 1.0) == 2
    assert hop.coming([a], [b], 1.0) == 1
    assert hop.coming([b], [a], 1.0) == 0
    assert hop.coming([plain], [], 1.0) == 0


def test_nobody_is_held_up_for_longer_in_all_than_who_comes_would_be():
    step = 10 * hop.USUAL
    assert hop.coming([feeding("x")], [feeding()] * 9, step) == 1
    assert hop.coming([feeding("x")], [feeding()] * 10, step) == 0
    assert hop.coming([feeding("x", "y")], [feeding()] * 19, step) == 2


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, Channel(theirs)


def test_the_commands_before_a_call_that_comes_do_not_end_the_wait(ends, ask):
    ours, channel = ends
    ours.sendall(encode_commands([Cancel(1)]))
    late = threading.Timer(0.05, lambda: ours.sendall(encode_commands([Generate(2, ask("Hello"), 0.0)])))
    late.start()
    assert [c.id for c in channel.receive(wait=False, coming=1, patience=60.0)] == [1, 2]
    late.join()


def test_who_does_not_come_is_not_waited_for_any_longer(ends, ask):
    ours, channel = ends
    assert channel.receive(wait=False, coming=1, patience=0.01) == []
    ours.sendall(encode_commands([Generate(2, ask("Hello"), 0.0)]))
    assert [c.id for c in channel.receive(wait=True, coming=2, patience=0.01)] == [2]
    ours.close()
    with pytest.raises(EOFError):
        channel.receive(wait=False, coming=1, patience=60.0)


def test_the_loop_says_who_comes_after_each_step(tiny, bench, ask, monkeypatch):
    monkeypatch.setattr(hop, "USUAL", 0.0)  # whatever a step takes here
    b = bench(tiny("llama"))
    for text, tokens, names in (("One", 3, ("x",)), ("Two", 5, ("x", "y")), ("Three", 9, ())):
        b.submit(ask(text, tokens), Directions(feeds=names))
    said = {}
    while b.loop.busy:
        ended = [reply.id for reply in b.loop.step() if isinstance(reply, Finished)]
        assert ended or not b.loop.coming
        said |= dict.fromkeys(ended, b.loop.coming)
    assert said == {1: 0, 2: 2, 3: 0}
