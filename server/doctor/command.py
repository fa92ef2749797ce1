"""`parrot doctor`: looks at all that `parrot serve` would need, and says what to do about what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module

from rich.console import Console
from rich.text import Text

from semantic_parrot.server.doctor.findings import Finding
from semantic_parrot.server.doctor.packages import packages
from semantic_parrot.server.options import ServeOptions

SIGNS = {"good": ("✓", "green"), "note": ("•", "yellow"), "bad": ("✗", "red")}


def examine(options: ServeOptions) -> Iterator[Finding]:
    """One thing after the other; what can't even be looked at is a finding too."""
    yield from packages()
    for look in ("machine", "model", "address"):
        try:
            # Not above: what it imports may be the very thing that is missing.
            yield from getattr(import_module("semantic_parrot.server.doctor.machine"), look)(options)
        except ImportError as error:
            yield Finding("bad", look, f"not looked at: {error}", "pip install 'semantic-parrot[server,engine]'")
        except Exception as error:  # a broken tokenizer, a driver that fails: whatever it is, the rest is looked at
            yield Finding("bad", look, f"{type(error).__name__}: {error}".splitlines()[0])


def doctor(options: ServeOptions, *, as_json: bool) -> int:
    """The exit code: 1 if `parrot serve` would not work."""
    found: list[Finding] = []
    console = Console(highlight=False)
    for finding in examine(options):
        found.append(finding)
        if not as_json:
            sign, colour = SIGNS[finding.level]
            console.print(
                Text.assemble((f"{sign} ", colour), (f"{finding.about}: ", "bold"), finding.found), soft_wrap=True
            )
            if finding.advice:
                console.print(Text(f"    → {finding.advice}"), soft_wrap=True)
    faults = sum(finding.level == "bad" for finding in found)
    if as_json:
        print(json.dumps([asdict(finding) for finding in found], indent=1))
    else:
        say = "parrot serve will start." if not faults else f"{faults} of these keep parrot serve from working."
        console.print(say)
    return 1 if faults else 0
