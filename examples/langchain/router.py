"""A router: each entry is read into JSON, and what it is decides what is done with it.

python examples/langchain/router.py         # against `parrot serve` (make serve)
"""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableBranch, RunnablePassthrough

EXTRACT = "Extract the entry as JSON:\n{text}"
SUMMARISE = "Summarise this entry in one sentence:\n{text}"
MERGE = "Merge these summaries into one report:\n{summary}"
TRANSLATE = "Translate into Harbourish: {report}"


def arrives(state: dict[str, Any]) -> bool:
    return bool(state["entry"]["event"] == "arrival")


def router(llm: BaseChatModel) -> Runnable[Any, str]:
    """{"text": entry} -> of an arrival the report in Harbourish, of a departure the summary."""

    def step(template: str) -> Runnable[Any, str]:
        return ChatPromptTemplate.from_template(template) | llm | StrOutputParser()

    extract = ChatPromptTemplate.from_template(EXTRACT) | llm | JsonOutputParser()
    in_harbourish = (
        RunnablePassthrough.assign(summary=step(SUMMARISE))
        | RunnablePassthrough.assign(report=step(MERGE))
        | step(TRANSLATE)
    )
    return RunnablePassthrough.assign(entry=extract) | RunnableBranch((arrives, in_harbourish), step(SUMMARISE))


def main() -> None:
    from semantic_parrot.adapters.langchain import ChatParrot
    from semantic_parrot.core.demo_model import world

    chain = router(ChatParrot(temperature=0, max_tokens=200))
    for text in world.day(seed=7, n=4).split("\n\n"):
        print(chain.invoke({"text": text}))


if __name__ == "__main__":
    main()
