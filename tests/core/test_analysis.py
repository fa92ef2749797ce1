"""Deduction against its definition, on random DAGs, whether they join at once or call by call."""

from hypothesis import given, settings
from hypothesis import strategies as st

from semantic_parrot.core.analysis import Analysis, Lengths, Planned, PrefixUses, skeleton
from semantic_parrot.core.analysis.pieces import boundaries, length_of
from semantic_parrot.core.wire import template

STRICT = {None: 0, "throughput": 1, "deadline": 2, "latency": 3}


def planned(name, *reads, seconds=1.0, text="p"):
    prompt = {"model": "m", "prompt": template(text, *((r,) for r in reads))}
    return Planned(name, tuple(reads), seconds, skeleton(prompt))


@st.composite
def dags(draw):
    n = draw(st.integers(1, 12))
    reads = [draw(st.sets(st.integers(0, i - 1))) if i else set() for i in range(n)]
    seconds = [draw(st.sampled_from([0.5, 1.0, 2.0, 4.0])) for _ in range(n)]
    drawn = enumerate(zip(reads, seconds, strict=True))
    return [planned(f"v{i}", *(f"v{j}" for j in sorted(r)), seconds=s) for i, (r, s) in drawn]


stated_objectives = st.dictionaries(st.integers(0, 11).map("v{}".format), st.sampled_from(["latency", "throughput"]))
deadlines = st.dictionaries(st.integers(0, 11).map("v{}".format), st.sampled_from([5.0, 10.0, 20.0]))


def downstream(calls, name):
    """Every call that needs `name`, itself included."""
    found = {name}
    for call in calls:
        if found & set(call.inputs):
            found.add(call.output)
    return found


def paths(calls, name):
    """Every path from `name` to a sink or to any call on the way: as lists of calls."""
    by_name = {call.output: call for call in calls}
    readers = [call.output for call in calls if name in call.inputs]
    return [[by_name[name]], *([by_name[name], *rest] for reader in readers for rest in paths(calls, reader))]


def check(analysis, calls, stated, due):
    for call in calls:
        step = analysis.step(call.output)
        asked = [stated.get(n, "deadline" if n in due else None) for n in downstream(calls, call.output)]
        strictest = max(asked, key=STRICT.__getitem__)
        assert step.objective == (strictest or "latency")
        every = paths(calls, call.output)
        ends = [due[p[-1].output] - sum(c.seconds for c in p[1:]) for p in every if p[-1].output in due]
        assert step.due == min(ends, default=float("inf"))


def remaining(calls, name):
    return max(sum(c.seconds for c in path) for path in paths(calls, name))


def known(calls, asked):
    return {name: value for name, value in asked.items() if any(call.output == name for call in calls)}


@settings(max_examples=60, deadline=None)
@given(dags(), stated_objectives, deadlines, st.randoms(use_true_random=False))
def test_a_program_that_joins_at_once(calls, stated, due, random):
    stated, due = known(calls, stated), known(calls, due)
    shuffled = random.sample(calls, len(calls))
    analysis = Analysis()
    analysis.join(shuffled, stated, now=100.0, due=due)
    check(analysis, calls, stated, due)
    longest = max(remaining(calls, call.output) for call in calls)
    for call in calls:
        step = analysis.step(call.output)
        assert step.remaining == remaining(calls, call.output)
        if call.output not in due and step.due == float("inf"):
            assert step.latest == 100.0 + longest - step.remaining


@settings(max_examples=60, deadline=None)
@given(dags(), stated_objectives, deadlines)
def test_a_session_that_grows_call_by_call(calls, stated, due):
    stated, due = known(calls, stated), known(calls, due)
    analysis = Analysis()
    for call in calls:
        name = call.output
        mine = {name: stated[name]} if name in stated else {}
        analysis.join([call], mine, now=0.0, due={name: due[name]} if name in due else {})
    check(analysis, calls, stated, due)
    for call in calls:  # a budget may cut short how far a longer path is carried, never invent one
        assert call.seconds <= analysis.step(call.output).remaining <= remaining(calls, call.output)


@settings(max_examples=60, deadline=None)
@given(dags())
def test_task_groups_are_parallel_calls_that_feed_one_consumer(calls):
    analysis = Analysis()
    analysis.join(calls, {}, now=0.0)
    steps = {call.output: analysis.step(call.output) for call in calls}
    members = {}
    for name, step in steps.items():
        if step.group is not None:
            members.setdefault(step.group, []).append(name)
    for group, names in members.items():
        assert group.size == len(names) > 1
        for a in names:
            assert not (downstream(calls, a) - {a}) & set(names)
    for call in calls:
        at = {}
        for name in call.inputs:
            at.setdefault(steps[name].depth, []).append(name)
        for names in at.values():
            assert len(names) == 1 or all(steps[name].group is not None for name in names)


