"""Can a tenant find out, by the time to the first token, what another has asked?

    python benchmarks/hit_probe.py [--probes 1000] [--model DIR] [--json FILE]

A `parrot serve` with two tenants' keys. A victim sends a prompt; then a prober sends that prompt and a new one like it,
in random order, and takes the time until the first token of each. Done once with two tenants, and once with victim and
prober of one tenant, which must be told apart, or the probe would show nothing. Printed is the area under the ROC curve
of "was cached" by time: 0.5 is chance. The channel is measured twice: by the clock, and by `usage`'s cached tokens.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median

import httpx

from about import about

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

WORDS = "harbour quay ship cargo rope wind tide anchor crew sail keel lamp storm gull salt net barrel chart".split()


def prompt(rng: random.Random, words: int) -> str:
    return f"{rng.random()} " + " ".join(rng.choice(WORDS) for _ in range(words))


def probe(http: httpx.Client, key: str, text: str) -> tuple[float, int]:
    """(seconds to the first token, prompt tokens found in the cache)."""
    body = {"model": "default", "prompt": text, "max_tokens": 1, "temperature": 0, "stream": True}
    body["stream_options"] = {"include_usage": True}
    first, cached = 0.0, 0
    begun = time.perf_counter()
    with http.stream("POST", "/completions", json=body, headers={"Authorization": f"Bearer {key}"}) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if line.startswith("data: {"):
                first = first or time.perf_counter() - begun
                usage = json.loads(line[6:]).get("usage")
                cached = cached if usage is None else usage["prompt_tokens_details"]["cached_tokens"]
    return first, cached


def area(hits: list[float], misses: list[float]) -> float:
    """The chance that a miss took longer than a hit."""
    wins = sum((miss > hit) + 0.5 * (miss == hit) for miss in misses for hit in hits)
    return wins / (len(hits) * len(misses))


def measure(http: httpx.Client, victim: str, prober: str, probes: int, words: int) -> dict[str, float]:
    rng = random.Random(f"{probes} {words}")
    took: dict[bool, list[tuple[float, int]]] = {True: [], False: []}
    for _ in range(probes // 2):
        sent, new = prompt(rng, words), prompt(rng, words)
        probe(http, victim, sent)
        for text in rng.sample((sent, new), 2):
            took[text == sent].append(probe(http, prober, text))
    times = {known: [seconds for seconds, _ in found] for known, found in took.items()}
    return {
        "probes": 2 * (probes // 2),
        "area_by_time": round(area(times[True], times[False]), 4),
        "area_by_tokens": round(area(*([-float(cached) for _, cached in took[known]] for known in (True, False))), 4),
        "hit_ms": round(median(times[True]) * 1e3, 3),
        "miss_ms": round(median(times[False]) * 1e3, 3),
    }


def main() -> None:
    from live import LiveServer

    from semantic_parrot.server.tenants.keys import make
    from semantic_parrot.server.tenants.store import TenantStore

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probes", type=int, default=1000)
    parser.add_argument("--words", type=int, default=300, help="of a prompt")
    parser.add_argument("--model")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model = [] if args.model is None else ["--model", args.model]
    with tempfile.TemporaryDirectory() as directory, closing(TenantStore(Path(directory))) as store:
        ann, bob = make(store, "ann")[0], make(store, "bob")[0]
        server = LiveServer("--api-keys", "--data-dir", directory, *model)
        with server, httpx.Client(base_url=server.url, timeout=60) as http:
            for key in (ann, bob):
                probe(http, key, prompt(random.Random(), args.words))
            found = {
                "one tenant": measure(http, ann, ann, args.probes // 4, args.words),
                "two tenants": measure(http, ann, bob, args.probes, args.words),
            }
    print(json.dumps(found, indent=2))
    if args.json is not None:
        args.json.write_text(json.dumps({"about": about(), **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
