"""Every example as a user runs it, on the demo model: the right answers, the same as eager, in fewer round trips."""

from __future__ import annotations

import json
import random
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from live import LiveServer

from semantic_parrot.adapters.langchain import ChatParrot, disabled
from semantic_parrot.core.demo_model import world

pytestmark = pytest.mark.skipif(find_spec("torch") is None, reason="needs torch")

DIRECTORY = Path(__file__).parents[2] / "examples" / "langchain"


@pytest.fixture(scope="module")
def demo():
    with LiveServer("--deterministic", "--no-single-flight") as server:
        yield server


def entries(n):
    return world.records(random.Random(7), n)


def harbour_log(out):
    report = world.report(entries(4))
    assert out == f"map-reduce: {report}\nrefine:     {report}\n"


def rag(out):
    known = {entry.item for entry in entries(12)}
    for line, question in zip(out.splitlines(), ("Who brings slate? ", "Which tanker left? "), strict=True):
        found = line.removeprefix(question).removesuffix(".").split("; ")
        assert len(set(found)) == 3
        assert set(found) <= known


def router(out):
    arrived = {True: lambda entry: world.translate(world.report([entry])), False: lambda entry: entry.summary}
    assert out.splitlines() == [arrived[entry.event == "arrival"](entry) for entry in entries(4)]


def classify(out):
    assert [json.loads(line) for line in out.splitlines()] == [json.loads(entry.json) for entry in entries(8)]


def agent(out):
    asked, called, found, _answer = out.split("\n", 3)
    assert asked.startswith("human: Summarise")
    ordinal = re.search(r"'entry_of', \{.*'ordinal': '(\w+)'", called)[1]
    assert found == f"tool: {entries(3)[('first', 'second', 'third').index(ordinal)].text}"


def reviewer(out):
    assert [line.partition(":")[0] for line in out.splitlines()] == ["write", "review"] * 3
    assert world.report(entries(4)) in out.splitlines()[-2]


def coding_team(out):
    assert re.findall(r"^### (\S+)$", out, re.MULTILINE) == ["board.py", "rules.py", "main.py"]


#: What it must print, and its round trips, eager and as programs.
EXAMPLES = {
    "harbour_log": (harbour_log, 9, 2),
    "rag": (rag, 8, 2),
    "router": (router, 14, 8),
    "classify": (classify, 8, 1),
    "agent": (agent, 2, 2),
    "reviewer": (reviewer, 17, 6),
    "coding_team": (coding_team, 16, 1),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example(name, demo, monkeypatch, capsys, tmp_path):
    expect, *promised = EXAMPLES[name]
    if name == "agent":
        pytest.importorskip("langchain.agents.middleware", reason="needs langchain 1")
    monkeypatch.setenv("PARROT_BASE_URL", demo.url)
    (tmp_path / "log.txt").write_text(world.day(seed=7, n=4))
    monkeypatch.setattr(sys, "argv", [name, str(tmp_path / "log.txt")])  # which only harbour_log takes
    module = import_module(f"semantic_parrot.examples.{name}")
    said, trips = [], []
    for eager in (True, False):
        before = demo.requests()
        if eager:
            with disabled():
                module.main()
        else:
            module.main()
        trips.append(demo.requests() - before)
        said.append(capsys.readouterr().out)
    expect(said[0])
    assert said[1] == said[0]
    assert trips == promised


def test_the_service_streams(demo):
    from starlette.testclient import TestClient

    from semantic_parrot.examples.service import service

    client = TestClient(service(ChatParrot(base_url=demo.url, temperature=0, max_tokens=200)))
    before = demo.requests()
    with client.stream("POST", "/report", content=world.day(seed=7, n=4)) as response:
        assert "".join(response.iter_text()) == world.report(entries(4))
    assert demo.requests() - before == 1


def test_each_example_is_run_here_and_imports_its_model_in_one_line():
    files = {path.stem: path.read_text() for path in DIRECTORY.glob("*.py")}
    assert files.keys() == EXAMPLES.keys() | {"service"}
    for name, text in files.items():
        imports = re.findall(r"^.*\bimport ChatParrot\b.*$", text, re.MULTILINE)
        assert imports == ["    from semantic_parrot.adapters.langchain import ChatParrot"], name
