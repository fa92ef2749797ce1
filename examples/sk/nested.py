"""Two prompts inside a third: its template calls them. Three model calls, one round trip.

    python examples/sk/nested.py [TEXT]        # against `parrot serve` (make serve)

The one Parrot line is the service; with OpenAIChatCompletion in its place the same code runs anywhere.
"""

import asyncio
import sys

from semantic_kernel import Kernel

from semantic_parrot.adapters.semantic_kernel import ParrotChatCompletion

TEXT = "The tug left at six. By noon the fog was gone, and two barges were in the lock."


def build(base_url: str | None = None) -> Kernel:
    kernel = Kernel()
    kernel.add_service(ParrotChatCompletion(base_url=base_url, attach_to=kernel))
    add = kernel.add_function
    add(plugin_name="text", function_name="summarise", prompt="Summarise in one sentence:\n{{$text}}")
    add(plugin_name="text", function_name="translate", prompt="Translate into German:\n{{text.summarise $text}}")
    return kernel


async def main(text: str = TEXT, base_url: str | None = None) -> str:
    kernel = build(base_url)
    prompt = "Give this a title: {{text.translate $text}}"
    return str(await kernel.invoke_prompt(prompt, text=text))


if __name__ == "__main__":
    print(asyncio.run(main(*sys.argv[1:2])))
