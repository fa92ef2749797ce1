"""`make peers`: what is done is not done again, and what fails says so and is taken up where it stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import peers
from peers import install
from peers.peer import Peer, Setup
from peers.process import PeerFailed, once
from peers.recipe import Recipe, Step


def writes(name: str, folder: Path, *, fails: bool = False) -> Step:
    code = f"open({name!r}, 'a').write('x'); " + ("raise SystemExit('disk full')" if fails else "")
    return Step(f"making {name}", [sys.executable, "-c", code], folder)


@pytest.fixture
def failing() -> list[bool]:
    """Whether the second step of the peer fails."""
    return [True]


@pytest.fixture(autouse=True)
def peer(failing: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    def steps(folder: Path) -> Sequence[Step]:
        first = writes("first", folder)
        first = Step(first.what, first.argv, folder, done=(folder / "first").exists)
        return [first, writes("second", folder, fails=failing[0])]

    class Toy(Peer):
        name = "toy"
        recipe = Recipe("1.0", steps)

        def command(self, setup: Setup, model: Path, port: int) -> tuple[list[str], dict[str, str]]:
            raise AssertionError

    monkeypatch.setitem(peers.PEERS, "toy", Toy)


def test_a_failure_is_taken_up_where_it_stopped(
    tmp_path: Path, failing: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    assert not install.install("toy", tmp_path)
    said = capsys.readouterr().out
    assert "exit code 1: disk full" in said
    assert str(tmp_path / "toy" / "install.log") in said
    assert peers.PEERS["toy"](tmp_path).missing() is not None
    failing[0] = False
    assert install.install("toy", tmp_path)
    assert (tmp_path / "toy" / "first").read_text() == "x", "done twice"
    assert peers.PEERS["toy"](tmp_path).missing() is None
    assert install.install("toy", tmp_path)
    assert (tmp_path / "toy" / "second").read_text() == "xx", "done again though it was whole"


def test_a_command_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(install.Failed, match="no-such-tool"):
        install.run(Step("", ["no-such-tool"], tmp_path), tmp_path / "log")


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "model"
    fails = "import sys; open(sys.argv[1], 'w').write('half'); sys.exit('bad tensor')"
    with pytest.raises(PeerFailed, match="bad tensor"):
        once(target, lambda new: [sys.executable, "-c", fails, str(new)])
    assert list(tmp_path.iterdir()) == []
    works = "import sys; open(sys.argv[1], 'x').write('whole')"
    for _ in range(2):
        once(target, lambda new: [sys.executable, "-c", works, str(new)])
    assert target.read_text() == "whole"
