"""W2, map-reduce summary: the parts of a document summarised at once, and their summaries merged into one."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda

from workloads.job import Call, Job, scaled
from workloads.texts import Texts

SUMMARISE = "Summarise this part of a document.\n"
MERGE = "Merge these summaries into one.\n"
PARTS = 16


def app(llm: BaseChatModel, tokens: int) -> Runnable[Any, str]:
    """{"parts": [text, …]} → summary; every answer of `tokens` tokens."""
    model = llm.bind(max_tokens=tokens)
    summarise = ChatPromptTemplate.from_template(SUMMARISE + "{part}") | model | StrOutputParser()
    merge = ChatPromptTemplate.from_template(MERGE + "{summaries}") | model | StrOutputParser()
    return (
        RunnableLambda(itemgetter("parts"))
        | summarise.map()
        | (lambda summaries: {"summaries": "\n".join(summaries)})
        | merge
    )


def job(llm: BaseChatModel, texts: Texts, scale: float, seed: str, at: float = 0.0) -> Job:
    size, tokens = scaled(1024, scale, 16), scaled(50, scale, 8)
    parts = [texts.text(size, seed, i) for i in range(PARTS)]
    ask = texts.count(SUMMARISE)
    calls = [Call(size, tokens, begins=(("summarise", ask),)) for _ in parts]
    merged = PARTS * tokens + PARTS - 1  # and what stands between them
    calls.append(Call(merged, tokens, tuple(range(PARTS)), (("merge", texts.count(MERGE)),)))
    return Job(at, "map-reduce", app(llm, tokens), {"parts": parts}, tuple(calls))


def jobs(llm: BaseChatModel, texts: Texts, scale: float, seed: str) -> list[Job]:
    return [job(llm, texts, scale, seed)]
