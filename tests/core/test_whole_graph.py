"""Whatever is cancelled, fails or dies, and whenever: every reader is answered, no call is lost or run twice, nothing
remains anywhere."""

import asyncio
from unittest.mock import patch

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import ScriptedEngine, text_of

from semantic_parrot.core import ahead
from semantic_parrot.core.errors import EngineFailed, ParrotError
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.usage import NOTHING

from .test_bodies import bodies, request

ACTIONS = ("cancel", "detach", "close", "die", "revive", "leave", "set", "stick")


class Mortal(ScriptedEngine):
    """Speaks at a pace of its own, fails where the prompt says so, dies with all it has, and is stuck while it does not
    `move`. `told`: the tokens that it has reported, by request; `lost`: those of requests that it failed to finish."""

    def __init__(self, pace):
        super().__init__(window=1, fail=lambda r: EngineFailed("lost") if text_of(r).startswith("user: fail") else None)
        self.pace = pace
        self.told = []
        self.lost = []
        self.move = asyncio.Event()
        self.move.set()

    async def generate(self, request, *directions):
        index = len(self.told)
        self.told.append(NOTHING)
        try:
            async for item in super().generate(request, *directions):
                self.told[index] = item.usage
                yield item
                for _ in range(self.pace):
                    await asyncio.sleep(0)
                await self.move.wait()
                if not self.healthy:
                    raise EngineFailed("the engine died")
        except EngineFailed:
            self.lost.append(self.told[index])
            raise


@st.composite
def submissions(draw, index):
    fields, names = draw(bodies(["in", "words"], 1, f"p{index}v"))
    for i, text in enumerate(draw(st.lists(st.sampled_from(["one", "two", "three"]), min_size=1, max_size=4))):
        plain = {"id": f"plain{i}", "output": f"p{index}plain{i}", "request": request(text)}
        fields["calls"].append(plain)  # ready at once, and equal to others
        names.append(plain["output"])
    options = {"lifetime": draw(st.sampled_from(["foreground", "prefetch"]))}
    options |= draw(st.sampled_from([{}, {}, {"quota": {"tokens": draw(st.integers(1, 60))}}, {"deadline_ms": 60_000},
                                     {"deadline_ms": 1e-6}]))  # fmt: skip
    stated = st.sampled_from(["latency", "throughput"])
    options["objectives"] = draw(st.dictionaries(st.sampled_from(names[2:]), stated))
    return fields, names, options, draw(st.booleans())


@st.composite
def scenarios(draw):
    programs = [draw(submissions(i)) for i in range(draw(st.integers(1, 4)))]
    times = st.tuples(st.integers(0, 9), st.sampled_from(ACTIONS), st.integers(0, 3))
    return (
        programs,
        draw(st.lists(times, max_size=8)),
        draw(st.integers(0, 3)),
        draw(st.booleans()),
        draw(st.booleans()),
    )


class Stage:
    """One scenario: its runtime, sessions, runs and waiters."""

    def __init__(self, pace, single_flight):
        self.engines = [Mortal(pace), Mortal(pace)]
        self.runtime = Runtime(self.engines, grace=0, disable=() if single_flight else {"single-flight"})
        self.sessions, self.runs, self.waiters = [], [], []

    def submit(self, programs):
        shared = self.runtime.sessions.open()
        for fields, names, options, private in programs:
            session = self.runtime.sessions.open() if private else shared
            inputs = {} if "in" in session.graph.variables else {"in": None, "words": ["a", "b"]}
            body = {**fields, "inputs": inputs, "deltas": "all", "parrot": {**options, "session": session.id}}
            run = self.runtime.submit(parse_program(body))
            run.audience.attach()
            self.runs.append(run)
            self.sessions.append(session)
            self.waiters.append([asyncio.create_task(session.get(name)) for name in names])

    def act(self, action, index):
        i = index % len(self.runs)
        engine, session = self.engines[index % 2], self.sessions[i]
        if action == "cancel":
            self.runs[i].cancel()
        elif action == "detach" and self.runs[i].audience._readers:
            self.runs[i].audience.detach()
        elif action == "close" and session.id in self.runtime.sessions._open:
            self.runtime.sessions.close(session.id)
        elif action in ("die", "revive"):
            engine.healthy = action == "revive"
        elif action == "stick":
            engine.move.clear()
        elif action == "leave":
            self.waiters[i][index % len(self.waiters[i])].cancel()
        elif action == "set" and not session.graph.variables["in"].settled:
            session.set("in", "w")

    async def end(self, cancelled):
        """Let everything come to its end, or cancel it all, stuck engines or not; whoever waits is answered."""
        for run in self.runs if cancelled else ():
            run.cancel()
        for engine in () if cancelled else self.engines:
            engine.move.set()
        for session in self.sessions:
            if not session.graph.variables["in"].settled:
                session.set("in", "w")
        async with asyncio.timeout(20):
            for run in self.runs:
                await run.wait()
            answers = [waiter for waiting in self.waiters for waiter in waiting]
            for answer in await asyncio.gather(*answers, return_exceptions=True):
                assert not isinstance(answer, BaseException) or isinstance(answer, ParrotError | asyncio.CancelledError)
            for engine in self.engines:
                await engine.until(running=0)
            await self.runtime.calls.close()


