"""W2 on Semantic Kernel: the merging prompt's template calls the summarising one, for each part of a document.
(Semantic Kernel renders a template's calls one after the other.)"""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import RunnableLambda

from workloads.job import Call, Job, Service, scaled
from workloads.texts import Texts
from workloads.w2 import MERGE, PARTS, SUMMARISE


def app(service: Service, tokens: int) -> Any:
    """A kernel whose function docs.merge takes part_0, part_1, …; every answer of `tokens` tokens."""
    from semantic_kernel import Kernel
    from semantic_kernel.connectors.ai.open_ai import OpenAIChatPromptExecutionSettings

    kernel = Kernel()
    service.into(kernel)
    settings = OpenAIChatPromptExecutionSettings(max_tokens=tokens, temperature=0.0)
    every = "\n".join(f"{{{{docs.summarise part=$part_{i}}}}}" for i in range(PARTS))
    for name, prompt in (("summarise", SUMMARISE + "{{$part}}"), ("merge", MERGE + every)):
        kernel.add_function("docs", function_name=name, prompt=prompt, prompt_execution_settings=settings)
    return kernel


def jobs(service: Service, texts: Texts, scale: float, seed: str) -> list[Job]:
    size, tokens = scaled(1024, scale, 16), scaled(50, scale, 8)
    document = {f"part_{i}": texts.text(size, seed, i) for i in range(PARTS)}

    async def run(given: dict[str, str]) -> str:
        kernel = app(service, tokens)
        return str(await kernel.invoke(plugin_name="docs", function_name="merge", **given))

    calls = [Call(size, tokens, begins=(("summarise", texts.count(SUMMARISE)),)) for _ in range(PARTS)]
    merged = PARTS * tokens + PARTS - 1
    calls.append(Call(merged, tokens, tuple(range(PARTS)), (("merge", texts.count(MERGE)),)))
    return [Job(0.0, "map-reduce", RunnableLambda(run), document, tuple(calls))]
