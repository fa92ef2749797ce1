"""A LangGraph loop: a writer makes a report, a reviewer reads the entries and sends it back until no ship is missing.

    python examples/langchain/reviewer.py       # against `parrot serve` (make serve)

Each node's chain is one program on the server; the loop between them is LangGraph's.
"""

from __future__ import annotations

from typing import Any, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable
from langgraph.graph import END, START, StateGraph

SUMMARISE = "Summarise this entry in one sentence:\n{text}"
UPDATE = "Report so far: {report}\nNew entry: {text}\nGive the updated report."
MERGE = "Merge these summaries into one report:\n{summaries}"
EXTRACT = "Extract the entry as JSON:\n{text}"


class State(TypedDict, total=False):
    entries: list[str]
    report: str
    missing: list[str]


def graph(llm: BaseChatModel, at_first: int = 2) -> Any:
    """{"entries": […]} -> with a `report` of them all. The writer begins with the first `at_first`."""

    def step(template: str, parser: Any = None) -> Runnable[Any, Any]:
        return ChatPromptTemplate.from_template(template) | llm | (parser or StrOutputParser())

    draft = step(SUMMARISE).map() | (lambda summaries: {"summaries": "\n".join(summaries)}) | step(MERGE)
    update = step(UPDATE)
    ships = step(EXTRACT, JsonOutputParser()).map() | (lambda entries: [entry["vessel"] for entry in entries])

    def write(state: State) -> State:
        if not state.get("missing"):
            return {"report": draft.invoke([{"text": text} for text in state["entries"][:at_first]])}
        text = next(text for text in state["entries"] if state["missing"][0] in text)
        return {"report": update.invoke({"report": state["report"], "text": text})}

    def review(state: State) -> State:
        found = ships.invoke([{"text": text} for text in state["entries"]])
        return {"missing": [ship for ship in found if ship not in state["report"]]}

    builder = StateGraph(State)
    builder.add_node("write", write)
    builder.add_node("review", review)
    builder.add_edge(START, "write")
    builder.add_edge("write", "review")
    builder.add_conditional_edges("review", lambda state: "write" if state["missing"] else END)
    return builder.compile()


def main() -> None:
    from semantic_parrot.adapters.langchain import ChatParrot
    from semantic_parrot.core.demo_model import world

    app = graph(ChatParrot(temperature=0, max_tokens=200))
    for update in app.stream({"entries": world.day(seed=7, n=4).split("\n\n")}, stream_mode="updates"):
        for node, state in update.items():
            print(f"{node}: {state}")


if __name__ == "__main__":
    main()
