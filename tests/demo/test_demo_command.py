"""`parrot demo` as a user runs it: a real server, a real model, a child process."""

import json
import subprocess
import sys

import pytest

PARROT = [sys.executable, "-m", "semantic_parrot.server.cli"]


def demo(*args, cwd):
    return subprocess.run([*PARROT, "demo", *args], capture_output=True, text=True, timeout=240, cwd=cwd)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    place = tmp_path_factory.mktemp("demo")
    return place, demo("--json", "--repeats", "1", "--rtt", "20", cwd=place)


def test_the_same_text_in_fewer_round_trips(ran):
    _, done = ran
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["same_text"] is True
    assert set(told["workloads"]) == {"map_reduce", "chain"}
    for name, eager in (("map_reduce", 13), ("chain", 12)):
        workload = told["workloads"][name]
        assert workload["same_text"] is True
        assert (workload["eager"]["round_trips"], workload["lowered"]["round_trips"]) == (eager, 1)
    for way in ("eager", "lowered"):
        assert told[way]["round_trips"] == sum(w[way]["round_trips"] for w in told["workloads"].values())
        assert told[way]["prompt_tokens_computed"] > 0
        assert told[way]["seconds"] > 0


def test_the_page_stands_alone(ran):
    place, _ = ran
    page = (place / "report.html").read_text()
    assert page.count("<svg") == 4
    for part in ("same text", "Map-reduce over 12 entries", "Chain of 12 steps", "Summarise this entry"):
        assert part in page
    assert "<script" not in page
    assert "http" not in page


def test_a_text_of_the_users_own(tmp_path):
    (tmp_path / "notes.txt").write_text("The tug left.\n\nThe ferry came.\n\nFog.\n")
    done = demo("notes.txt", "--repeats", "1", "--max-tokens", "20", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for part in ("Map-reduce over 3 entries", "same text both ways", "text3", "report.html", "speed-up"):
        assert part in done.stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nowhere.txt"], "nowhere.txt"),
        (["empty.txt"], "empty.txt is empty"),
        (["--model", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_run_is_one_line_and_exit_2(tmp_path, args, words):
    (tmp_path / "empty.txt").write_text("\n")
    done = demo(*args, "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
