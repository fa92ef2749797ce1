"""A day's log made into one report, twice: by map-reduce, and by a refine chain. Ordinary LangChain code.

    python examples/langchain/harbour_log.py            # against `parrot serve` (make serve)
    python examples/langchain/harbour_log.py FILE       # any text

The one Parrot line is the import of the model class; with ChatOpenAI in its place the same code runs anywhere.
"""

from __future__ import annotations

import sys
from operator import itemgetter
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough

SUMMARISE = "Summarise this entry in one sentence:\n{text}"
MERGE = "Merge these summaries into one report:\n{summaries}"
UPDATE = "Report so far: {report}\nNew entry: {text}\nGive the updated report."
NOTHING_YET = "nothing yet"


def split(text: str, most: int = 12) -> list[str]:
    """The text's paragraphs as at most `most` entries of about equal length."""
    paragraphs = [p.strip() for p in text.split("\n\n") if p.strip()]
    size = -(-len(paragraphs) // most)
    return ["\n\n".join(paragraphs[i : i + size]) for i in range(0, len(paragraphs), max(size, 1))]


def map_reduce(llm: BaseChatModel) -> Runnable[Any, str]:
    """{"entries": [text, …]} -> report: every entry summarised, then the summaries merged."""
    summarise = ChatPromptTemplate.from_template(SUMMARISE) | llm | StrOutputParser()
    merge = ChatPromptTemplate.from_template(MERGE) | llm | StrOutputParser()
    return (
        RunnableLambda(itemgetter("entries"))
        | summarise.map()
        | (lambda summaries: {"summaries": "\n".join(summaries)})
        | merge
    )


def refine(llm: BaseChatModel, length: int) -> Runnable[Any, str]:
    """{"report": text, "entry_0": text, …} -> report: one entry after the other, `length` in all."""
    chain: Runnable[Any, Any] = RunnablePassthrough()
    for i in range(length):
        update = ChatPromptTemplate.from_template(UPDATE.replace("{text}", f"{{entry_{i}}}"))
        chain = chain | RunnablePassthrough.assign(report=update | llm | StrOutputParser())
    return chain | itemgetter("report")


def refine_input(entries: list[str]) -> dict[str, str]:
    """What `refine` takes for `entries`."""
    return {"report": NOTHING_YET, **{f"entry_{i}": entry for i, entry in enumerate(entries)}}


def main() -> None:
    from semantic_parrot.adapters.langchain import ChatParrot
    from semantic_parrot.core.demo_model import world

    text = Path(sys.argv[1]).read_text() if len(sys.argv) > 1 else world.day(seed=7, n=12)
    entries = split(text)
    llm = ChatParrot(temperature=0, max_tokens=200)
    print("map-reduce:", map_reduce(llm).invoke({"entries": entries}))
    print("refine:    ", refine(llm, len(entries)).invoke(refine_input(entries)))


if __name__ == "__main__":
    main()
