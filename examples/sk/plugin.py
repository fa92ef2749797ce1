"""A plugin of prompts and native functions: those run here, in order; the calls after one are planned together.

python examples/sk/plugin.py        # against `parrot serve` (make serve)
"""

import asyncio

from semantic_kernel import Kernel
from semantic_kernel.functions import KernelArguments, kernel_function

from semantic_parrot.adapters.semantic_kernel import ParrotChatCompletion, explain


class Harbour:
    @kernel_function(description="The water level in a port.")
    def level(self, port: str) -> str:
        return {"Bremen": "4.1 m", "Hamburg": "5.3 m"}.get(port, "unknown")


async def main(base_url: str | None = None) -> str:
    kernel = Kernel()
    kernel.add_service(ParrotChatCompletion(base_url=base_url, attach_to=kernel))
    kernel.add_plugin(Harbour(), "harbour")
    kernel.add_function(plugin_name="w", function_name="risk", prompt="What risk is {{harbour.level $port}} of water?")
    kernel.add_function(plugin_name="w", function_name="history", prompt="When was the last flood in {{$port}}?")
    advise = kernel.add_function(
        plugin_name="w", function_name="advise", prompt="Advise {{$port}}:\n{{w.risk}}\n{{w.history}}"
    )
    print(explain(kernel, advise, KernelArguments(port="Bremen")))
    return str(await kernel.invoke(advise, port="Bremen"))


if __name__ == "__main__":
    print(asyncio.run(main()))
