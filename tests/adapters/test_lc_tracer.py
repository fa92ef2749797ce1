"""LangSmith's tracer sees the same runs, eager and planned. Its client is replaced: there is no LangSmith here."""

from __future__ import annotations

from unittest.mock import MagicMock

import pytest
from langchain_core.tracers.langchain import LangChainTracer
from langsmith import Client
from lc_recorder import seen
from lc_shapes import PROMISED

from semantic_parrot.adapters.langchain import ChatParrot, disabled


def keeping():
    """A tracer, and the list of root runs that it and its copies would send."""
    roots = []

    class Keeping(LangChainTracer):
        def _persist_run(self, run):
            roots.append(run)

    return Keeping(client=MagicMock(spec=Client)), roots


def tree(run):
    """Without ids, times and how often the answer was seen."""
    fields = (run.name, run.run_type, sorted(run.tags or ()), seen(run.inputs), seen(run.outputs), run.error)
    return fields, sorted((tree(child) for child in run.child_runs), key=str)


WAYS = {
    "invoke": lambda chain, given, config: chain.invoke(given, config),
    "stream": lambda chain, given, config: list(chain.stream(given, config)),
    "batch": lambda chain, given, config: chain.batch([given, given], config),
}


@pytest.mark.parametrize("shape", PROMISED, ids=lambda shape: shape.name)
@pytest.mark.parametrize("way", WAYS)
def test_the_tracer_sees_the_same_runs(server, shape, way):
    chain = shape.build(ChatParrot(base_url=server.url, temperature=0, max_retries=0))
    found = []
    for eager in (True, False):
        tracer, roots = keeping()
        if eager:
            with disabled():
                WAYS[way](chain, shape.input, {"callbacks": [tracer]})
        else:
            WAYS[way](chain, shape.input, {"callbacks": [tracer]})
        found.append(sorted((tree(root) for root in roots), key=str))
    assert found[0] == found[1]
    assert len(found[0]) == (2 if way == "batch" else 1)
    assert "'total_tokens'" in str(found[0])
