"""The plan of a program, in lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from semantic_parrot.server.explain.words import listed

#: Calls of one stage that are shown.
SHOWN = 12


def lines(plan: Mapping[str, Any]) -> Iterator[str]:
    calls, assumed = plan["calls"], plan["assumed"]
    yield f"{_many(len(calls), 'call')} in {_many(plan['stages'], 'stage')}; outputs: {', '.join(plan['outputs'])}"
    yield f"critical path {plan['seconds']:.2f} s: {' → '.join(plan['critical_path']) or 'no call'}"
    yield (
        f"assumed, before anything is measured: {assumed['characters_per_token']:g} characters a token,"
        f" {assumed['output_tokens']:g} tokens an answer unless max_tokens says less,"
        f" {assumed['prefill_seconds_per_token'] * 1e3:g} ms a token of prompt and"
        f" {assumed['decode_seconds_per_token'] * 1e3:g} ms of answer, idle engines;"
        " the values of variables are not counted"
    )
    for variable, error in plan["errors"].items():
        yield f"fails as it stands: {variable}: {error['message']}"
    if plan["done_at_once"]:
        yield f"done at once: {listed(plan['done_at_once'])}"
    for stage in range(1, plan["stages"] + 1):
        members = [call for call in calls if call["stage"] == stage]
        yield ""
        yield f"stage {stage}: {_many(len(members), 'call')}"
        for call in members[:SHOWN]:
            yield from _call(call)
        if len(members) > SHOWN:
            yield f"  … and {len(members) - SHOWN} more; --json has them all"
    if plan["others"]:
        yield ""
        yield "between calls, in the server:"
        for other in plan["others"]:
            yield f"  {_other(other)}"


def _call(call: Mapping[str, Any]) -> Iterator[str]:
    yield f"  {call['id']} → {call['output']}{'  ◆ critical' if call['critical'] else ''}"
    yield f"    needs      {listed(call['needs']) if call['needs'] else 'no other call'}"
    yield f"    objective  {call['objective']}: {call['because']}"
    group = call["task_group"]
    if group is not None:
        yield f"    group      {group['id']}: {listed(group['calls'], group['size'])}"
    yield (
        f"    start      from {call['earliest_start']:.2f} s, at the latest at {call['latest_start']:.2f} s;"
        f" takes {call['seconds']:.2f} s with {call['output_tokens']:.0f} tokens"
    )
    for shared in call["prefixes"]:
        what = f"{shared['characters']} characters"
        if shared["variables"]:
            what += f" and {listed(shared['variables'])}"
        kind = "dynamic" if shared["dynamic"] else "static"
        yield f"    prefix     {kind}, {what}, with {listed(shared['calls'], shared['count'] - 1)}"


def _other(other: Mapping[str, Any]) -> str:
    text = f"{other['kind']} {other['id']} → {other['output']}, reads {listed(other['reads'])}"
    if "bound" in other:
        text += f"; up to {other['bound']} times: {listed(other['calls']) if other['calls'] else 'no call'}"
    for arm in other.get("arms", ()):
        text += f"; {arm['when']}: {listed(arm['calls']) if arm['calls'] else 'no call'}"
    return text


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
