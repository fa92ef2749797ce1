"""The report of a run as one HTML page: no script, nothing to load."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from semantic_parrot.server.explain import timeline, words


@cache
def _template() -> jinja2.Template:
    source = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    env = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    return env.from_string(source)


def page(report: Mapping[str, Any]) -> str:
    """Whatever a client has written into ids, names and errors stands in it as text."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(report["created"]))
    picture = timeline.draw(report)
    return _template().render(report=report, picture=picture, when=when, words=words, t=timeline)
