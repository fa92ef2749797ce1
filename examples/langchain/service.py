"""A web service: POST /report with a log's text streams the report as it is written.

    python examples/langchain/service.py        # against `parrot serve` (make serve); then:
    curl -N localhost:8000/report --data-binary @FILE

Needs FastAPI and uvicorn, which the `server` extra brings.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda

SUMMARISE = "Summarise this entry in one sentence:\n{text}"
MERGE = "Merge these summaries into one report:\n{summaries}"


def reporter(llm: BaseChatModel) -> Runnable[list[dict[str, str]], str]:
    """Entries -> a report, whose words come as they are written."""
    summarise: Runnable[Any, str] = ChatPromptTemplate.from_template(SUMMARISE) | llm | StrOutputParser()
    merge = ChatPromptTemplate.from_template(MERGE) | llm | StrOutputParser()
    return summarise.map() | RunnableLambda(lambda found: {"summaries": "\n".join(found)}) | merge


def service(llm: BaseChatModel) -> FastAPI:
    app, chain = FastAPI(), reporter(llm)

    @app.post("/report")
    async def report(request: Request) -> StreamingResponse:
        text = (await request.body()).decode()
        entries = [{"text": entry} for entry in text.split("\n\n") if entry.strip()]
        return StreamingResponse(chain.astream(entries), media_type="text/plain")

    return app


def main() -> None:
    import uvicorn

    from semantic_parrot.adapters.langchain import ChatParrot

    uvicorn.run(service(ChatParrot(temperature=0, max_tokens=200)), port=8000)


if __name__ == "__main__":
    main()
