"""A web service that streams: what the template calls is one round trip, then the answer comes piece by piece.

python examples/sk/service.py        # against `parrot serve` (make serve); needs fastapi and uvicorn
curl -N 'http://127.0.0.1:8000/title?text=The%20tug%20left.'
"""

from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from semantic_kernel import Kernel

from semantic_parrot.adapters.semantic_kernel import ParrotChatCompletion


def create_app(base_url: str | None = None) -> FastAPI:
    app = FastAPI()
    kernel = Kernel()
    kernel.add_service(ParrotChatCompletion(base_url=base_url, attach_to=kernel))
    add = kernel.add_function
    add(plugin_name="text", function_name="summarise", prompt="Summarise:\n{{$text}}")
    add(plugin_name="text", function_name="mood", prompt="What is the mood of this?\n{{$text}}")
    title = add(
        plugin_name="text", function_name="title", prompt="A title for {{text.summarise}}, which is {{text.mood}}"
    )

    @app.get("/title")
    async def stream(text: str) -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            async for chunk in kernel.invoke_stream(title, text=text):
                yield str(chunk[0])

        return StreamingResponse(pieces(), media_type="text/plain")

    return app


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(create_app())
