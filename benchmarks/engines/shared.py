"""Our engine with a long prefix that all requests share, and without what makes that cheap."""

from __future__ import annotations

from engines.drive import Say
from engines.inprocess import InProcess
from engines.results import Results
from engines.workloads import Workload, check_counts, seconds
from peers.peer import Setup
from peers.process import PeerFailed

#: name → (how often relative to the first, options): the prefix's keys and values are read once a step; the blocks are
#: the same, and each row reads them anew; each request has filled a prefix of its own, and reads that.
WAYS = {"shared": (1, {}), "without tree attention": (1, {"tree": False}), "nothing shared": (5, {"sharing": False})}


def measured(setup: Setup, work: Workload, words: list[str], repeats: int, results: Results, say: Say) -> None:
    """All ways in turn; `nothing shared`, which fills the prefix for each request, every fifth time only."""
    kv_tokens = work.batch * (work.shared + work.own + work.tokens + 32)
    # Long chunks: what decodes beside the prefill of the last requests would have ended before they begin.
    engines = {way: InProcess(setup, kv_tokens=kv_tokens, chunk=8192, **options) for way, (_, options) in WAYS.items()}
    for repeat in range(-1, repeats):
        prompts = work.prompts(words, repeat)
        for way, engine in engines.items():
            if repeat % WAYS[way][0] or repeat < 0 < WAYS[way][0] - 1:
                continue
            try:
                answers = engine.together(prompts, work.tokens)
                check_counts(answers, work)
                if repeat >= 0:
                    results.run(setup.dtype, way, work.key, repeat, work.figure(answers, work), seconds(answers))
            except PeerFailed as error:
                results.failure(setup.dtype, way, work.key, str(error))
        say(f"{setup.dtype}: shared prefix, {'warmed up' if repeat < 0 else f'repetition {repeat + 1} of {repeats}'}")
