"""W4, GPTs: four apps with system prompts of their own, whose users come at random; answers are read as they come."""

from __future__ import annotations

from random import Random

from langchain_core.language_models import BaseChatModel

from workloads import arrivals, w3
from workloads.job import Call, Job, scaled
from workloads.texts import Texts

APPS = ((7437, 7, 704), (1116, 8, 89), (1694, 4, 631), (2031, 4, 416))  # tokens: system prompt, question, answer
REQUESTS = 200


def jobs(llm: BaseChatModel, texts: Texts, scale: float, seed: str) -> list[Job]:
    """One a second."""
    apps = []
    for kind, (system, question, answer) in enumerate(APPS):
        size, tokens = scaled(system, scale, 32), scaled(answer, scale, 8)
        own = w3.app(llm, texts.text(size, seed, "system", kind), tokens)
        apps.append((own, question, Call(question, tokens, begins=((f"gpt{kind}", size),))))
    # Fewer would all be served at once, whatever their rate.
    rng, count = Random(seed), scaled(REQUESTS, scale, 100)
    found = []
    for i, at in enumerate(arrivals.poisson(1.0, count, seed)):
        kind = rng.randrange(len(apps))
        own, question, call = apps[kind]
        asked = {"question": texts.text(question, seed, i)}
        found.append(Job(at, f"gpt{kind}", own, asked, (call,), stream=True))
    return found
