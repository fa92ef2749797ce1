"""Siblings that decode over one prefix give the tokens that each gives alone: tree attention inside the engine."""

from __future__ import annotations

import pytest

from semantic_parrot.kernels.c_rows import Rows
from semantic_parrot.kernels.torch_tree import TreePlan

LINE = "The harbour master wrote down each ship, its cargo and the hour at which it left the quay. "
DOCUMENTS = (LINE * 10, "naïve café 🦜 " * 40)
QUESTIONS = ("Who wrote?", "What left, and when was that?", "A", "Summarise it.", "One", "Two", "Three", "Which quay?")
PROMPTS = [LINE * 4 + document + question for document in DOCUMENTS for question in QUESTIONS]
OUT = 24


@pytest.mark.parametrize("kernels", ["torch", "c"])
@pytest.mark.parametrize("family", ["llama", "mistral", "phi3_longrope"])
def test_siblings_decode_as_they_would_alone(tiny, bench, ask, family, kernels, request):
    if kernels == "c":
        request.getfixturevalue("in_c")
    alone = bench(tiny(family), prefix_cache=False, max_batch=1, kernels=kernels)
    alone.run(*(ask(p, OUT) for p in PROMPTS))
    together = bench(tiny(family), kernels=kernels)
    plans = []
    plan = together.recorded.runner._plan

    def watched(*args):
        plans.append(plan(*args))
        return plans[-1]

    together.recorded.runner._plan = watched
    together.run(*(ask(p, OUT) for p in PROMPTS))
    if kernels == "torch":
        trees = [p.trees.shared for p in plans if isinstance(p, TreePlan)]
        assert any(len(shared) == 3 for shared in trees), "no step had the two documents under one beginning"
    elif family != "mistral":  # whose window cuts
        rows = [part for plan in plans for part in plan.parts if isinstance(part, Rows)]
        runs = [table for part in rows for _, table in part._runs.values()]
        assert any((table[:, 1] - table[:, 0] > 1).sum() > 1 for table in runs), "no rows went together"
    for n, prompt in enumerate(PROMPTS, 1):
        assert together.tokens(n) == alone.tokens(n), prompt
