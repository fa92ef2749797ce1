"""W1, chain summary: a long document, one part after the other, each step with the summary so far."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough

from workloads import arrivals
from workloads.job import Call, Job, scaled
from workloads.texts import Texts

DOCUMENT, PART, ANSWER = 20_480, 1024, 50  # tokens, in the paper
FIRST = "Summarise the beginning of a document.\n{part_0}"
UPDATE = "Update the summary of a document with its next part.\nSummary:{summary}\nNext part:"
BACKGROUND, RATE, EACH = (512, 50), 3.5, 4  # tokens of prompt and answer; requests a second; of them for each step


def app(llm: BaseChatModel, parts: int, tokens: int) -> Runnable[Any, str]:
    """{"part_0": text, …} → summary; every answer of `tokens` tokens."""
    model = llm.bind(max_tokens=tokens)
    first = ChatPromptTemplate.from_template(FIRST) | model | StrOutputParser()
    chain: Runnable[Any, Any] = RunnablePassthrough.assign(summary=first)
    for i in range(1, parts):
        update = ChatPromptTemplate.from_template(f"{UPDATE}{{part_{i}}}") | model | StrOutputParser()
        chain = chain | RunnablePassthrough.assign(summary=update)
    return chain | itemgetter("summary")


def chain(llm: BaseChatModel, texts: Texts, scale: float, seed: str) -> Job:
    # Lengths shrink with the scale, and the number of parts by its root: a chain of few steps is none.
    parts, size, tokens = scaled(DOCUMENT / PART, scale**0.5, 5), scaled(PART, scale, 16), scaled(ANSWER, scale, 8)
    document = {f"part_{i}": texts.text(size, seed, i) for i in range(parts)}
    asks = [texts.count(ask) for ask in (FIRST.replace("{part_0}", ""), UPDATE.replace("{summary}", ""))]
    calls = [Call(size, tokens, begins=(("first", asks[0]),))]
    calls += [Call(tokens + size, tokens, (i,), (("update", asks[1]),)) for i in range(parts - 1)]
    return Job(0.0, "chain", app(llm, parts, tokens), document, tuple(calls))


def several(count: int) -> Any:
    """So many chains at once."""

    def jobs(llm: BaseChatModel, texts: Texts, scale: float, seed: str) -> list[Job]:
        return [chain(llm, texts, scale, f"{seed}/{i}") for i in range(count)]

    return jobs


def with_background(llm: BaseChatModel, texts: Texts, scale: float, seed: str) -> list[Job]:
    """A chain beside requests that have nothing to do with it: the paper's highest rate, and at smaller scales sooner,
    by the scale's root."""
    own = chain(llm, texts, scale, seed)
    prompt, tokens = (scaled(size, scale, 8) for size in BACKGROUND)
    ask = ChatPromptTemplate.from_template("{question}") | llm.bind(max_tokens=tokens) | StrOutputParser()
    found = [own]
    for i, at in enumerate(arrivals.poisson(RATE * scale**-0.5, EACH * len(own.calls), seed, "background")):
        question = {"question": texts.text(prompt, seed, "background", i)}
        found.append(Job(at, "background", ask, question, (Call(prompt, tokens),)))
    return found
