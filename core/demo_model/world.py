"""A small, seeded harbour world: log entries, and the five tasks that the demo model does on them.

Pure standard library. Everything is drawn from the `random.Random` that is handed in, so equal seeds give
equal text. Training draws its seeds from `TRAIN_SEEDS`, every measurement from `HELD_OUT_SEEDS`.
"""

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from semantic_parrot.core.demo_model import vocabulary as words

TRAIN_SEEDS: Final = range(1_000_000_000)
HELD_OUT_SEEDS: Final = range(1_000_000_000, 2_000_000_000)

MAX_MERGE: Final = 16
"""The most entries that one report was trained to hold."""

NOTHING_YET: Final = "nothing yet"
"""The report before the first entry of a refine chain."""

EXTRACT: Final = "Extract the entry as JSON:\n{text}"
SUMMARISE: Final = "Summarise this entry in one sentence:\n{text}"
TRANSLATE: Final = "Translate into Harbourish: {text}"
MERGE: Final = "Merge these summaries into one report:\n{summaries}"
UPDATE: Final = "Report so far: {report}\nNew entry: {text}\nGive the updated report."


@dataclass(frozen=True, slots=True)
class Record:
    """One log entry: its fields, and its prose as the log has it."""

    vessel: str
    type: str
    event: str  # "arrival" or "departure"
    time: str  # "HH:MM"
    berth: int
    tonnes: int
    goods: str
    master: str
    text: str

    @property
    def json(self) -> str:
        """The answer to `EXTRACT`: one line, keys in this order."""
        keys = ("vessel", "type", "event", "time", "berth", "tonnes", "goods", "master")
        return json.dumps({key: getattr(self, key) for key in keys})

    @property
    def summary(self) -> str:
        """The answer to `SUMMARISE`."""
        verb = "arrived at" if self.event == "arrival" else "left"
        return f"{self.vessel} {verb} berth {self.berth} with {self.tonnes} tonnes of {self.goods}."

    @property
    def item(self) -> str:
        """This entry's part of a report."""
        return f"{self.vessel} {'in' if self.event == 'arrival' else 'out'} {self.berth}"


def record(rng: random.Random, vessel: str | None = None) -> Record:
    """One entry; of the given vessel, if there is one."""
    fields = {
        "vessel": vessel or rng.choice(words.VESSELS),
        "type": rng.choice(words.TYPES),
        "time": f"{rng.randrange(24):02}:{rng.randrange(60):02}",
        "master": rng.choice(words.MASTERS),
        "goods": rng.choice(words.GOODS),
    }
    event = rng.choice(("arrival", "departure"))
    berth, tonnes = rng.randint(1, 24), rng.randint(2, 99)
    pattern = rng.choice(words.ARRIVALS if event == "arrival" else words.DEPARTURES)
    sentences = [pattern.format(**fields, berth=berth, tonnes=tonnes)]
    for filler in rng.sample(words.FILLERS, rng.randint(1, 2)):
        sentences.insert(rng.choice((0, len(sentences))), filler)
    return Record(**fields, event=event, berth=berth, tonnes=tonnes, text=" ".join(sentences))


def records(rng: random.Random, count: int) -> list[Record]:
    """Entries of distinct vessels.

    Raises:
        ValueError: there are not that many vessels.
    """
    return [record(rng, vessel) for vessel in rng.sample(words.VESSELS, count)]


def day(seed: int, n: int) -> str:
    """One day's log: `n` entries of distinct vessels, a blank line between two."""
    return "\n\n".join(entry.text for entry in records(random.Random(seed), n))


def report(entries: Sequence[Record]) -> str:
    """The answer to `MERGE` and to `UPDATE`: each vessel, in or out, and its berth, in order."""
    return "; ".join(entry.item for entry in entries) + "." if entries else NOTHING_YET


def translate(text: str) -> str:
    """Harbourish, word by word: what the lexicon lacks (names, numbers) stays, and so does a capital."""

    def word(match: re.Match[str]) -> str:
        found = words.HARBOURISH.get(match[0].lower(), match[0])
        return found.capitalize() if match[0][0].isupper() else found

    return re.sub(r"[A-Za-z]+", word, text)


def _as_read(entry: Record, rng: random.Random) -> str:
    """The text of an entry as an application may cut it from a file: now and then with its line end."""
    return entry.text + ("\n" if rng.random() < 0.1 else "")


def _extract(rng: random.Random, _most: int) -> tuple[str, str]:
    entry = record(rng)
    return EXTRACT.format(text=_as_read(entry, rng)), entry.json


def _summarise(rng: random.Random, _most: int) -> tuple[str, str]:
    entry = record(rng)
    return SUMMARISE.format(text=_as_read(entry, rng)), entry.summary


def _translate(rng: random.Random, most: int) -> tuple[str, str]:
    entry, form = record(rng), rng.randrange(4)
    if form == 0:  # a whole report: what stands at the end of a map-reduce
        text = report(records(rng, rng.randint(1, most)))
    elif form == 1:
        fields = {key: getattr(entry, key) for key in ("vessel", "type", "time", "berth", "tonnes", "goods")}
        text = rng.choice(words.PHRASES).format(**fields)
    else:
        text = entry.summary
    return TRANSLATE.format(text=text), translate(text)


def _merge(rng: random.Random, most: int) -> tuple[str, str]:
    entries = records(rng, rng.randint(1, most))
    joint = rng.choice(("\n", "\n\n"))  # LangChain's own document chains join by a blank line
    return MERGE.format(summaries=joint.join(entry.summary for entry in entries)), report(entries)


def _update(rng: random.Random, most: int) -> tuple[str, str]:
    *before, entry = entries = records(rng, rng.randint(1, most))
    return UPDATE.format(report=report(before), text=_as_read(entry, rng)), report(entries)


_MAKERS: Final[Mapping[str, Callable[[random.Random, int], tuple[str, str]]]] = MappingProxyType(
    {
        "extract": _extract,
        "summarise": _summarise,
        "translate": _translate,
        "merge": _merge,
        "update": _update,
    }
)

TASKS: Final = tuple(_MAKERS)


def example(task: str, rng: random.Random, most: int = MAX_MERGE) -> tuple[str, str]:
    """A user message and the only right answer to it; a report in them holds at most `most` entries.

    Raises:
        KeyError: no such task; `TASKS` has them.
    """
    return _MAKERS[task](rng, most)


def system_message(rng: random.Random) -> str | None:
    """None half of the time, else one to four lines a service may set as its system message."""
    if rng.random() < 0.5:
        return None
    return " ".join(rng.sample(words.SYSTEM_LINES, rng.choice((1, 1, 2, 4))))
