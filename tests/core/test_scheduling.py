"""The scheduler's decisions: placement where the paper's released code goes wrong, order, caps, and what it learns."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semantic_parrot.core.scheduling import Decider, Policy, Task
from semantic_parrot.core.scheduling.costs import CostModel

LONG = (4000 << 32 | 1,)  # the name of a prefix of 4,000 characters


def shared(**more):
    return Task(prompt=1000, output=20, prefixes=LONG, held=(1000.0,), **more)


def submit(decider, tasks, now=0.0):
    for task in tasks:
        decider.submit(task, now)
    return decider.dispatch(now)


def finish(decider, placement, now):
    decider.filled(placement, now)
    decider.release(placement, now)


def test_nine_tasks_are_spread_over_three_idle_engines():
    placed = submit(Decider([64] * 3), [Task(prompt=100, output=100, group="g") for _ in range(9)])
    assert Counter(p.engine for p in placed) == {0: 3, 1: 3, 2: 3}
    assert {p.why for p in placed} == {"task-group"}
    assert {p.together for p in placed} == {9}


def test_a_group_that_shares_a_long_prefix_stays_together():
    placed = submit(Decider([64] * 3), [shared(group="g") for _ in range(6)])
    assert len({p.engine for p in placed}) == 1
    assert [p.cached for p in placed] == [0.0] + [1000.0] * 5


def test_a_group_that_does_not_fit_is_split_by_capacity():
    decider = Decider([4, 4, 2])
    placed = submit(decider, [shared(group="g") for _ in range(12)])
    assert Counter(p.engine for p in placed) == {0: 4, 1: 4, 2: 2}
    assert len(decider.waiting) == 2


def test_the_emptier_engine_is_preferred():
    decider = Decider([64, 64])
    first = submit(decider, [Task(prompt=10, output=10)])
    assert [p.engine for p in submit(decider, [Task(prompt=10, output=10)])] == [1 - first[0].engine]


def test_a_latency_call_goes_where_a_cap_is_already_rather_than_cap_a_second_engine():
    decider = Decider([64, 64])
    (chat,) = submit(decider, [Task(output=100)])
    submit(decider, [Task(objective="throughput", output=100) for _ in range(6)])
    (other,) = submit(decider, [Task(output=100)])
    assert other.engine == chat.engine


def test_a_latency_call_goes_elsewhere_once_those_that_cap_an_engine_fill_its_cap():
    decider = Decider([64, 64], Policy(tpot=0.0225), [0, 1])  # a batch of 2
    (first,) = submit(decider, [Task(output=100)])
    submit(decider, [Task(objective="throughput", output=100) for _ in range(6)])
    placed = [submit(decider, [Task(output=100)])[0] for _ in range(2)]
    assert [p.engine for p in placed] == [first.engine, 1 - first.engine]


def use(decider, task, now, cached):
    """Where `task` goes; `cached` of its 1,000 prompt tokens turn out to be there."""
    (placement,) = submit(decider, [task], now)
    finish(decider, placement, now + 0.5)
    decider.measured(placement, (1000, cached, 20), 0.5, 0.4)
    return placement


def test_the_engine_that_holds_the_prefix_is_preferred():
    decider = Decider([64, 64])
    submit(decider, [Task(prompt=10, output=5)])
    first = use(decider, shared(), 0.0, 0)
    again = use(decider, shared(), 1.0, 1000)
    assert (again.engine, again.why, again.cached) == (first.engine, "prefix-held", 1000)


def test_a_miss_shows_that_what_was_used_before_is_gone_too():
    decider = Decider([64])
    old, new = (4000 << 32 | 7,), (4000 << 32 | 8,)
    use(decider, Task(prompt=1000, output=20, prefixes=old, held=(1000.0,)), 0.0, 0)
    use(decider, shared(), 1.0, 0)
    use(decider, Task(prompt=1000, output=20, prefixes=new, held=(1000.0,)), 2.0, 0)
    assert use(decider, shared(), 3.0, 0).cached == 1000  # it was evicted, and is there again
    assert set(decider.fleet.residency.names(0)) == {*new, *LONG}


def test_an_engine_that_holds_nothing_is_not_believed_for_ever():
    decider = Decider([64])
    expected = [use(decider, shared(), float(i), 0).cached for i in range(100)]
    assert expected[1] == 1000
    assert expected[-1] < 200


def test_queued_sharers_go_together_and_others_wait_their_turn():
    decider = Decider([2])
    blocking = submit(decider, [Task(output=5), Task(output=5)])
    a, b, c = shared(latest=1.0), Task(latest=2.0), shared(latest=3.0)
    assert submit(decider, [a, b, c]) == []
    for placement in blocking:
        finish(decider, placement, 1.0)
    assert [p.task for p in decider.dispatch(1.0)] == [a, c]


def test_a_latency_call_caps_throughput_work_but_not_its_like():
    decider = Decider([64], Policy(tpot=0.03))  # prior: 0.02 + 0.001 n, so a batch of 10
    assert len(submit(decider, [Task()])) == 1
    placed = submit(decider, [Task(objective="throughput") for _ in range(30)])
    assert len(placed) == 9
    assert len(submit(decider, [Task() for _ in range(5)])) == 5  # waiting a whole answer would be worse than sharing
    free = Decider([64], Policy(tpot=0.03, disabled=frozenset({"batch-cap"})))
    assert len(submit(free, [Task(), *(Task(objective="throughput") for _ in range(30))])) == 31


def test_a_placement_says_its_rank_and_the_cap_that_keeps_its_tokens_coming():
    tasks = [Task(), Task(group="g"), Task(objective="deadline", latest=1e9), Task(objective="throughput")]
    placed = submit(Decider([64], Policy(tpot=0.03)), tasks)  # prior: 0.02 + 0.001 n
    assert {p.task.objective: (p.rank, p.cap) for p in placed if p.task.group is None} == {
        "latency": (0, 10), "deadline": (1, None), "throughput": (2, None)
    }  # fmt: skip
    assert [(p.rank, p.cap) for p in placed if p.task.group] == [(0, None)]
    (free,) = submit(Decider([64], Policy(tpot=0.03, disabled=frozenset({"batch-cap"}))), [Task()])
    assert (free.rank, free.cap) == (0, None)


def test_a_placement_says_its_order_within_its_rank():
    def order(**policy):
        decider = Decider([64], Policy(**policy))
        decider.submit(Task(priority=2, latest=90.0), 100.0)
        decider.submit(Task(latest=130.0), 100.0)
        return [(p.priority, p.slack) for p in decider.dispatch(110.0)]

    assert order() == [(2, -20.0), (0, 20.0)]
    assert order(disabled=frozenset({"critical-path"})) == [(0, 0.0)] * 2


def test_a_latency_call_goes_to_a_full_engine_that_preempts_and_expects_the_cap_there():
    def place(preempting, **policy):
        decider = Decider([8], Policy(tpot=0.023, **policy), preempting)  # a batch of 3
        batch = submit(decider, [Task(objective="throughput", prompt=0, output=100) for _ in range(20)])
        chats = submit(decider, [Task(prompt=0, output=100) for _ in range(12)])
        return len(batch), chats

    batch, chats = place([0])
    assert (batch, len(chats)) == (8, 8)  # as many as would fit if there were nothing else, and no more
    assert chats[0].seconds == pytest.approx(100 * 0.023)
    assert place([]) == (8, [])
    assert place([0], disabled=frozenset({"preemption"})) == (8, [])


def test_who_was_patient_goes_first_on_the_engine_too():
    decider = Decider([2], Policy(patience=5.0), [0])
    submit(decider, [Task(objective="throughput") for _ in range(3)])
    (placement,) = decider.dispatch(6.0)
    assert (placement.task.objective, placement.rank) == ("throughput", 0)


def test_an_engine_never_tried_costs_what_the_others_do():
    decider = Decider([64] * 2)
    for i in range(20):
        (placement,) = submit(decider, [Task(prompt=100, output=20)], float(i))
        assert placement.engine == 0
        finish(decider, placement, i + 0.5)
        decider.measured(placement, (100, 0, 20), 0.001, 19 * 0.001)  # far less than the prior
    placed = submit(decider, [Task(prompt=100, output=20) for _ in range(2)], 30.0)
    assert {p.engine for p in placed} == {0, 1}


def test_group_members_do_not_cap():
    decider = Decider([64], Policy(tpot=0.03))
    submit(decider, [Task(group="g"), Task(group="g")])
    assert len(submit(decider, [Task(objective="throughput") for _ in range(30)])) == 30


def order_of(tasks, now=0.0, **policy):
    """The indices of `tasks`, in the order in which an engine that takes one at a time gets them."""
    decider = Decider([1], Policy(**policy))
    (blocking,) = submit(decider, [Task()])
    submit(decider, tasks)
    order = []
    while len(decider.waiting):
        finish(decider, blocking, now)
        (blocking,) = decider.dispatch(now)
        order.append(tasks.index(blocking.task))
    return order


def test_order_within_a_tenant():
    tasks = [
        Task(objective="throughput", latest=0.0),
        Task(latest=5.0),
        Task(latest=3.0),  # the critical path
        Task(objective="deadline", latest=100.0),
        Task(objective="deadline", latest=1.0, seconds=1.0),  # urgent
        Task(objective="throughput", priority=1, latest=9.0),
    ]
    assert order_of(tasks, now=0.5) == [5, 4, 2, 1, 0, 3]
    assert order_of([Task(latest=5.0), Task(latest=3.0)], disabled=frozenset({"critical-path"})) == [0, 1]


def test_tenants_share_by_tokens_and_weight():
    def share(**policy):
        decider = Decider([1], Policy(**policy))
        decider.waiting.weigh("b", 2.0)
        (blocking,) = submit(decider, [Task(output=1)])
        tasks = [Task(tenant="a", output=100.0) for _ in range(90)] + [Task(tenant="b", output=50.0) for _ in range(90)]
        submit(decider, tasks)
        served = Counter()
        for _ in range(50):
            finish(decider, blocking, 0.0)
            (blocking,) = decider.dispatch(0.0)
            served[blocking.task.tenant] += blocking.task.output
        return served

    served = share()
    assert served["b"] == pytest.approx(2 * served["a"], rel=0.1)
    assert share(disabled=frozenset({"fair-share"}))["b"] == 0


def test_a_tenant_that_comes_back_has_no_claim_on_the_past():
    decider = Decider([1])
    (blocking,) = submit(decider, [Task(tenant="a", output=1.0)])
    submit(decider, [Task(tenant="a", output=100.0) for _ in range(40)])
    order = []
    for i in range(30):
        if i == 20:
            submit(decider, [Task(tenant="b", output=100.0) for _ in range(20)])
        finish(decider, blocking, 0.0)
        (blocking,) = decider.dispatch(0.0)
        order.append(blocking.task.tenant)
    assert 4 <= order[20:].count("b") <= 6


def test_caps_do_not_keep_out_a_tenant_that_is_owed_too_much():
    decider = Decider([16], Policy(tpot=0.023, lag=300.0))  # a batch of 3
    submit(decider, [Task(tenant="a", prompt=10, output=90) for _ in range(3)])
    assert submit(decider, [Task(tenant="b", objective="throughput", prompt=10, output=90) for _ in range(9)]) == []
    placed = [p for i in range(6) for p in submit(decider, [Task(tenant="a", prompt=10, output=90)], float(i))]
    assert {p.task.tenant for p in placed} == {"a", "b"}
    assert placed[0].task.tenant == "a"
    assert all(p.rank == 0 for p in placed)


def test_promoted_work_goes_with_the_latency_calls():
    decider = Decider([1])
    (blocking,) = submit(decider, [Task()])
    batch, other = Task(objective="throughput"), Task(objective="throughput", latest=-1.0)
    submit(decider, [other, batch])
    decider.promote(batch)
    finish(decider, blocking, 0.0)
    assert [p.task for p in decider.dispatch(0.0)] == [batch]
    assert decider.waiting.batch == 1


TASKS = st.builds(
    Task,
    objective=st.sampled_from(["latency", "throughput", "deadline"]),
    tenant=st.sampled_from(["", "a", "b"]),
    priority=st.integers(-1, 1),
    latest=st.floats(-10, 100),
    seconds=st.floats(0, 5),
    group=st.sampled_from([None, None, "g", "h"]),
    prefixes=st.sampled_from([(), LONG, (100 << 32, *LONG)]),
    prompt=st.floats(1, 2000),
    output=st.floats(1, 500),
).map(lambda task: (setattr(task, "held", tuple((p >> 32) / 4 for p in task.prefixes)), task)[1])
STEPS = st.lists(st.tuples(st.sampled_from(["submit", "submit", "finish", "cancel", "promote", "down", "up"]), TASKS,
                           st.integers(0, 1000)), max_size=80)  # fmt: skip


@settings(max_examples=150)
@given(
    STEPS,
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.sampled_from([0.5, 5.0, 1000.0]),
    st.sets(st.integers(0, 3)),
)
def test_no_task_is_lost_or_doubled_and_none_is_overtaken_for_ever(steps, windows, patience, preempting):
    decider = Decider(windows, Policy(patience=patience), preempting)
    waiting, running, ended, relieved, now = [], [], [], {}, 0.0
    head = decider.waiting.head

    def checked(now, *, roomy):
        """And between tenants: nobody who is out of patience is overtaken by a tenant that was served more."""
        task, standing = head(now, roomy=roomy), decider.waiting.standing
        oldest = {}
        for other in waiting:
            oldest.setdefault(other.tenant, other)
        due = (o for o in oldest.values() if now - max(o.arrived, relieved.get(o.tenant, 0.0)) >= patience)
        late = [o.tenant for o in due if o.state == "waiting"]  # else it has gone just now
        assert task is not None or not late
        assert all(standing(task.tenant) <= standing(tenant) for tenant in late)
        return task

    decider.waiting.head = checked

    def dispatch():
        for placement in decider.dispatch(now):
            task = placement.task
            # Bounded waiting: the oldest of a tenant goes at least once in its patience, and the engine lets it.
            oldest = next(other for other in waiting if other.tenant == task.tenant)
            overdue = now - max(oldest.arrived, relieved.get(task.tenant, 0.0)) >= patience
            assert not overdue or (task is oldest and placement.rank == 0)
            if task is oldest:
                relieved[task.tenant] = now
            waiting.remove(task)
            running.append(placement)
            assert decider.fleet.engines[placement.engine].up
        for engine in decider.fleet.engines:
            mine = [p for p in running if p.engine == engine.index]
            assert len(mine) == engine.n <= engine.window * (1 + engine.preempts)
            assert len([p for p in mine if not p.rank]) <= engine.window
            assert engine.solo == sum(p.task.solo for p in mine)
            assert engine.batch == sum(p.rank > 0 for p in mine)
            for p in mine:
                assert p.rank == 0 or p.task.waits
                assert (p.cap is not None) == p.task.solo
        assert len(decider.waiting) == len(waiting)
        assert decider.waiting.batch == sum(task.waits for task in waiting)

    for what, task, n in steps:
        now += 0.3
        if what == "submit":
            decider.submit(task, now)
            waiting.append(task)
        elif what == "finish" and running:
            placement = running.pop(n % len(running))
            finish(decider, placement, now)
            decider.measured(placement, (10, n % 2, 5), 0.1, 0.1)
            ended.append(placement.task)
        elif what == "cancel" and waiting:
            gone = waiting.pop(n % len(waiting))
            decider.cancel(gone)
            ended.append(gone)
        elif what == "promote" and waiting:
            decider.promote(waiting[n % len(waiting)])
        elif what in ("down", "up"):
            decider.fleet.set_up(n % len(windows), what == "up")
        dispatch()
    for index in range(len(windows)):
        decider.fleet.set_up(index, True)
    dispatch()
    while running:
        placement = running.pop(0)
        finish(decider, placement, now)
        ended.append(placement.task)
        dispatch()
    assert not waiting
    submitted = sum(what == "submit" for what, _, _ in steps)
    assert len(ended) == len({id(task) for task in ended}) == submitted
    assert all(engine.n == 0 for engine in decider.fleet.engines)
    assert decider.waiting._together == {}


def test_costs_are_learned_and_old_ones_forgotten():
    costs = CostModel()
    for batch in (1, 4, 16, 32) * 50:
        costs.decoded(batch, 10, 10 * (0.005 + 0.0002 * batch))
        costs.prefilled(1000, 0.2)
    assert costs.step(8) == pytest.approx(0.0066, rel=0.02)
    assert costs.prefill == pytest.approx(0.0002)
    assert costs.batch_within(0.0082) == pytest.approx(16, abs=1)
    for batch in (1, 4, 16, 32) * 100:
        costs.decoded(batch, 10, 10 * (0.010 + 0.0004 * batch))
    assert costs.step(8) == pytest.approx(0.0132, rel=0.02)


def test_one_batch_size_does_not_pretend_to_know_the_others():
    costs = CostModel()
    for _ in range(500):
        costs.decoded(1, 10, 0.1)
    assert costs.step(1) == pytest.approx(0.01, rel=0.01)
    assert costs.step(21) == pytest.approx(0.02, rel=0.1)  # the prior's share for each sequence


def test_unknown_optimisations_are_refused():
    with pytest.raises(ValueError, match="'speed'"):
        Policy(disabled=frozenset({"speed"}))
