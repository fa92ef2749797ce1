"""Three agents asked at the same time. Needs the package protobuf, which Semantic Kernel's runtime uses.

python examples/sk/orchestration.py        # against `parrot serve` (make serve)
"""

import asyncio

from semantic_kernel.agents import ChatCompletionAgent, ConcurrentOrchestration
from semantic_kernel.agents.runtime import InProcessRuntime

from semantic_parrot.adapters.semantic_kernel import ParrotChatCompletion

ROLES = {"Pilot": "You know the river.", "Broker": "You know the freight.", "Doctor": "You know the crews."}


async def main(task: str = "May the barges leave tonight?", base_url: str | None = None) -> dict[str, str]:
    service = ParrotChatCompletion(base_url=base_url)
    members = [ChatCompletionAgent(service=service, name=name, instructions=text) for name, text in ROLES.items()]
    runtime = InProcessRuntime()
    runtime.start()
    try:
        result = await ConcurrentOrchestration(members=members).invoke(task=task, runtime=runtime)
        return {message.name: str(message) for message in await result.get(timeout=600)}
    finally:
        await runtime.stop_when_idle()


if __name__ == "__main__":
    for name, answer in asyncio.run(main()).items():
        print(f"{name}: {answer}")
