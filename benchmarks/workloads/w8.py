"""W8, plain: people who chat, nothing in common."""

from __future__ import annotations

from random import Random
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable

from workloads import arrivals
from workloads.job import Call, Job, scaled
from workloads.texts import Texts

PROMPTS, ANSWERS, CHATS = (64, 1024), (32, 512), 100


def app(llm: BaseChatModel, tokens: int) -> Runnable[Any, str]:
    """{"message": text} → answer of `tokens` tokens."""
    return ChatPromptTemplate.from_template("{message}") | llm.bind(max_tokens=tokens) | StrOutputParser()


def chat(llm: BaseChatModel, texts: Texts, scale: float, rng: Random, at: float, seed: str) -> Job:
    size, tokens = scaled(rng.uniform(*PROMPTS), scale, 8), scaled(rng.uniform(*ANSWERS), scale, 8)
    message = {"message": texts.text(size, seed)}
    return Job(at, "chat", app(llm, tokens), message, (Call(size, tokens),), stream=True)


def jobs(llm: BaseChatModel, texts: Texts, scale: float, seed: str) -> list[Job]:
    """At scale 1 one a second, at smaller ones sooner, by the scale's root."""
    rng, count = Random(seed), scaled(CHATS, scale**0.5, 8)
    times = arrivals.poisson(scale**-0.5, count, seed, "at")
    return [chat(llm, texts, scale, rng, at, f"{seed}/{i}") for i, at in enumerate(times)]
