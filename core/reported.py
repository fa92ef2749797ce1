"""One call in the report of its run."""

from __future__ import annotations

from typing import Any

from semantic_parrot.core.trace import CallTrace

#: What the codes for the choice of an engine mean.
WHY = {
    "task-group": "its task group was placed as one, where that does least harm",
    "queued-sharers": "queued calls with the same prefix were placed together, where that does least harm",
    "prefix-held": "the engine was taken to hold a part of its prompt, and nowhere else would it have done less harm",
    "least-impact": "no engine with room was taken to hold any of its prompt: it went where it does least harm",
}


def call_report(call: CallTrace, now: float) -> dict[str, Any]:
    """What concerns the call alone, at `now` seconds of its run."""
    queued, prefill, decode = phases(call)
    margin = None if call.latest is None or call.ready is None else call.latest - call.ready - queued
    return {
        "id": call.id,
        "output": call.output,
        "reads": list(call.reads),
        "state": call.state,
        "reason": call.reason,
        "waits_for": list(call.waits_for),
        "objective": call.objective,
        "because": call.because or None,
        "engine": _engine(call),
        "times": {
            "ready": call.ready,
            "queued": queued,
            "prefill": prefill,
            "decode": decode,
            "end": call.ended if call.ended is not None or call.ready is None else None,
            "so_far": None if call.ready is None or call.ended is not None else now - call.ready,
        },
        "latest_start": call.latest,
        "margin": margin,
        "predicted": _predicted(call),
        "real": _real(call),
    }


def phases(call: CallTrace) -> tuple[float, float, float]:
    """Seconds queued, in prefill and in decode, as far as they are known. Of a call that joined the execution of an
    equal one, what it took part in."""
    if call.timings is None or call.ready is None or call.ended is None:
        return 0.0, 0.0, 0.0
    parts = [call.timings.queued, call.timings.prefill, call.timings.decode]
    before = sum(parts) - (call.ended - call.ready)
    for i, part in enumerate(parts):
        parts[i] = max(0.0, part - max(0.0, before))
        before -= part
    return parts[0], parts[1], parts[2]


def _engine(call: CallTrace) -> dict[str, Any] | None:
    """`room`: of the `engines` that serve the model, how many could take it then. `together`: calls placed as one."""
    placed = call.placed
    if placed is None:
        return None
    explanation = WHY.get(placed.why, placed.why)
    if placed.engines:
        several = placed.engines > 1
        explanation += f"; {placed.room} of {placed.engines} engines had room" if several else "; there is one engine"
    if placed.shared:
        explanation = f"an equal call was under way, and its answer is this one's; of that call: {explanation}"
    return {
        "name": placed.engine,
        "why": placed.why,
        "explanation": explanation,
        "room": placed.room if placed.engines else None,
        "engines": placed.engines or None,
        "together": placed.together if placed.engines else None,
        "single_flight": placed.shared,
    }


def _predicted(call: CallTrace) -> dict[str, Any]:
    """`idle_seconds`: alone on an idle engine, as the plan had it before the call was ready; the rest when it was
    placed. `seconds`: from there to its end."""
    placed = call.placed
    tokens = placed if placed is not None and placed.engines else None
    return {
        "idle_seconds": call.expected,
        "seconds": None if placed is None else placed.seconds,
        "prompt_tokens": None if tokens is None else tokens.prompt,
        "cached_tokens": None if placed is None else placed.cached,
        "output_tokens": None if tokens is None else tokens.output,
    }


def _real(call: CallTrace) -> dict[str, Any]:
    usage, timings = call.usage, call.timings
    return {
        "seconds": None if timings is None else timings.prefill + timings.decode,
        "prompt_tokens": None if usage is None else usage.prompt,
        "cached_tokens": None if usage is None else usage.cached,
        "output_tokens": None if usage is None else usage.completion,
    }
