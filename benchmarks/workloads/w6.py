"""W6, mixed: people who chat, and read answers as they come, beside map-reduce jobs that nobody waits for. The app says
so, as the paper's does, in the place that LangChain has for what is to be known of a call; only Parrot reads it.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from langchain_core.language_models import BaseChatModel

from workloads import arrivals, w2, w8
from workloads.job import Job, scaled
from workloads.texts import Texts

CHATS, REDUCES = 60, 9
UNHURRIED = {"parrot": {"objective": "throughput"}}


def jobs(llm: BaseChatModel, texts: Texts, scale: float, seed: str) -> list[Job]:
    """At the paper's size a chat a second, and the jobs at once; time shrinks with the root of the scale. Those that
    are to be played alone come first: as long as the others, with texts of their own, which no cache has seen."""
    alone = [replace(job, app=f"{job.app} alone") for job in _mixed(llm, texts, scale, seed, "alone")]
    return alone + _mixed(llm, texts, scale, seed, "both")


def _mixed(llm: BaseChatModel, texts: Texts, scale: float, seed: str, part: str) -> list[Job]:
    rng = Random(seed)
    count = scaled(CHATS, scale**0.5, 6)
    chats = [
        w8.chat(llm, texts, scale, rng, at, f"{seed}/{part}/chat/{i}")
        for i, at in enumerate(arrivals.poisson(scale**-0.5, count, seed, "chat"))
    ]
    reduces = [w2.job(llm, texts, scale, f"{seed}/{part}/{i}") for i in range(scaled(REDUCES, scale**0.5, 2))]
    return chats + [replace(job, chain=job.chain.with_config(metadata=UNHURRIED)) for job in reduces]
