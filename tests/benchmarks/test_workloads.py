"""The workloads: the same texts and arrivals for the same seed, and calls that are what the app then asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListChatModel

from peers.client import Answer
from proof.costs import Meter, Try, alone, best, bound
from semantic_parrot.core.simulator.costs import Costs
from workloads import WORKLOADS, arrivals
from workloads.job import Call, Job, at_once
from workloads.texts import Texts

TEXTS = Texts(["one", "two", "three"], lambda text: len(text.split()))
SCALE = 0.02


class Asked(BaseCallbackHandler):
    """The prompts of a model, as words."""

    run_inline = True

    def __init__(self) -> None:
        self.prompts: list[list[str]] = []

    def on_chat_model_start(self, _: Any, messages: Any, **__: Any) -> None:
        self.prompts.append([word for message in messages[0] for word in message.content.split()])


class KernelService:
    """Of a kernel; it notes its prompts in `asked`."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def into(self, kernel: Any) -> None:
        from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
        from semantic_kernel.contents import AuthorRole, ChatMessageContent

        asked = self._asked

        class Fake(ChatCompletionClientBase):
            async def _inner_get_chat_message_contents(self, chat_history: Any, settings: Any) -> Any:
                asked.prompts.append([word for m in chat_history.messages for word in m.content.split()])
                return [ChatMessageContent(role=AuthorRole.ASSISTANT, content=" answer ")]

        kernel.add_service(Fake(ai_model_id="fake", service_id="default"))


def jobs(key: str, seed: str, asked: Asked | None = None) -> list[Job]:
    work = WORKLOADS[key]
    sk = work.framework == "sk"
    given = KernelService(asked or Asked()) if sk else FakeListChatModel(responses=[" answer "])
    return work.jobs(given, TEXTS, SCALE, seed)


def inputs(found: list[Job]) -> list[Any]:
    return [(job.at, job.app, job.input, job.calls) for job in found]


@pytest.mark.parametrize("key", WORKLOADS)
def test_a_seed_is_a_workload(key: str) -> None:
    assert inputs(jobs(key, "a")) == inputs(jobs(key, "a"))
    assert inputs(jobs(key, "a")) != inputs(jobs(key, "b")), "caches would know the texts of other repetitions"


@pytest.mark.parametrize("key", WORKLOADS)
@pytest.mark.usefixtures("semantic_kernel")
def test_what_a_job_says_it_asks_for_is_what_its_app_asks_for(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls, and the words of their prompts but for answers; those are one word here."""

    async def at_once(_: float) -> None: ...

    monkeypatch.setattr("asyncio.sleep", at_once)
    asked = Asked()
    for job in jobs(key, "a", asked)[:6]:
        asked.prompts.clear()
        asyncio.run(job.chain.ainvoke(job.input, {"callbacks": [asked]}))
        assert len(asked.prompts) == len(job.calls)
        answers = [sum(word.startswith("answer") for word in prompt) for prompt in asked.prompts]
        assert sorted(answers) == sorted(len(call.reads) for call in job.calls)
        said = sorted(len(prompt) - own for prompt, own in zip(asked.prompts, answers, strict=True))
        asks = sorted(call.prompt - sum(job.calls[i].tokens for i in call.reads) for call in job.calls)
        joins = max(answers)  # what stands between answers is no word
        assert all(abs(words - tokens) <= 3 + joins for words, tokens in zip(said, asks, strict=True)), (said, asks)


def test_what_nobody_waits_for_is_told_to_the_model() -> None:
    told: dict[str, set[str]] = {}

    class Told(BaseCallbackHandler):
        run_inline = True

        def on_chat_model_start(self, *_: Any, metadata: dict[str, Any] | None = None, **__: Any) -> None:
            told.setdefault(app, set()).add((metadata or {}).get("parrot", {}).get("objective", "nothing"))

    for found in jobs("W6", "a"):
        app = found.app.removesuffix(" alone")
        found.chain.invoke(found.input, {"callbacks": [Told()]})
    assert told == {"chat": {"nothing"}, "map-reduce": {"throughput"}}


@pytest.mark.parametrize("key", WORKLOADS)
def test_calls_read_what_came_before_them(key: str) -> None:
    for job in jobs(key, "a"):
        assert all(i < at for at, call in enumerate(job.calls) for i in call.reads)
        assert all(call.tokens >= 1 and call.own >= 0 for call in job.calls)
        assert at_once(job.calls) >= max(call.prompt + call.tokens for call in job.calls)


def test_arrivals_have_the_rate_and_the_bursts_asked_for() -> None:
    for variation in (1.0, 2.0):
        at = arrivals.bursty(5.0, variation, 20_000, "seed")
        gaps = [b - a for a, b in zip([0.0, *at], at, strict=False)]
        assert fmean(gaps) == pytest.approx(0.2, rel=0.05)
        assert pstdev(gaps) / fmean(gaps) == pytest.approx(variation, rel=0.05)
    assert arrivals.poisson(5.0, 10, "seed") == arrivals.poisson(5.0, 10, "seed") != arrivals.poisson(5.0, 10, "other")


COSTS = Costs(base=1.0, each=0.0, token=0.0, prefill=0.01, chunk=1 << 30)


def job(*calls: Call, at: float = 0.0) -> Job:
    return Job(at, "", None, None, calls)


def test_costs_are_of_the_best_try_and_of_texts_that_no_cache_knows() -> None:
    asked: list[str] = []

    def ask(prompts: Sequence[str], tokens: int) -> list[Answer]:
        asked.extend(prompts)
        return [Answer("", 0.0, tuple(0.1 * (i + 1) for i in range(tokens)), None, None) for _ in prompts]

    texts = Texts(["one", "two"], lambda text: len(text.split()))
    tries = [Meter(ask, texts, 1024).measured("seed", when) for when in ("before", "after")]
    assert len(set(asked)) == len(asked) == 2 * (1 + 1 + 16)
    assert tries[0] == Try(pytest.approx(0.1 / 512), pytest.approx(0.1), pytest.approx(0.1))
    costs = best([Try(0.5, 3.0, 18.0), Try(1.0, 2.0, 32.0)])
    assert (costs.prefill, costs.step(1), costs.step(16)) == pytest.approx((0.5, 2.0, 18.0))


def test_the_bound_is_the_critical_path() -> None:
    chain = job(Call(100, 11), Call(61, 6, reads=(0,)))
    # Prefill of 100 and of 50 + 11 tokens, and 10 + 5 steps.
    assert bound([chain], COSTS) == pytest.approx(1.0 + 0.61 + 15, rel=1e-3)
    assert bound([job(Call(100, 11), at=3.0)], COSTS) == pytest.approx(3 + 1 + 10, rel=1e-3)


def test_what_a_job_takes_alone_does_not_depend_on_when_it_is_due() -> None:
    late, soon = (job(Call(100, 11), at=at) for at in (3.0, 0.0))
    assert alone(late, COSTS) == alone(soon, COSTS) == pytest.approx(11 / 11, rel=1e-3)
    assert alone(late, COSTS, 1.1) == pytest.approx(11 / 11 + 0.1, rel=1e-3)  # a round trip is part of it


def test_a_common_beginning_is_filled_once() -> None:
    shared = [job(Call(0, 1, begins=(("p", 100),))) for _ in range(4)]
    apart = [job(Call(100, 1)) for _ in range(4)]
    assert bound(shared, COSTS) == pytest.approx(1.0, rel=1e-2)
    assert bound(apart, COSTS) == pytest.approx(4.0, rel=1e-2)
