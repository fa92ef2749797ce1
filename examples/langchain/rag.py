"""Retrieval: the log's entries about a question are found, each is summarised, and the summaries are merged.

    python examples/langchain/rag.py            # against `parrot serve` (make serve)

The vector store and the embedding run here, in the app; the calls behind them run as one program.
"""

from __future__ import annotations

import re
import zlib
from math import sqrt
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable
from langchain_core.vectorstores import InMemoryVectorStore

SUMMARISE = "Summarise this entry in one sentence:\n{text}"
MERGE = "Merge these summaries into one report:\n{summaries}"


class WordEmbeddings(Embeddings):
    """Texts that share words are near each other. Enough for a log; no model and no network."""

    def __init__(self, size: int = 512) -> None:
        self._size = size

    def embed_query(self, text: str) -> list[float]:
        vector = [0.0] * self._size
        for word in set(re.findall(r"[a-z]+", text.lower())):
            vector[zlib.crc32(word.encode()) % self._size] = 1.0
        length = sqrt(sum(vector)) or 1.0
        return [value / length for value in vector]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


def texts_of(documents: list[Document]) -> list[dict[str, str]]:
    return [{"text": document.page_content} for document in documents]


def rag(llm: BaseChatModel, store: InMemoryVectorStore, found: int = 3) -> Runnable[str, str]:
    """question -> a report of the `found` entries that are nearest to it."""
    summarise: Runnable[Any, str] = ChatPromptTemplate.from_template(SUMMARISE) | llm | StrOutputParser()
    merge = ChatPromptTemplate.from_template(MERGE) | llm | StrOutputParser()
    retriever = store.as_retriever(search_kwargs={"k": found})
    return retriever | texts_of | summarise.map() | (lambda found: {"summaries": "\n".join(found)}) | merge


def main() -> None:
    from semantic_parrot.adapters.langchain import ChatParrot
    from semantic_parrot.core.demo_model import world

    store = InMemoryVectorStore.from_texts(world.day(seed=7, n=12).split("\n\n"), WordEmbeddings())
    llm = ChatParrot(temperature=0, max_tokens=200)
    for question in ("Who brings slate?", "Which tanker left?"):
        print(question, rag(llm, store).invoke(question))


if __name__ == "__main__":
    main()
