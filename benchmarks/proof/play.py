"""Jobs played as they are due, and what came of each; and what a server of ours counted meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.request import Request, urlopen

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import LLMResult

from peers.process import PeerFailed
from workloads.job import Job
from workloads.measure import Outcome

PATIENCE = 900.0  # seconds for all jobs of a repetition


class Usage(BaseCallbackHandler):
    """What the servers say that answers had, added up."""

    run_inline = True

    def __init__(self) -> None:
        self.calls = self.told = self.tokens = self.prompt = 0

    def add(self, other: Usage) -> None:
        self.calls, self.told = self.calls + other.calls, self.told + other.told
        self.tokens, self.prompt = self.tokens + other.tokens, self.prompt + other.prompt

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        self.calls += 1
        usage = getattr(response.generations[0][0], "message", None)
        usage = usage and usage.usage_metadata
        if usage:
            self.told += 1
            self.tokens += usage["output_tokens"]
            self.prompt += usage["input_tokens"]


async def play(jobs: Sequence[Job], usage: Usage, spent: Callable[[], int] | None = None) -> list[Outcome]:
    """Raises PeerFailed for a job that fails, or for answers of another length than asked for. `spent`: tokens of
    answers until now, where no callback tells them."""
    before = spent() if spent is not None else 0
    start = time.perf_counter()
    clock = lambda: time.perf_counter() - start  # noqa: E731
    try:
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            tasks = [group.create_task(_one(job, clock, usage)) for job in jobs]
    except TimeoutError:
        raise PeerFailed(f"it took more than {PATIENCE:.0f} s") from None
    except ExceptionGroup as group_of:
        error = group_of.exceptions[0]
        raise PeerFailed(_said(error)) from error
    outcomes = [task.result() for task in tasks]
    if spent is not None:
        usage.calls = usage.told = sum(len(job.calls) for job in jobs)
        usage.tokens = spent() - before
    check(jobs, usage)
    return outcomes


def _said(error: BaseException | None) -> str:
    """What it says, and what caused it: the OpenAI client says "Connection error." whatever became of a connection."""
    said = []
    while error is not None:
        said.append(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        error = error.__cause__
    return ", from ".join(said)


def check(jobs: Sequence[Job], usage: Usage) -> None:
    """Whether the answers are as many and as long as asked for, as far as the server tells."""
    calls = sum(len(job.calls) for job in jobs)
    tokens = sum(call.tokens for job in jobs for call in job.calls)
    if usage.calls != calls:
        raise PeerFailed(f"the app made {usage.calls} calls instead of {calls}")
    if usage.told == usage.calls and usage.tokens != tokens:
        raise PeerFailed(f"its answers have {usage.tokens} tokens instead of {tokens}")


async def _one(job: Job, clock: Callable[[], float], usage: Usage) -> Outcome:
    await asyncio.sleep(job.at - clock())
    began, config = clock(), {"callbacks": [usage]}
    if not job.stream:
        text = await job.chain.ainvoke(job.input, config)
        return Outcome(job, began, clock(), _text(text))
    pieces, chunks = [], []
    async for piece in job.chain.astream(job.input, config):
        if piece:
            pieces.append(piece)
            chunks.append(clock())
    return Outcome(job, began, clock(), _text("".join(pieces)), tuple(chunks))


def _text(answer: Any) -> str:
    return answer if isinstance(answer, str) else json.dumps(answer, sort_keys=True)


COUNTERS = {
    "requests": "parrot_requests_total",
    "computed": "parrot_prompt_tokens_computed_total",
    "reused": "parrot_prompt_tokens_reused_total",
}


def counters(base: str) -> dict[str, int]:
    """Of a server of ours: requests that came, prompt tokens computed and reused."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, float] = {}
    with urlopen(f"{base}/metrics", timeout=60) as answer:
        for family in text_string_to_metric_families(answer.read().decode()):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0) + sample.value
    return {name: int(found[metric]) for name, metric in COUNTERS.items()}


def forget(base: str) -> None:
    """A server of ours starts as if it had seen nothing."""
    with urlopen(Request(f"{base}/reset_prefix_cache", b"", method="POST"), timeout=60):
        pass
