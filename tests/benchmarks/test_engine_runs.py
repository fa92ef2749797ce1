"""A run over engines of which some are missing, die, answer something else, or never answer: rows, not gaps."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from engines import accuracy, check, drive
from engines.check import Expected
from engines.results import Results
from engines.table import into, text, values
from engines.workloads import SHARED, WORKLOADS, Workload, decode
from peers.client import Answer
from peers.peer import Peer, Setup
from peers.process import PeerFailed, Process, free_port

SETUP = Setup(Path("nowhere"), "float32", 1)
WORDS = ["one", "two", "three"]
ABOUT: dict[str, Any] = {
    "machine": {"processor": "abacus", "threads": 2, "cores": 2, "commit": "c0ffee", "date": "2026-01-01"},
    "settings": {"repeats": 2, "tiny": False, "dtype": ["float32"]},
}


class Fake:
    """Answers `text`; dies at request `dies`; a request number in `fails` is refused."""

    def __init__(self, name: str, *, text: str = "right", dies: int = -1, fails: tuple[int, ...] = ()) -> None:
        self.name, self._text, self._dies, self._fails, self.asked = name, text, dies, fails, 0

    def together(self, prompts: list[str], tokens: int) -> list[Answer]:
        self.asked += 1
        if self.asked in self._fails or self.gone():
            raise PeerFailed("refused")
        step = 0.5 if self.name == "parrot" else 1.0
        return [Answer(self._text, 0.0, tuple(step * (i + 1) for i in range(tokens)), tokens, None) for _ in prompts]

    def gone(self) -> str | None:
        return "it ended with exit code 9" if 0 <= self._dies <= self.asked else None


def silent(_: str) -> None:
    pass


@pytest.fixture
def kept(tmp_path: Path) -> Results:
    return Results(tmp_path / "deep" / "results.json", **ABOUT)


def on_disk(kept: Results) -> dict[str, Any]:
    assert kept._path is not None
    found: dict[str, Any] = json.loads(kept._path.read_text())
    return found


def run(engines: list[Any], kept: Results, works: tuple[Workload, ...] = WORKLOADS) -> None:
    drive.measured(engines, works, SETUP, WORDS, 2, kept, silent)


def test_a_dead_engine_keeps_what_it_gave_and_a_row(kept: Results) -> None:
    dying = Fake("dying", dies=len(WORKLOADS) + 2)  # after the round that warms up, in the first one that counts
    engines: list[Any] = [Fake("parrot"), dying]
    run(engines, kept)
    assert [engine.name for engine in engines] == ["parrot"]
    assert [f["why"] for f in kept.data["failures"]] == ["it ended with exit code 9"]
    assert dying.asked == len(WORKLOADS) + 2, "asked again after its death"
    page = text(on_disk(kept))
    (row,) = [line for line in page.splitlines() if line.startswith("| dying ") and "failed" in line]
    assert "- dying, float32: it ended with exit code 9" in page
    assert row.count("failed") == len(WORKLOADS) - 1


def test_one_workload_that_fails_does_not_stop_the_others(kept: Results) -> None:
    picky = Fake("picky", fails=(2,))
    run([Fake("parrot"), picky], kept)
    assert [f["workload"] for f in kept.data["failures"]] == [WORKLOADS[1].key]
    assert len(values(kept.data, "float32", "picky", WORKLOADS[0].key)) == 2
    assert not values(kept.data, "float32", "picky", WORKLOADS[1].key), "tried again after it had failed"
    assert picky.asked == 3 * len(WORKLOADS) - 2


def test_ratios_are_of_pairs(kept: Results) -> None:
    run([Fake("parrot"), Fake("slow")], kept, (Workload("decode-1", "d", 1, 2, 8, decode),))
    assert "| slow | 2.00 [2.00, 2.00] |" in text(on_disk(kept))


class Missing(Peer):
    name = "missing"

    def missing(self) -> str | None:
        return "not installed: run `make peers`"

    def command(self, setup: Setup, model: Path, port: int) -> tuple[list[str], dict[str, str]]:
        raise AssertionError("started though it is missing")


class Broken(Peer):
    name = "broken"

    def command(self, setup: Setup, model: Path, port: int) -> tuple[list[str], dict[str, str]]:
        return [sys.executable, "-c", "import sys; sys.exit('no such model')"], {}


def test_what_can_not_be_started_is_a_row(kept: Results, tmp_path: Path) -> None:
    with drive.started([Missing(tmp_path), Broken(tmp_path)], SETUP, kept, silent) as engines:
        assert engines == []
    why = {f["engine"]: f["why"] for f in on_disk(kept)["failures"]}
    assert why["missing"] == "not installed: run `make peers`"
    assert "exit code 1: no such model" in why["broken"]
    page = text(on_disk(kept))
    assert all(f"| {name} " in page for name in ("missing", "broken"))


def test_an_uninstalled_peer_says_what_to_do(tmp_path: Path) -> None:
    from peers import PEERS

    for name, peer in PEERS.items():
        why = peer(tmp_path).missing()
        assert (why is None) == (name == "parrot")
        assert why is None or "make peers" in why


def test_another_text_is_said_in_its_row(kept: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [Expected("right", 3, True)] * check.PROMPTS
    monkeypatch.setattr(check, "reference", lambda *_: expected)
    engines: list[Any] = [Fake("parrot"), Fake("liar", text="wrong"), Fake("mute", fails=(1,))]
    drive.checked(engines, SETUP, WORDS, kept, silent)
    run(engines, kept, WORKLOADS[:1])
    assert kept.data["checks"]["parrot"]["same"]
    page = text(on_disk(kept))
    assert "| liar (ANOTHER TEXT) |" in page
    assert "'wrong', not 'right'" in page
    assert "| mute |" in page
    assert kept.data["checks"].get("mute") is None
    assert "- mute, float32: refused" in page


def test_near_ties_end_the_comparison_and_nothing_else_does() -> None:
    sure, tied = Expected("abc", 3, True), Expected("ab", 2, False)
    assert check.difference([sure, tied], ["abc", "abXY"]) is None
    assert check.difference([sure], ["abcd"]) is not None, "longer than it was to be"
    assert check.difference([sure], ["ab"]) is not None
    assert check.difference([tied], ["aX"]) is not None


def test_an_interrupted_run_keeps_what_it_has(kept: Results) -> None:
    class Interrupting(Fake):
        def together(self, prompts: list[str], tokens: int) -> list[Answer]:
            if self.asked == len(WORKLOADS) + 2:
                raise KeyboardInterrupt
            return super().together(prompts, tokens)

    with pytest.raises(KeyboardInterrupt):
        run([Interrupting("parrot")], kept)
    found = on_disk(kept)
    assert len(found["runs"]) == 2
    assert not found["finished"]
    assert "INTERRUPTED" in text(found)


def test_the_page_keeps_what_stands_around_the_tables() -> None:
    page = "before\n<!-- measured -->\nold\n<!-- end -->\nafter\n"
    once = into(page, "| new |")
    assert once == into(once, "| new |")
    assert "old" not in once
    assert once.startswith("before\n")
    assert once.endswith("after\n")


def test_a_process_is_stopped_with_its_children(tmp_path: Path) -> None:
    port, pipe, log = free_port(), tmp_path / "pipe", tmp_path / "log"
    os.mkfifo(pipe)
    deaf = f"import signal as s; s.signal(s.SIGTERM, s.SIG_IGN); held = open({str(pipe)!r}, 'w'); s.pause()"
    script = (
        "import subprocess, sys, http.server as h\n"
        f"subprocess.Popen([sys.executable, '-c', {deaf!r}])\n"
        f"h.HTTPServer(('127.0.0.1', {port}), h.SimpleHTTPRequestHandler).serve_forever()\n"
    )
    with Process([sys.executable, "-c", script], {}, log, port=port, health="/", patience=60) as process:
        held = pipe.open()
        assert process.ended() is None
    assert "ended with exit code -15" in (process.ended() or "")
    with held:
        assert held.read() == "", "its end comes when no process has it open to write"


def test_a_process_that_is_frozen_computes_nothing_and_can_be_stopped(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    script = (
        "import threading, time, http.server as h\n"
        "threading.Thread(target=lambda: [time.sleep(0.001) for _ in iter(int, 1)], daemon=True).start()\n"
        f"h.HTTPServer(('127.0.0.1', {port}), h.SimpleHTTPRequestHandler).serve_forever()\n"
    )
    with Process([sys.executable, "-c", script], {}, log, port=port, health="/", patience=60) as process:
        about = psutil.Process(process._process.pid)
        process.freeze()
        while about.status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        switches = about.num_ctx_switches()
        time.sleep(0.1)
        assert about.num_ctx_switches() == switches
        process.thaw()
        while about.num_ctx_switches() == switches:
            time.sleep(0.01)
        process.freeze()
    assert "ended with exit code -15" in (process.ended() or "")
    process.freeze()  # of one that has ended: nothing


def test_a_way_of_sharing_that_fails_is_a_row(kept: Results) -> None:
    for repeat, rate in enumerate((40.0, 44.0)):
        kept.run("float32", "shared", SHARED.key, repeat, rate, 2.0)
        kept.run("float32", "without tree attention", SHARED.key, repeat, 10.0, 6.0)
    kept.failure("float32", "nothing shared", SHARED.key, "out of memory")
    page = text(on_disk(kept))
    assert "| shared | 42 | 2.0 |  |" in page
    assert "| without tree attention | 10 | 6.0 | 4.20 [4.00, 4.40] |" in page
    assert "| nothing shared | failed |" in page


def test_attention_is_measured_through_the_kernels_that_are_served() -> None:
    shapes = {row["what"]: row for row in accuracy.measured("float32")}
    for row in shapes.values():
        assert 0 < row["ours_rms"] < 4 * row["sdpa_rms"] < 1e-6
