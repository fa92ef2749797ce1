"""Random chains, in a random way each: the same results, run trees and executions as eager.

PARROT_FUZZ_TREES sets how many, PARROT_FUZZ_SEED the number of the first.
"""

from __future__ import annotations

import os

import pytest
from lc_recorder import WAYS, Recorder, run
from lc_trees import Trees

from semantic_parrot.adapters.langchain import ChatParrot, ParrotLLM, disabled
from semantic_parrot.adapters.langchain.planner import PLANNER

TREES = int(os.environ.get("PARROT_FUZZ_TREES", "16"))
FIRST = int(os.environ.get("PARROT_FUZZ_SEED", "0"))
GIVEN = {"x": "one", "q": "two <&>"}


def observe(server, way, seed):
    llm = ChatParrot(base_url=server.url, temperature=0, max_retries=0)
    completion = ParrotLLM(base_url=server.url, temperature=0, max_retries=0)
    chain, recorder = Trees(seed, llm, completion).tree(), Recorder()
    if seed // len(WAYS) % 2:  # every other chain's plan is there already
        for _ in range(2):
            PLANNER.plan(chain, {"x": "1", "q": "2"}, streaming="stream" in way)
    before = server.metrics()
    result = run(way, chain, GIVEN, recorder)
    after = server.metrics()
    executed = after["parrot_calls_executed_total"] - before["parrot_calls_executed_total"]
    trips = after["parrot_requests_total"] - before["parrot_requests_total"]
    return result, recorder.tree(), executed, trips


def check(server, seed):
    way = list(WAYS)[seed % len(WAYS)]
    with disabled():
        eager = observe(server, way, seed)
    lowered = observe(server, way, seed)
    assert lowered[0] == eager[0], f"tree {seed} by {way}"
    if not eager[0].startswith("raised"):
        assert lowered[1] == eager[1], f"run tree of tree {seed} by {way}"
        assert lowered[2] == eager[2], f"executions of tree {seed} by {way}"
    assert lowered[3] <= eager[3], f"round trips of tree {seed} by {way}"
    return eager[3], lowered[3]


@pytest.mark.parametrize("way", range(len(WAYS)), ids=list(WAYS))
def test_a_random_chain_is_an_eager_chain(server, way):
    seeds = [seed for seed in range(FIRST, FIRST + TREES) if seed % len(WAYS) == way]
    trips = [check(server, seed) for seed in seeds]
    assert sum(few for _, few in trips) < sum(many for many, _ in trips)
