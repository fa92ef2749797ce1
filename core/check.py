"""Whether nodes may join a graph: two producers, unknown variables and cycles are refused by name, at every depth."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from semantic_parrot.core.body import Branch, Map, Spec
from semantic_parrot.core.errors import CyclicProgram, DanglingReference, DuplicateProducer


def check(specs: Sequence[Spec], inputs: Collection[str], existing: Collection[str]) -> None:
    """Raises DuplicateProducer, DanglingReference or CyclicProgram with the names involved."""
    for name in inputs:
        if name in existing:
            raise DuplicateProducer(f"input {name!r} exists in this session", where=f"inputs.{name}")
    for spec in specs:
        if spec.output in inputs or spec.output in existing:
            message = f"{describe(spec)} produces {spec.output!r}, which exists already"
            raise DuplicateProducer(message, where=spec.output)
    reads = {spec.output: spec.inputs() for spec in specs}
    producers = {spec.output: spec for spec in specs}
    for spec in specs:
        for name in reads[spec.output]:
            if name not in producers and name not in inputs and name not in existing:
                reader = _reader(spec, name)
                field = "request" if reader.startswith("call") else ""
                message = f"{reader} reads the unknown variable {name!r}"
                raise DanglingReference(message, where=f"{reader}.{field}".rstrip("."))
    _check_body(specs, producers, reads)


def describe(spec: Spec) -> str:
    return f"{spec.kind} {spec.id!r}"


def _check_body(specs: Sequence[Spec], producers: Mapping[str, Spec], reads: Mapping[str, tuple[str, ...]]) -> None:
    if len(producers) < len(specs):
        _refuse_twins(specs)
    _refuse_cycles(producers, reads)
    for spec in specs:
        if isinstance(spec, Map | Branch):
            for _, body in spec.bodies():
                inner = body.nodes()
                found = {node.output: node for node in inner}
                _check_body(inner, found, {node.output: node.inputs() for node in inner})


def _refuse_twins(specs: Sequence[Spec]) -> None:
    first: dict[str, Spec] = {}
    for spec in specs:
        twin = first.setdefault(spec.output, spec)
        if twin is not spec:
            kinds = f"calls {twin.id!r} and {spec.id!r}" if twin.kind == spec.kind == "call" else ""
            message = f"variable {spec.output!r} has two producers: {kinds or f'{describe(twin)} and {describe(spec)}'}"
            raise DuplicateProducer(message, where=spec.output)


def _reader(spec: Spec, name: str) -> str:
    """The node that reads `name`: `spec`, or one in a body of it."""
    if isinstance(spec, Map | Branch) and name not in spec.awaits():
        for _, body in spec.bodies():
            if name in body.outer():
                for node in body.nodes():
                    if name in node.inputs():
                        return f"{_reader(node, name)} in {describe(spec)}"
    return describe(spec)


def _refuse_cycles(producers: Mapping[str, Spec], reads: Mapping[str, tuple[str, ...]]) -> None:
    """Kahn's algorithm; what is left over lies on a cycle or behind one, so a walk upstream finds it."""
    seen: set[str] = set()
    for output, names in reads.items():
        if any(name in producers and name not in seen for name in names):
            break
        seen.add(output)
    else:
        return  # every node comes after those that it reads, as in most programs
    waits = {output: sum(name in producers for name in names) for output, names in reads.items()}
    readers: dict[str, list[str]] = {}
    for output, names in reads.items():
        for name in names:
            readers.setdefault(name, []).append(output)
    free = [name for name, count in waits.items() if count == 0]
    while free:
        name = free.pop()
        del waits[name]
        for reader in readers.get(name, ()):
            waits[reader] -= 1
            if waits[reader] == 0:
                free.append(reader)
    if not waits:
        return
    # Insertion order of a dict makes the walk linear: `path` is searched by key.
    name, path = next(iter(waits)), dict[str, None]()
    while name not in path:
        path[name] = None
        name = next(source for source in reads[name] if source in waits)
    walked = list(path)
    cycle = [name, *reversed(walked[walked.index(name) :])]
    nodes = [producers[step] for step in cycle[1:]]
    if all(node.kind == "call" for node in nodes):
        members = "calls " + ", ".join(repr(node.id) for node in nodes)
    else:
        members = ", ".join(map(describe, nodes))
    raise CyclicProgram(f"the program has a cycle: {' -> '.join(cycle)} ({members})", where=cycle[0])
