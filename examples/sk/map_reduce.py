"""Six summaries and their merge: results are passed on inside a block of `deferred`. Seven calls, one round trip.

python examples/sk/map_reduce.py        # against `parrot serve` (make serve)
"""

import asyncio

from semantic_kernel import Kernel

from semantic_parrot.adapters.semantic_kernel import ParrotChatCompletion, deferred

ENTRIES = ("Tug left at six.", "Fog until noon.", "Two barges in.", "A crane broke.", "It was mended.", "All quiet.")
MERGE = "Merge into one report:\n" + "\n".join(f"{{{{$s{i}}}}}" for i in range(len(ENTRIES)))


async def main(base_url: str | None = None) -> str:
    kernel = Kernel()
    kernel.add_service(ParrotChatCompletion(base_url=base_url, attach_to=kernel))
    summarise = kernel.add_function(plugin_name="log", function_name="summarise", prompt="Summarise:\n{{$entry}}")
    merge = kernel.add_function(plugin_name="log", function_name="merge", prompt=MERGE)
    async with deferred(kernel):
        summaries = await asyncio.gather(*(kernel.invoke(summarise, entry=entry) for entry in ENTRIES))
        report = await kernel.invoke(merge, **{f"s{i}": summary for i, summary in enumerate(summaries)})
    return str(report)


if __name__ == "__main__":
    print(asyncio.run(main()))
