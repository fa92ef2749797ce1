"""What planning costs the app that it serves: client CPU of a lowered chain beside ChatOpenAI's, the hooks on a chain
without ChatParrot, planning itself, and the import.

    python benchmarks/langchain_client.py [--rounds 15] [--runs 40] [--json FILE]

The server is a process of its own, whose engine answers at once. All times are CPU times, of the whole process where a
thread of ours works as well; what is compared is measured in turn, and the median of the ratios counts.
Goals: 0.7 of ChatOpenAI from two steps on and 1.05 for one call; 1 µs on a chain without ChatParrot; 80 µs a node for
planning, 15 µs from a cached plan; 1.1 of langchain_openai's import. A node is a call of the program. (A script named
langchain.py would stand in the way of the package langchain.)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from about import about

PACKAGES = ("langchain-core", "langchain-openai", "openai")
#: So many calls in each chain, eagerly.
CALLS = {"one call": 1, "two steps": 2, "four steps": 4, "fan-out of three and a join": 4}


def chains(model: Any) -> dict[str, Any]:
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate

    def step(text: str) -> Any:
        return ChatPromptTemplate.from_template(text) | model | StrOutputParser()

    two = step("Summarize this: {x}") | step("Translate this: {y}")
    three = {"a": step("One: {x}"), "b": step("Two: {x}"), "c": step("Three: {x}")}
    return {
        "one call": step("Summarize this: {x}"),
        "two steps": two,
        "four steps": two | step("Shorten this: {y}") | step("Give it a title: {y}"),
        "fan-out of three and a join": three | step("Join {a}, {b} and {c}"),
    }


@contextmanager
def server() -> Iterator[str]:
    """The base URL of a server in a child process."""
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        yield json.loads(child.stdout.readline())["url"]
        child.stdin.close()


def serve() -> int:
    from instant import InstantEngine
    from semantic_parrot.server.options import ServeOptions
    from semantic_parrot.server.serve import serve as run

    options = ServeOptions(port=0, announce=True, exit_with_parent=True)
    return run(options, lambda _: [InstantEngine()])


def in_turn(
    ways: Sequence[Callable[[], object]], rounds: int, runs: int, clock: Callable[[], float]
) -> list[list[float]]:
    """Seconds of one run of each way, in each round; two rounds before them do not count."""
    took: list[list[float]] = [[] for _ in ways]
    for number in range(rounds + 2):
        order = list(enumerate(ways))
        for i, way in order if number % 2 else reversed(order):
            begun = clock()
            for _ in range(runs):
                way()
            if number >= 2:
                took[i].append((clock() - begun) / runs)
    return took


def client(url: str, rounds: int, runs: int) -> dict[str, Any]:
    """Client CPU of each chain, lowered and with ChatOpenAI, per call of the chain."""
    from langchain_openai import ChatOpenAI

    from semantic_parrot.adapters.langchain import ChatParrot, stats

    plain = chains(ChatOpenAI(base_url=url, api_key="none", model="default", temperature=0))
    lowered = chains(ChatParrot(base_url=url, temperature=0))
    found = {}
    texts = iter(range(1 << 30))

    def run(chain: Any) -> Callable[[], object]:
        return lambda: chain.invoke({"x": f"The tug left at {next(texts)}."})

    for name, calls in CALLS.items():
        before = stats()
        took = in_turn([run(plain[name]), run(lowered[name])], rounds, runs, time.process_time)
        after = stats()
        ratios = [ours / theirs for theirs, ours in zip(*took, strict=True)]
        found[name] = {
            "ratio": statistics.median(ratios),
            "ratios": [min(ratios), max(ratios)],
            "openai_us_per_call": statistics.median(took[0]) * 1e6 / calls,
            "parrot_us_per_call": statistics.median(took[1]) * 1e6 / calls,
            "claimed": after.claimed - before.claimed,
            "misses": after.misses - before.misses,
        }
    return found


def hooks(rounds: int) -> dict[str, Any]:
    """Microseconds that a hook adds to a composite without a model of ours. What it wraps does nothing here: a chain's
    own time varies by more than that."""
    from langchain_core.runnables import RunnablePassthrough

    from semantic_parrot.adapters.langchain import instrument

    chain = RunnablePassthrough() | RunnablePassthrough()

    def original(self: Any, input: Any, config: Any = None, **kwargs: Any) -> Any:
        return input

    hooked = instrument._WRAPPERS["invoke"](original)
    ways = [lambda: original(chain, "x"), lambda: hooked(chain, "x")]
    took = in_turn(ways, rounds, 20_000, time.thread_time)
    added = [(with_hook - without) * 1e6 for without, with_hook in zip(*took, strict=True)]
    return {"us": statistics.median(added), "spread": [min(added), max(added)]}


def planning(rounds: int) -> dict[str, Any]:
    """Microseconds a node, from a chain and its input to the programs that would be sent."""
    from semantic_parrot.adapters.langchain import ChatParrot
    from semantic_parrot.adapters.langchain.planner import PLANNER

    found = {}
    texts = iter(range(1 << 30))
    for name, chain in chains(ChatParrot(temperature=0)).items():

        def anew(chain: Any = chain) -> object:
            return PLANNER.plan(chain, {"x": f"The tug left at {next(texts)}."}, streaming=False, cached=False)

        def cached(chain: Any = chain) -> object:
            return PLANNER.plan(chain, {"x": f"The tug left at {next(texts)}."}, streaming=False)

        took = in_turn([anew, cached], rounds, 100, time.thread_time)
        each = [statistics.median(own) * 1e6 / CALLS[name] for own in took]
        found[name] = {"us_a_node": each[0], "cached_us_a_node": each[1]}
    return found


def imports(rounds: int) -> dict[str, Any]:
    """CPU seconds of a process that imports either."""
    took: list[list[float]] = [[], []]
    # Installed packages are compiled; ours, in a checkout, might be compiled anew by each process.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for number in range(rounds + 1):
        for own, module in zip(took, ("langchain_openai", "semantic_parrot.adapters.langchain"), strict=True):
            # What langchain_openai itself loads only when it is used counts on both sides: ChatOpenAI is.
            name = "ChatOpenAI" if module == "langchain_openai" else "ChatParrot"
            code = f"from {module} import {name}; import os; t = os.times(); print(t.user + t.system)"
            command = [sys.executable, "-c", code]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            if number:
                own.append(float(done.stdout))
    ratios = [ours / theirs for theirs, ours in zip(*took, strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "ratios": [min(ratios), max(ratios)],
        "seconds": [statistics.median(own) for own in took],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--runs", type=int, default=40, help="of a chain in each round")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        sys.exit(serve())
    found: dict[str, Any] = {"about": about(PACKAGES), "load": os.getloadavg()[0]}
    found["imports"] = imports(args.rounds)
    print(f"import: {found['imports']['ratio']:.2f} of langchain_openai's")
    found["hooks"] = hooks(args.rounds)
    print(f"hooks on a chain without ChatParrot: {found['hooks']['us']:.2f} µs a composite")
    found["planning"] = planning(args.rounds)
    for name, took in found["planning"].items():
        print(f"planning, {name}: {took['us_a_node']:.0f} µs a node, cached {took['cached_us_a_node']:.1f} µs")
    with server() as url:
        found["client"] = client(url, args.rounds, args.runs)
    for name, took in found["client"].items():
        print(f"client CPU, {name}: {took['ratio']:.2f} of ChatOpenAI's ({took['parrot_us_per_call']:.0f} µs a call)")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
