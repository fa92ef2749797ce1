from semantic_parrot.core.analysis import objectives
from semantic_parrot.core.program import Call
from semantic_parrot.core.wire import template

# a -> b -> c, a -> d
CALLS = [
    Call(id=name, output=f"v{name}", request={"prompt": template(*((f"v{r}",) for r in reads))})
    for name, reads in (("a", ""), ("b", "a"), ("c", "b"), ("d", "a"))
]


def test_nothing_stated_is_latency():
    assert set(objectives(CALLS, {}).values()) == {"latency"}


def test_throughput_reaches_all_transitive_producers_and_no_others():
    stated = {"vc": "throughput"}
    assert objectives(CALLS, stated) == {"a": "throughput", "b": "throughput", "c": "throughput", "d": "latency"}


def test_the_stricter_objective_wins_where_a_variable_is_read_twice():
    stated = {"vc": "throughput", "vd": "latency"}
    assert objectives(CALLS, stated) == {"a": "latency", "b": "throughput", "c": "throughput", "d": "latency"}
