"""The demo of `parrot demo` (examples/langchain/harbour_log.py) on a server, and call by call on an engine itself."""

from __future__ import annotations

import random

from langchain_openai import ChatOpenAI

from semantic_parrot.adapters.langchain import ChatParrot
from semantic_parrot.examples import harbour_log

ENTRIES = 6
LIMIT = 10  # tokens of an answer


def texts(llm, words, log="log"):
    """What the map-reduce and the refine chain end in, for the entries of the `log` of that name."""
    entries = [" ".join(random.Random(f"{log} {i}").choices(words, k=30)) for i in range(ENTRIES)]
    return (
        harbour_log.map_reduce(llm).invoke({"entries": entries}),
        harbour_log.refine(llm, ENTRIES).invoke(harbour_log.refine_input(entries)),
    )


def lowered(server, words, log="log"):
    """(texts, round trips)"""
    before = server.requests()
    said = texts(ChatParrot(base_url=server.url, model="default", temperature=0, max_tokens=LIMIT), words, log)
    return said, server.requests() - before


def eager(url, model, words):
    """As any OpenAI client has it."""
    # Not every server knows max_completion_tokens, as ChatOpenAI would call it.
    more = {"max_tokens": LIMIT}
    return texts(ChatOpenAI(base_url=url, model=model, api_key="none", temperature=0, extra_body=more), words)
