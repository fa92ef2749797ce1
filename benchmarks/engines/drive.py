"""One type of weights: every engine started, checked, and measured in turn."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

from engines import check
from engines.inprocess import InProcess
from engines.model import prompt
from engines.results import Results
from engines.workloads import Workload, check_counts, seconds
from peers.client import Answer
from peers.peer import Peer, Setup
from peers.process import PeerFailed, Process

Say = Callable[[str], None]


class Engine(Protocol):
    name: str

    def together(self, prompts: list[str], tokens: int) -> list[Answer]:
        """Raises PeerFailed."""
        ...

    def gone(self) -> str | None:
        """Why it can't be asked any more."""
        ...


class Served:
    def __init__(self, peer: Peer, process: Process, setup: Setup) -> None:
        self.name, self._peer, self._process, self._setup = peer.name, peer, process, setup

    def together(self, prompts: list[str], tokens: int) -> list[Answer]:
        return self._peer.ask(self._process, self._setup, prompts, tokens)

    def gone(self) -> str | None:
        return self._process.ended()


class Here:
    name = "parrot in process"

    def __init__(self, setup: Setup, kv_tokens: int) -> None:
        self._engine = InProcess(setup, kv_tokens=kv_tokens)

    def together(self, prompts: list[str], tokens: int) -> list[Answer]:
        return self._engine.together(prompts, tokens)

    def gone(self) -> str | None:
        return None


@contextmanager
def started(peers: Sequence[Peer], setup: Setup, results: Results, say: Say) -> Iterator[list[Engine]]:
    """Those that can be started; why the others can't is in `results`."""
    with ExitStack() as stack:
        engines: list[Engine] = []
        for peer in peers:
            say(f"{setup.dtype}: starting {peer.name}")
            try:
                if (why := peer.missing()) is not None:
                    raise PeerFailed(why)
                results.data["versions"][peer.name] = peer.version()
                engines.append(Served(peer, stack.enter_context(peer.start(setup)), setup))
            except PeerFailed as error:
                results.failure(setup.dtype, peer.name, None, str(error))
                say(f"  {peer.name}: {error}")
        yield engines


def checked(engines: list[Engine], setup: Setup, words: list[str], results: Results, say: Say) -> None:
    """Compare everybody's text with the reference's. An engine that answers something else stays: its row says so."""
    prompts = [prompt(words, check.PROMPT_TOKENS, "check", i) for i in range(check.PROMPTS)]
    expected = check.reference(setup.checkpoint, prompts)
    tokens = sum(e.tokens for e in expected)
    for engine in list(engines):
        with watched(engine, engines, None, setup, results, say):
            wrong = check.difference(expected, [a.text for a in engine.together(prompts, check.TOKENS)])
            results.data["checks"][engine.name] = {"same": wrong is None, "tokens": tokens, "difference": wrong}
            say(f"  {engine.name}: {wrong or f'the same text as transformers in fp32, {tokens} tokens compared'}")
    results.save()


def measured(
    engines: list[Engine],
    works: Sequence[Workload],
    setup: Setup,
    words: list[str],
    repeats: int,
    results: Results,
    say: Say,
) -> None:
    """Every workload with every engine, one after the other in a new order each time; the first round warms up."""
    rng = random.Random(0)
    broken: set[tuple[str, str]] = set()
    for repeat in range(-1, repeats):
        for work in works:
            prompts = work.prompts(words, repeat)
            for engine in rng.sample(engines, len(engines)):
                if (engine.name, work.key) in broken:
                    continue
                with watched(engine, engines, work.key, setup, results, say) as failed:
                    answers = engine.together(prompts, work.tokens)
                    check_counts(answers, work)
                    figure = work.figure(answers, work)
                    if repeat >= 0:
                        results.run(setup.dtype, engine.name, work.key, repeat, figure, seconds(answers))
                if failed:
                    broken.add((engine.name, work.key))
        say(f"{setup.dtype}: {'warmed up' if repeat < 0 else f'repetition {repeat + 1} of {repeats}'}")


@contextmanager
def watched(
    engine: Engine, engines: list[Engine], work: str | None, setup: Setup, results: Results, say: Say
) -> Iterator[list[str]]:
    """What goes wrong is noted (and in what is yielded); an engine that died is asked no more."""
    failed: list[str] = []
    try:
        yield failed
    except PeerFailed as error:
        gone = engine.gone()
        failed.append(gone or str(error))
        results.failure(setup.dtype, engine.name, None if gone else work, failed[0])
        say(f"  {engine.name}{f', {work}' if work else ''}: {failed[0]}")
        if gone:
            engines.remove(engine)
