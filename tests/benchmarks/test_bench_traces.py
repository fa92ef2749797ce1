"""Others' traces: what is in the file is what is sent, and what can't be sent as it says is refused by its line."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListChatModel

from workloads import workload
from workloads.job import Job
from workloads.texts import Texts

TEXTS = Texts(["one", "two"], lambda text: len(text.split()))
LLM = FakeListChatModel(responses=[f"a{i}" for i in range(20)])


def jobs(path: Path, scale: float = 1.0) -> list[Job]:
    return workload(str(path)).jobs(LLM, TEXTS, scale, "seed")


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "burst.csv"
    rows = ["Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"]
    rows += ["5,ChatGPT,472,18,490,Conversation log", "45,ChatGPT,1087,230,1317,API log", "60,GPT-4,10,0,10,API log"]
    path.write_text("\n".join(rows))
    return path


def test_a_row_is_a_request_and_one_that_failed_is_none(csv: Path) -> None:
    first, second = jobs(csv)
    assert [first.at, second.at] == [0.0, 40.0]
    assert [(c.own, c.tokens) for job in (first, second) for c in job.calls] == [(472, 18), (1087, 230)]
    assert len(second.input["message"].split()) == 1087


def test_a_scale_shortens_a_trace(csv: Path) -> None:
    _, second = jobs(csv, 0.25)
    assert second.at == pytest.approx(20.0)
    assert [(c.own, c.tokens) for c in second.calls] == [(272, 58)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Timestamp,Request tokens\n1,2", "no column 'Response tokens'"),
        ("Timestamp,Request tokens,Response tokens\n1,2,3\n1,many,3", "line 3: invalid literal"),
        ("Timestamp,Request tokens,Response tokens\n1,2,0", "no request that has an answer"),
    ],
)
def test_a_csv_that_is_none(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(ValueError, match=why):
        workload(str(tmp_path / "bad.csv"))


def turn(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 5, **more}


PLAN = [
    {"session_id": "plan", "turns": [turn("one goal", spawns=["a", "b"]), turn("merge", forks=["end"])]},
    {"session_id": "a", "turns": [turn("do a")]},
    {"session_id": "b", "turns": [turn("do b"), turn("more b", delay=3000.0)]},
    {"session_id": "end", "turns": [turn("good bye")]},
    {"session_id": "other", "turns": [turn("hello")]},
]


def dag(path: Path, *sessions: dict[str, Any]) -> Path:
    path.write_text("\n".join(json.dumps(session) for session in sessions))
    return path


class Asked(BaseCallbackHandler):
    run_inline = True

    def __init__(self) -> None:
        self.prompts: list[list[str]] = []

    def on_chat_model_start(self, _: Any, messages: Any, **__: Any) -> None:
        self.prompts.append([message.content for message in messages[0]])


def test_sessions_fork_and_spawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    real = asyncio.sleep

    async def asleep(seconds: float) -> None:
        slept.append(seconds)
        await real(0)

    monkeypatch.setattr("asyncio.sleep", asleep)
    plan, other = jobs(dag(tmp_path / "plan.jsonl", *PLAN))
    assert other.input == "other"
    asked = Asked()
    found = asyncio.run(plan.chain.ainvoke(plan.input, {"callbacks": [asked]}))
    assert sorted(found) == ["plan", "plan/0.a", "plan/0.b", "plan/1.end"]
    said = [[text for text in prompt if " " in text or text == "merge"] for prompt in asked.prompts]
    assert sorted(said) == sorted(
        [["one goal"], ["do a"], ["do b"], ["do b", "more b"], ["one goal", "merge"], ["one goal", "merge", "good bye"]]
    )
    assert 3.0 in slept
    order = [prompt[-1] for prompt in asked.prompts]
    assert order.index("merge") > order.index("more b"), "what was spawned is waited for"
    assert order[-1] == "good bye"


def test_the_calls_of_a_session_wait_for_each_other(tmp_path: Path) -> None:
    plan, _ = jobs(dag(tmp_path / "plan.jsonl", *PLAN))
    goal, a, b, more, merge, end = plan.calls
    assert (goal.reads, a.reads, b.reads, more.reads) == ((), (0,), (0,), (2,))
    assert merge.reads == (0, 1, 3)
    assert (end.reads, end.prompt) == ((4,), 2 + 5 + 1 + 5 + 2)
    assert more.after == 3.0
    assert end.begins[: len(merge.begins)] == merge.begins


@pytest.mark.parametrize(
    ("sessions", "why"),
    [
        ([{"session_id": "s", "turns": []}], "line 1: turns: "),
        ([{"session_id": "s", "turns": [turn("x", tools=[])]}], "line 1: turns.0.tools: Extra inputs"),
        ([{"session_id": "s", "turns": [turn("x", forks=["t"])]}], "starts 't', which is not there"),
        ([{"session_id": "s", "turns": [turn("x", spawns=["s"])]}], "'s' starts itself"),
        ([PLAN[1], PLAN[1]], "line 2: a second session 'a'"),
        ([{"session_id": "s", "orchestrator": True, "turns": [turn("x")]}], "orchestrator: Extra inputs"),
        ([], "no session"),
    ],
)
def test_a_dag_that_is_none(tmp_path: Path, sessions: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        workload(str(dag(tmp_path / "bad.jsonl", *sessions)))