def leftovers(stage):
    """What is still held anywhere, by what holds it."""
    found = {}
    for i, session in enumerate(stage.sessions):
        found |= {
            f"analysis of session {i}": len(session.analysis),
            f"prefixes of session {i}": len(session.prefixes._by_call) + len(session.prefixes._by_prefix),
            f"runs of session {i}": len(session.runs),
            f"waiters of session {i}": len(session._waiters),
            f"calls of session {i}": len(session._held),
            f"prompts ahead of session {i}": len(session.ahead._known) + len(session.ahead._texts),
        }
    for i, run in enumerate(stage.runs):
        found |= {f"tasks of run {i}": len(run._tasks), f"hints of run {i}": len(run._hints)}
        found |= {f"open nodes of run {i}": len(run._open), f"reserved by run {i}": len(run._tally._reserved)}
    calls = stage.runtime.calls
    for scheduler in calls.schedulers:
        found["waiting tasks"] = len(scheduler.decider.waiting) + scheduler.decider.waiting.batch
        found["turns"] = len(scheduler._turns)
        found["placed"] = sum(engine.n + len(engine.running) for engine in scheduler.decider.fleet.engines)
        found["flights"] = len(calls._flights[scheduler]._open) + len(calls._flights[scheduler]._pumps)
    asked = {}
    for engine in stage.engines:
        for key, prompt in engine.prefills:
            asked[id(engine), key] = prompt is not None
    found["prompts that engines fill ahead"] = sum(asked.values())
    found["fills"] = len(calls.fills._fills) + len(calls.fills._running)
    return {what: count for what, count in found.items() if count}


async def told_once(run):
    """Each call of the run has exactly one end, after at most one beginning; the run ends once, and last."""
    events = [event async for _, event in run.events()]
    assert [event.type for event in events].count("run.finished") == 1
    assert events[-1].type == "run.finished"
    calls = sorted(node.id for node in run._nodes.values() if node.spec.kind == "call")
    ends = [e.id for e in events if e.type in ("call.finished", "call.failed", "call.aborted")]
    ready = [e.id for e in events if e.type == "call.ready"]
    assert sorted(ends) == calls
    assert len(set(ready)) == len(ready)
    assert set(ready) <= set(calls)


def billed_once(stage, quiet):
    """The runs pay for what the engines have told: never for more and, if nothing was ended early, for all of it, but
    for what was lost and made again."""
    paid = [run.usage for run in stage.runs]
    told = [usage for engine in stage.engines for usage in engine.told]
    lost = [usage for engine in stage.engines for usage in engine.lost]
    amounts = [
        (
            sum(usage.total_tokens for usage in paid),
            *(sum(u.prompt + u.completion for u in all) for all in (told, lost)),
        ),
        (sum(usage.calls for usage in paid), stage.runtime.calls.executed, len(lost)),
    ]
    for amount, spent, again in amounts:
        assert amount <= spent
        assert spent - again <= amount or not quiet


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(scenarios())
def test_nothing_is_lost_or_doubled_and_nothing_remains(scenario):
    programs, actions, pace, single_flight, cancelled = scenario

    async def play():
        stage = Stage(pace, single_flight)
        await stage.runtime.start()
        stage.submit(programs)
        for turns, action, index in actions:
            for _ in range(turns):
                await asyncio.sleep(0)
            stage.act(action, index)
        await stage.end(cancelled)
        assert leftovers(stage) == {}
        for run in stage.runs:
            await told_once(run)
        limits = any("quota" in options or options.get("deadline_ms") == 1e-6 for _, _, options, _ in programs)
        billed_once(
            stage, quiet=not (limits or cancelled or {a for _, a, _ in actions} & {"cancel", "detach", "close"})
        )
        assert len(stage.engines[0].told) + len(stage.engines[1].told) == stage.runtime.calls.executed
        await stage.runtime.close()

    with patch.multiple(ahead, PAUSE=0, EVERY=2, SHORTEST=1):  # prompts are filled ahead at once, short as they are
        asyncio.run(play())
