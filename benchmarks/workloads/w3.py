"""W3, copilot: many users of one app with a long system prompt, all at once; they read answers as they come."""

from __future__ import annotations

from random import Random
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable

from workloads.job import Call, Job, scaled
from workloads.texts import Texts

SYSTEM, QUESTION, ANSWERS, USERS = 6000, 50, (180, 800), 64  # tokens, and how many


def app(llm: BaseChatModel, system: str, tokens: int) -> Runnable[Any, str]:
    """{"question": text} → answer of `tokens` tokens."""
    prompt = ChatPromptTemplate.from_messages([("system", system), ("human", "{question}")])
    return prompt | llm.bind(max_tokens=tokens) | StrOutputParser()


def jobs(llm: BaseChatModel, texts: Texts, scale: float, seed: str) -> list[Job]:
    size, own = scaled(SYSTEM, scale, 64), scaled(QUESTION, scale, 8)
    system, rng = texts.text(size, seed, "system"), Random(seed)
    found = []
    for i in range(scaled(USERS, scale, 8)):
        tokens = scaled(rng.uniform(*ANSWERS), scale, 12)
        call = Call(own, tokens, begins=(("system", size),))
        question = {"question": texts.text(own, seed, i)}
        found.append(Job(0.0, "copilot", app(llm, system, tokens), question, (call,), stream=True))
    return found
