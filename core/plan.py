"""What the server makes of a program before any of it runs: its own analysis, of a run that never begins."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn
from zlib import crc32

from semantic_parrot.core.admission import admit
from semantic_parrot.core.analysis import Skeleton, outlook
from semantic_parrot.core.analysis.lengths import PRIOR
from semantic_parrot.core.body import Body
from semantic_parrot.core.calls import Calls
from semantic_parrot.core.hints import because
from semantic_parrot.core.instance import Collect, Node
from semantic_parrot.core.program import Branch, Call, Map, Program
from semantic_parrot.core.run import Run
from semantic_parrot.core.scheduling import Estimates, Policy
from semantic_parrot.core.session import Session
from semantic_parrot.core.shape import Prompt, Shape
from semantic_parrot.core.sharing import CALLS, Sharing

Report = dict[str, Any]


class _Rehearsal(Run):
    """A run whose calls never begin."""

    def launch(self, node: Node[Run]) -> None:
        """It would begin now."""


def _never(*_: object) -> NoReturn:
    raise AssertionError("nothing of a rehearsal is executed")


def plan(program: Program) -> Report:
    """As JSON. Seconds and tokens are what the server expects before it has measured anything; text of variables is not
    counted. Raises ParrotError as the server would refuse the program, except for models: here every name will do."""
    admit(program, (), lambda model, where: None)
    estimates = Estimates()

    def expect(shape: Shape) -> float:
        return estimates.seconds(shape.skeleton)

    session = Session(_never, expect, None, Sharing())
    run = _Rehearsal(program, session, Calls((), Policy()), 0.0)
    session.join(program, run)
    steps = {node.output: session.analysis.step(node.output) for node in run.open}
    ids = {node.output: node.id for node in run.open}
    earliest, stages = outlook.earliest(steps), outlook.stages(steps)
    path = outlook.path(steps)
    costs = estimates.costs
    rows: list[Report] = []
    for node in run.open:
        step = steps[node.output]
        prompt = step.planned.skeleton
        if prompt is None:
            continue
        group = step.group
        rows.append(
            {
                "id": node.id,
                "output": node.output,
                "reads": list(node.reads),
                "needs": [ids[name] for name in outlook.needs(step)],
                "stage": stages[node.output],
                "objective": step.objective,
                "because": because(step),
                "task_group": None if group is None else {"id": group.id, "size": group.size},
                "prefixes": _prefixes(session, node, prompt),
                "output_tokens": estimates.output(prompt),
                "seconds": step.planned.seconds,
                "earliest_start": round(earliest[node.output], 6),
                "latest_start": round(step.latest - step.job.submitted, 6),
                "critical": node.output in path,
            }
        )
    _name_groups(rows)
    errors = run.errors()
    return {
        "seconds": max((step.job.length for step in steps.values()), default=0.0),
        "critical_path": [ids[name] for name in path if steps[name].planned.skeleton is not None],
        "stages": max((row["stage"] for row in rows), default=0),
        "outputs": list(program.wanted()),
        "assumed": {
            "characters_per_token": 1 / estimates.per_character,
            "output_tokens": PRIOR,
            "prefill_seconds_per_token": costs.prefill,
            "decode_seconds_per_token": costs.step(1),
        },
        "calls": rows,
        "others": [_other(node) for node in run.open if not isinstance(node.spec, Prompt)],
        "done_at_once": [link.id for name, link in run.trace.links.items() if name not in errors],
        "errors": errors,
    }


def _prefixes(session: Session, node: Node[Run], prompt: Skeleton) -> list[Report]:
    """Longest first; of those that the same calls share, the longest. `characters` that are known; with `variables` in
    it that are not, the prefix is dynamic: it is shared whatever their values will be."""
    rows: list[Report] = []
    for name in reversed(session.prefixes.prefixes(node.output)):
        sharers = session.prefixes.sharers(name)
        if len(sharers) < 2 or (rows and rows[-1]["count"] == len(sharers)):
            continue
        characters, variables = _beginning(prompt, partial(session.text_of, node), name)
        producers = (session.graph.variables[output].producer for output in sharers if output != node.output)
        mates = [producer.id for producer in producers if producer is not None]
        rows.append(
            {
                "characters": characters,
                "variables": variables,
                "dynamic": bool(variables),
                "count": len(sharers),
                "calls": mates[:CALLS],
            }
        )
    return rows


def _beginning(prompt: Skeleton, text_of: Callable[[str], str], prefix: int) -> tuple[int, list[str]]:
    """(known characters, unknown variables) of the beginning of `prompt` that `prefix` names."""
    crc = read = known = 0
    unknown: dict[str, None] = {}
    for piece in prompt.pieces:
        text = piece if isinstance(piece, str) else text_of(piece.name)
        crc, read = crc32(text.encode("utf-8", "surrogatepass"), crc), read + len(text)
        if text[:1] == "\1":
            unknown[text[1:]] = None
        elif text[:1] != "\0":
            known += len(text)
        if read << 32 | crc == prefix:
            break
    return known, list(unknown)


def _name_groups(rows: list[Report]) -> None:
    """Who belongs to each task group."""
    members: dict[int, list[str]] = {}
    for row in rows:
        if row["task_group"] is not None:
            members.setdefault(row["task_group"]["id"], []).append(row["id"])
    for row in rows:
        if row["task_group"] is not None:
            row["task_group"]["calls"] = members[row["task_group"]["id"]]


def _other(node: Node[Run]) -> Report:
    """What is done in the graph itself; of a map or branch, the calls that it may become."""
    found: Report = {"kind": node.spec.kind, "id": node.id, "output": node.output, "reads": list(node.reads)}
    spec = node.spec
    if isinstance(spec, Map):
        found |= {"bound": spec.bound, "calls": _calls(spec)}
    elif isinstance(spec, Branch):
        labels = [repr(arm.when) for arm in spec.arms] + ["default"] * (spec.default is not None)
        bodies = zip(labels, (body for _, body in spec.bodies()), strict=True)
        found["arms"] = [{"when": label, "calls": _calls(body)} for label, body in bodies]
    elif isinstance(spec, Collect):
        found["expanded"] = True
    return found


def _calls(body: Body) -> list[str]:
    return [node.id for _, node in body.places() if isinstance(node, Call)]
