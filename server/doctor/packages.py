"""Whether what each extra names is installed, and new enough; by this package's own metadata."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from semantic_parrot.server.doctor.findings import Finding

NAME = "semantic-parrot"

#: What cannot be missing for `parrot serve`, and what an application may do without.
NEEDED, OPTIONAL = ("", "server", "engine"), ("langchain", "sk", "ray")


def packages() -> Iterator[Finding]:
    stated = [Requirement(line) for line in metadata.requires(NAME) or ()]
    for extra in (*NEEDED, *OPTIONAL):
        wanted = [r for r in stated if _belongs(r, extra) and canonicalize_name(r.name) != NAME]
        versions = {r.name: _version(r.name) for r in wanted}
        there = {name: version for name, version in versions.items() if version is not None}
        old = [
            f"{r.name} {there[r.name]} (wanted: {r.specifier})"
            for r in wanted
            if r.name in there and not _fits(r, there)
        ]
        lacking = sorted(versions.keys() - there.keys())
        about, how = f"extra {extra}" if extra else "package", f"pip install -U '{NAME}[{extra}]'" if extra else ""
        if old:
            yield Finding("bad", about, "not what it needs: " + ", ".join(old), how or f"pip install -U {NAME}")
        elif lacking and extra in NEEDED:
            yield Finding("bad", about, "not installed: " + ", ".join(lacking), how or f"pip install -U {NAME}")
        elif lacking:
            yield Finding("note", about, "not installed: " + ", ".join(lacking), f"{how}, if you need it")
        else:
            yield Finding("good", about, ", ".join(f"{name} {version}" for name, version in there.items()))


def _belongs(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    if marker is None:
        return extra == ""
    return marker.evaluate({"extra": extra}) and (extra == "" or not marker.evaluate({"extra": ""}))


def _fits(requirement: Requirement, there: dict[str, str]) -> bool:
    return requirement.specifier.contains(there[requirement.name], prereleases=True)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
