"""The benchmarks of routing, small: what they measure is there, and better routing is seen to be better."""

import routing
import routing_w4


def test_what_many_engines_cost():
    found = routing.decisions(100, 2000, 50, full=False)
    assert found["pairs"] > 2000
    assert 0 < found["decision_us"]["p50"] <= found["decision_us"]["p99"]
    sizes = routing.memory(100, 20_000)
    assert 1 < sizes["mib_traced"] < 40


def test_routing_by_prefix_beats_routing_by_load_where_memory_is_short():
    costs = routing_w4.GPUS["13B, A100 40 GB, tree"]
    found = {way: routing_w4.latency(way, costs, 4.0, seed=0, calls=400) for way in routing_w4.ROUTINGS}
    ours = found.pop("parrot")
    for other in found.values():
        assert ours["latency"] < 0.7 * other["latency"]
        assert ours["reused"] > other["reused"]
