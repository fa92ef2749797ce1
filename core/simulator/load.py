"""Where a simulation's programs come from: a workload by name or a file, as dense as asked.

A file is JSON lines: {"at": seconds, "app": name, "tenant": name, "stated": {output: objective}, "deadline_ms": number,
"calls": [{"output", "parts": [text | {"var": name} | {"text": number of characters, "of": name}], "tokens"}]}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path
from random import Random

from semantic_parrot.core.analysis import boundaries
from semantic_parrot.core.analysis.pieces import Piece, Var, length_of
from semantic_parrot.core.simulator.cache import Cache
from semantic_parrot.core.simulator.costs import Costs
from semantic_parrot.core.simulator.workloads import CHARACTERS, WORKLOADS, SimCall, SimProgram, text


def load(name: str, seed: int, rate: float = 1.0) -> Iterator[SimProgram]:
    """The programs of the workload `name` (endless) or of the file of that name, in order of arrival; `rate` times as
    dense. Raises ValueError with one line for neither."""
    if name in WORKLOADS:
        programs = WORKLOADS[name](Random(seed))
    else:
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"no workload {name!r}: it is {', '.join(WORKLOADS)}, or a file")
        programs = read(path)
    for program in programs:
        yield replace(program, at=program.at / rate)


def demand(programs: Iterator[SimProgram], calls: int, engines: int, costs: Costs) -> float:
    """The load of the first `calls` calls, as they arrive: 1 if engines whose steps are full all the time, of sequences
    or of prefill, and that fill no prefix twice, can do just that much. No schedule serves more than 1 for long."""
    ever, last, seen = Cache(1e7), 0.0, 0
    work = rows = tokens = 0.0
    for program in programs:
        values = {call.output: text(call.output, call.tokens) for call in program.calls}
        for call in program.calls:
            names = boundaries(call.pieces, values.__getitem__)
            chars = sum(len(p) if isinstance(p, str) else len(values[p.name]) for p in call.pieces)
            ends = tuple(length_of(name) / CHARACTERS for name in names)
            prompt = chars / CHARACTERS
            fresh = prompt - min(ever.hit(names, ends), prompt - 1)
            work += costs.work(prompt, fresh, call.tokens)
            rows, tokens = rows + fresh, tokens + call.tokens - 1
            ever.put(names, ends)
        seen, last = seen + len(program.calls), program.at
        if seen >= calls:
            break
    work += costs.base * max(rows / costs.chunk, tokens / costs.window)
    return work / engines / last if last > 0 else inf


def read(path: Path) -> Iterator[SimProgram]:
    """The programs of a file. Raises ValueError naming the line."""
    with path.open() as lines:
        for number, line in enumerate(lines, 1):
            try:
                body = json.loads(line)
                calls = tuple(SimCall(c["output"], tuple(map(_piece, c["parts"])), c["tokens"]) for c in body["calls"])
                deadline = body.get("deadline_ms")
                yield SimProgram(
                    float(body["at"]),
                    body.get("app", "app"),
                    calls,
                    body.get("tenant", ""),
                    body.get("stated", {}),
                    None if deadline is None else deadline / 1e3,
                )
            except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
                raise ValueError(f"{path}, line {number}: no program: {error!r}") from None


def _piece(part: str | dict[str, str | int]) -> Piece:
    if isinstance(part, str):
        return part
    if "var" in part:
        return Var(str(part["var"]))
    return str(part["of"]).ljust(int(part["text"]), "x")
