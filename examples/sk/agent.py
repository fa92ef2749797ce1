"""An agent with a tool. What an agent asks next depends on what the model says, so its calls go out one by one.

python examples/sk/agent.py        # against `parrot serve`, with a model that calls tools
"""

import asyncio

from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.function_choice_behavior import FunctionChoiceBehavior
from semantic_kernel.functions import kernel_function

from semantic_parrot.adapters.semantic_kernel import ParrotChatCompletion


class Harbour:
    def __init__(self) -> None:
        self.asked: list[str] = []

    @kernel_function(description="The water level in a port.")
    def level(self, port: str = "Bremen") -> str:
        self.asked.append(port)
        return "4.1 m"


async def main(base_url: str | None = None, harbour: Harbour | None = None) -> str:
    agent = ChatCompletionAgent(
        service=ParrotChatCompletion(base_url=base_url),
        name="Pilot",
        instructions="You answer questions about ports. Look up the level.",
        plugins=[harbour or Harbour()],
        function_choice_behavior=FunctionChoiceBehavior.Auto(),
    )
    response = await agent.get_response("How high is the water in Bremen?")
    return str(response)


if __name__ == "__main__":
    print(asyncio.run(main()))
