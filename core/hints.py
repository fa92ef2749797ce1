"""What the graph knows of a call that has become ready, on its way to the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from semantic_parrot.core.analysis import Class, Group, Skeleton, Step, boundaries
from semantic_parrot.core.engines.protocol import Done, Keep
from semantic_parrot.core.events import Prefix, Schedule
from semantic_parrot.core.feeds import feeds
from semantic_parrot.core.keeping import keep
from semantic_parrot.core.salts import mark, own
from semantic_parrot.core.scheduling import Estimates, Task
from semantic_parrot.core.usage import Meter, Tally
from semantic_parrot.core.value import as_text

if TYPE_CHECKING:
    from semantic_parrot.core.instance import Node
    from semantic_parrot.core.run import Run
    from semantic_parrot.core.session import Session


UNSTATED = "nothing was stated: somebody may be waiting"


@dataclass(frozen=True, slots=True)
class Hints:
    """`latest`: latest start; `due`: when the answer must be there (absolute seconds; neither: it may start now).
    `skeleton` and `values`: its prompt, before rendering; `prefixes`: their names, where they are known. `content_key`:
    of the rendered request, where it is known. `meter` is billed for it. `call`: its session's id and output; `filled`:
    (engine, characters) that were filled ahead of its prompt. `keep(now)`, as it starts: of which parts of its prompt
    the engine should keep the KV; `leave()`, if another call's answer is its own: it will read nothing itself;
    `feeds()`, as it starts: which calls follow from it at once. The defaults are those of a call on its own."""

    objective: Class = "latency"
    because: str = UNSTATED
    tenant: str = ""
    priority: int = 0
    latest: float | None = None
    due: float | None = None
    group: Group | None = None
    skeleton: Skeleton | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    prefixes: tuple[int, ...] | None = None
    content_key: str | None = None
    sharers: int = 0
    shared_with: tuple[str, ...] = ()
    meter: Meter = field(default_factory=lambda: Tally().meter(None))
    call: tuple[str, str] = ("", "")
    filled: tuple[int, int] | None = None
    keep: Callable[[float], tuple[Keep, ...]] = field(default=lambda _: ())
    leave: Callable[[], None] = field(default=lambda: None)
    feeds: Callable[[], tuple[str, ...]] = field(default=tuple)

    def task(self, skeleton: Skeleton, estimates: Estimates, now: float, *, objectives: bool = True) -> Task:
        """The scheduler's view, with what is expected of prompt and answer."""
        per, costs = estimates.per_character, estimates.costs
        names = boundaries(skeleton.pieces, self.values.__getitem__) if self.prefixes is None else self.prefixes
        read = sum(len(p) if isinstance(p, str) else len(self.values[p.name]) for p in skeleton.pieces)
        output = estimates.output(skeleton, mark(self.tenant))
        seconds = read * per * costs.prefill + output * costs.step(1)
        latest = self.latest
        if latest is None or not objectives:
            latest = now if self.due is None or not objectives else self.due - seconds
        return Task(
            objective=self.objective if objectives else "latency",
            tenant=self.tenant,
            priority=self.priority,
            prompt=read * per,
            output=output,
            seconds=seconds,
            latest=latest,
            group=self.group if objectives else None,
            prefixes=own(names, self.tenant),
            held=tuple((name >> 32) * per for name in names),
            filled=None if self.filled is None else (self.filled[0], self.filled[1] * per),
            site=skeleton.site ^ mark(self.tenant),
            chars=read,
        )

    def explain(self, done: Done) -> Schedule | None:
        """How the call was scheduled; None if no scheduler had it."""
        placed = done.placed
        if placed is None:
            return None
        return Schedule(
            objective=self.objective,
            because=self.because,
            task_group=None if self.group is None else self.group.id,
            group_size=1 if self.group is None else self.group.size,
            prefix=Prefix(tokens=round(placed.cached), count=self.sharers, calls=list(self.shared_with)),
            engine=placed.engine,
            why=placed.why,
            predicted=placed.seconds,
            real=done.timings.prefill + done.timings.decode,
            single_flight=placed.shared,
        )


def because(step: Step) -> str:
    """Why the call of `step` has its objective."""
    if step.cause is None:
        return UNSTATED
    return f"stated for {step.cause!r}" + ("" if step.cause == step.planned.output else ", which needs this call")


#: Sharers of a prefix that are named.
NAMED = 8


def hints_of(session: Session, run: Run, node: Node[Run], key: str, meter: Meter) -> Hints:
    """Of `node`, an open call of `run` that is ready; `key`: the content key of its rendered request."""
    output = node.output
    step = session.analysis.step(output)
    prompt = step.planned.skeleton
    assert prompt is not None
    texts = {name: as_text(value) for name, value in session.graph.inputs(node).items()}
    _, sharers = session.prefixes.shared(output)
    named = islice((name for name in sharers if name != output), NAMED)
    producers = (session.graph.variables[name].producer for name in named)
    prefixes = boundaries(prompt.pieces, texts.__getitem__)
    hints = Hints(
        objective=step.objective,
        because=because(step),
        tenant=session.tenant,
        priority=run.terms.parrot.priority,
        latest=step.latest,
        group=step.group,
        skeleton=prompt,
        values=texts,
        prefixes=prefixes,
        content_key=key,
        sharers=len(sharers),
        shared_with=tuple(other.id for other in producers if other is not None),
        meter=meter,
        call=(session.id, output),
        filled=session.ahead.filled(output),
        feeds=partial(feeds, session.graph, session.id, output),
    )
    if session.uses is None:
        return hints
    chars = sum(len(p) if isinstance(p, str) else len(texts[p.name]) for p in prompt.pieces)
    planned = session.prefixes.prefixes(output)
    return replace(
        hints,
        keep=partial(keep, session.uses, hints.call, prompt, planned, prefixes, chars),
        leave=partial(session.uses.leave, hints.call),
    )