def test_a_map_in_two_stages_is_two_groups_of_its_reduce():
    calls = [planned(f"a{i}") for i in range(3)]
    calls += [planned(f"b{i}", f"a{i}") for i in range(3)]
    analysis = Analysis()
    analysis.join([*calls, planned("r", "b0", "b1", "b2")], {"r": "latency"}, now=0.0)
    first, second = ({analysis.step(f"{s}{i}").group for i in range(3)} for s in "ab")
    assert len(first) == len(second) == 1
    assert first != second
    assert analysis.step("r").group is None


def test_throughput_work_has_no_groups():
    analysis = Analysis()
    analysis.join([planned("a"), planned("b"), planned("r", "a", "b")], {"r": "throughput"}, now=0.0)
    assert analysis.step("a").objective == "throughput"
    assert analysis.step("a").group is None


def test_a_session_that_grows_costs_its_new_edges(monkeypatch):
    visits = [0]
    relax = Analysis._relax

    def counted(producer, step):
        visits[0] += 1
        return relax(producer, step)

    monkeypatch.setattr(Analysis, "_relax", staticmethod(counted))
    for length in (500, 2000):
        visits[0] = 0
        analysis = Analysis()
        for i in range(length):
            analysis.join([planned(f"v{i}", *([f"v{i - 1}"] if i else []))], {}, now=0.0)
        assert visits[0] <= 24 * length
        assert length / 2 <= analysis.step("v0").remaining <= length


def test_what_has_ended_is_forgotten_and_says_nothing_more():
    analysis = Analysis()
    analysis.join([planned("a"), planned("b", "a")], {}, now=0.0)
    analysis.finish("a")
    analysis.finish("a")
    analysis.join([planned("c", "a", "b")], {"c": "throughput"}, now=1.0)
    assert [s.planned.output for s in analysis.upstream("c")] == ["c", "b"]
    assert analysis.step("b").objective == "throughput"
    assert list(analysis.upstream("a")) == []


def test_lengths_follow_the_site_and_forget():
    lengths = Lengths(window=8, sites=2)
    assert lengths.expect(1, None) == 128
    assert lengths.expect(1, 10) == 10
    assert lengths.expect(1, 500, exact=True) == 500
    for _ in range(8):
        lengths.observe(1, 20)
    assert lengths.expect(1, None) == 20
    assert lengths.expect(2, None) == 20  # the best guess for a site not seen yet
    for tokens in (100,) * 5:
        lengths.observe(1, tokens)
    assert lengths.expect(1, None) == 100
    lengths.observe(2, 7)
    lengths.observe(3, 9)
    assert lengths.expect(1, None) != 100  # forgotten: the least recently used


SYSTEM = "You are a helpful assistant who answers in the style of a ship's log. " * 3


def chat(*messages):
    return {"model": "m", "messages": [{"role": role, "content": content} for role, content in messages]}


def test_prefixes_are_named_by_their_text_however_it_is_cut():
    lowered = skeleton(chat(("system", SYSTEM), ("user", template("Summarise this text: ", ("doc",)))))
    eager = skeleton(chat(("system", SYSTEM), ("user", "Summarise this text: once upon a time")))
    parts = skeleton(chat(("system", [{"type": "text", "text": SYSTEM}]), ("user", template(("doc",)))))
    mine = boundaries(lowered.pieces, {"doc": "once upon a time"}.__getitem__)
    assert set(boundaries(eager.pieces, str)) <= set(mine)
    assert boundaries(parts.pieces, {"doc": "x"}.__getitem__)[0] == mine[0]
    assert length_of(mine[0]) == len(SYSTEM) + len("\0system\0")
    assert lowered.site != eager.site
    assert [length_of(b) for b in mine] == sorted(length_of(b) for b in mine)


def test_who_shares_is_known_before_a_token_is_run():
    uses = PrefixUses()
    for name, variable in (("a", "doc"), ("b", "doc"), ("c", "other")):
        request = chat(("system", SYSTEM), ("user", template(("doc",), "?" if name == "a" else "!")))
        if variable == "other":
            request = chat(("system", SYSTEM), ("user", template(("other",))))
        uses.join(name, skeleton(request), "\1{}".format)
    prefix, sharers = uses.shared("a")
    assert list(sharers) == ["a", "b"]  # dynamic: the same variable after the same text
    assert length_of(prefix) > len(SYSTEM)
    _, sharers = uses.shared("c")
    assert list(sharers) == ["a", "b", "c"]  # static: the same constant
    assert prefix not in uses.leave("a")
    assert prefix in uses.leave("b")
    (system,) = [name for name in uses.leave("c") if length_of(name) < len(SYSTEM) + 16]
    assert list(uses.sharers(system)) == []
    assert uses.shared("c") == (0, ())
