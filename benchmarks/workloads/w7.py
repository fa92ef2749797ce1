"""W7, tool agents: sessions of many turns whose prompt grows by each answer and each tool's result; tools take their
time. The loop is the app's own code, as agents are written."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda

from workloads.job import Call, Job, scaled
from workloads.texts import Texts

SESSIONS, TURNS, SYSTEM, GOAL = 64, (20, 43), 1500, 200
ANSWERS, RESULTS, GAPS = (40, 200), (100, 1200), (0.1, 5.0)  # tokens, tokens, seconds


def app(llm: BaseChatModel) -> Runnable[Any, str]:
    """{"system": text, "goal": text, "turns": [(tokens, seconds, result), …]} → the last answer. A turn: the model
    answers with so many tokens, and its tool takes the seconds for the result."""

    async def loop(given: dict[str, Any], config: RunnableConfig) -> str:
        messages: list[BaseMessage] = [SystemMessage(given["system"]), HumanMessage(given["goal"])]
        text = ""
        for tokens, seconds, result in given["turns"]:
            answer = await llm.bind(max_tokens=tokens).ainvoke(messages, config)
            text = str(answer.content)
            if result:
                await asyncio.sleep(seconds)
                messages += [AIMessage(text), HumanMessage(result)]
        return text

    return RunnableLambda(loop)


def jobs(llm: BaseChatModel, texts: Texts, scale: float, seed: str) -> list[Job]:
    rng = Random(seed)
    own, ask = scaled(SYSTEM, scale, 32), scaled(GOAL, scale, 8)
    system = texts.text(own, seed, "system")
    found = []
    for session in range(scaled(SESSIONS, scale, 4)):
        count = scaled(rng.randint(*TURNS), scale**0.5, 4)
        turns: list[tuple[int, float, str]] = []
        calls: list[Call] = []
        begins, new, gap = (("system", own),), ask, 0.0
        for i in range(count):
            tokens, size = scaled(rng.uniform(*ANSWERS), scale, 8), scaled(rng.uniform(*RESULTS), scale, 16)
            calls.append(Call(new, tokens, tuple(range(i)), begins, gap))
            # The next prompt is this one, with its answer and what the tool says.
            begins, new = (*begins, (f"{session}.{i}", new + tokens)), size
            gap = scale**0.5 * rng.uniform(*GAPS) if i < count - 1 else 0.0
            turns.append((tokens, gap, texts.text(size, seed, session, i) if i < count - 1 else ""))
        given = {"system": system, "goal": texts.text(ask, seed, session, "goal"), "turns": turns}
        found.append(Job(0.0, "tools", app(llm), given, tuple(calls)))
    return found
