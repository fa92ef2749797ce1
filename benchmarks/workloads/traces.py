"""Others' traces as workloads: BurstGPT's CSV files, and the conversations of aiperf's DAG files.

BurstGPT (Wang et al., KDD 2025): a row is a request, with its seconds (`Timestamp`) and the lengths of prompt and
answer (`Request tokens`, `Response tokens`); requests that failed have no answer and are left out. Texts are made.

aiperf's `dag_jsonl`: a line is a session with its turns. A turn's messages, and its answer, are added to the session's;
then its `forks` start, which go on from there, and its `spawns`, which start anew and are waited for before a later
turn. What is sent is in the file, so scale changes nothing, and each repetition sends what caches of peers know.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from langchain_core.language_models import BaseChatModel

from workloads import dag, w8
from workloads.job import Call, Job, Jobs, scaled
from workloads.texts import Texts

ROWS = 1000  # of a CSV file, at scale 1
COLUMNS = ("Timestamp", "Request tokens", "Response tokens")


def burst_gpt(path: Path) -> Jobs:
    """Lengths shrink with the scale; gaps and the number of requests by its root. Raises ValueError naming the line."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if missing := sorted(set(COLUMNS) - set(reader.fieldnames or ())):
            raise ValueError(f"{path}: no column {missing[0]!r}")
        rows = []
        for line in islice(reader, ROWS):
            try:
                at, prompt, answer = float(line[COLUMNS[0]]), int(line[COLUMNS[1]]), int(line[COLUMNS[2]])
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {reader.line_num}: {error}") from None
            if prompt > 0 and answer > 0:
                rows.append((at, prompt, answer))
    if not rows:
        raise ValueError(f"{path}: no request that has an answer")

    def jobs(llm: BaseChatModel, texts: Texts, scale: float, seed: str) -> list[Job]:
        found, pace = [], min(1.0, scale**0.5)
        for i, (at, prompt, answer) in enumerate(rows[: scaled(len(rows), pace, 8)]):
            size, tokens = scaled(prompt, scale, 8), scaled(answer, scale, 8)
            message = {"message": texts.text(size, seed, i)}
            due = (at - rows[0][0]) * pace
            found.append(Job(due, "chat", w8.app(llm, tokens), message, (Call(size, tokens),), stream=True))
        return found

    return jobs


#: By the end of the file's name.
KINDS: dict[str, tuple[str, Callable[[Path], Jobs]]] = {
    ".csv": ("requests of a BurstGPT trace", burst_gpt),
    ".jsonl": ("conversations of an aiperf DAG file", dag.conversations),
}
