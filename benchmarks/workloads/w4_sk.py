"""W4 on Semantic Kernel: four apps, each a function with a long prompt of its own, whose users come at random."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda

from workloads import w4
from workloads.job import Job, Service
from workloads.texts import Texts


def app(service: Service, system: str, tokens: int) -> Callable[[dict[str, str]], Awaitable[str]]:
    """{"question": text} → answer of `tokens` tokens."""
    from semantic_kernel import Kernel
    from semantic_kernel.connectors.ai.open_ai import OpenAIChatPromptExecutionSettings

    kernel = Kernel()
    service.into(kernel)
    settings = OpenAIChatPromptExecutionSettings(max_tokens=tokens, temperature=0.0)
    prompt = f'<message role="system">{system}</message><message role="user">{{{{$question}}}}</message>'
    ask = kernel.add_function("gpt", function_name="ask", prompt=prompt, prompt_execution_settings=settings)

    async def run(given: dict[str, str]) -> str:
        return str(await kernel.invoke(ask, **given))

    return run


def jobs(service: Service, texts: Texts, scale: float, seed: str) -> list[Job]:
    """Those of W4: the same texts, at the same times."""
    found: list[Job] = []
    chains: dict[str, Any] = {}
    for job in w4.jobs(FakeListChatModel(responses=[""]), texts, scale, seed):
        if job.app not in chains:
            ((_, size),) = job.calls[0].begins
            system = texts.text(size, seed, "system", int(job.app.removeprefix("gpt")))
            chains[job.app] = _first_used(service, system, job.calls[0].tokens)
        found.append(replace(job, chain=chains[job.app], stream=False))
    return found


def _first_used(service: Service, system: str, tokens: int) -> RunnableLambda[dict[str, str], str]:
    """The app, made when it is first called."""
    made: list[Callable[[dict[str, str]], Awaitable[str]]] = []

    async def run(given: dict[str, str]) -> str:
        if not made:
            made.append(app(service, system, tokens))
        return await made[0](given)

    return RunnableLambda(run)
