"""Requests and programs for the scripted engine, and what it makes of them."""

from __future__ import annotations

from scripted import answer

from semantic_parrot.core.program import parse_program
from semantic_parrot.core.request import parse_request
from semantic_parrot.core.wire import render, template


def request(*parts, **more):
    return {"model": "default", "temperature": 0, "messages": [{"role": "user", "content": template(*parts)}], **more}


def program(calls, **more):
    """`calls`: output -> parts of its prompt."""
    listed = [{"id": f"call_{o}", "output": o, "request": request(*parts)} for o, parts in calls.items()]
    return parse_program({"calls": listed, **more})


def expected(calls, inputs):
    values = dict(inputs)
    for name, parts in calls.items():
        values[name] = answer(parse_request(render(request(*parts), values)))
    return values
