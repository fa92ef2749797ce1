"""The shipped demo model: a world that repeats by seed, and weights that do its tasks exactly."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from semantic_parrot.core.demo_model import MODEL_DIR, vocabulary, world

if TYPE_CHECKING:
    from semantic_parrot.core.demo_model.evaluate import Evaluator

SEED = world.HELD_OUT_SEEDS.start + 1_000
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def evaluator() -> "Iterator[Evaluator]":
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from semantic_parrot.core.demo_model.evaluate import Evaluator

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Evaluator(MODEL_DIR)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("task", world.TASKS)
def test_equal_seeds_give_equal_examples_and_others_do_not(task: str) -> None:
    drawn = [[world.example(task, random.Random(seed)) for seed in range(20)] for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 20


def test_a_day_repeats_by_seed_and_holds_distinct_vessels() -> None:
    entries = world.day(5, 16).split("\n\n")
    assert len(entries) == 16
    assert entries == world.day(5, 16).split("\n\n") != world.day(6, 16).split("\n\n")
    vessels = [name for entry in entries for name in vocabulary.VESSELS if re.search(rf"\b{name}\b", entry)]
    assert len(vessels) == len(set(vessels)) == 16


def test_answers_agree_with_the_entry() -> None:
    for entry in world.records(random.Random(1), 30):
        fields = json.loads(entry.json)
        assert all(str(value) in entry.text for key, value in fields.items() if key != "event")
        assert entry.summary.startswith(f"{entry.vessel} {'arrived' if entry.event == 'arrival' else 'left'} ")
        assert f"berth {entry.berth} with {entry.tonnes} tonnes of {entry.goods}." in entry.summary


def test_a_report_grows_as_a_merge_would_have_it() -> None:
    entries = world.records(random.Random(2), world.MAX_MERGE)
    assert world.report([]) == world.NOTHING_YET
    assert world.report(entries).count(";") == world.MAX_MERGE - 1
    assert world.report(entries).startswith(world.report(entries[:3]).rstrip("."))


def test_translation_keeps_names_numbers_and_capitals() -> None:
    assert world.translate("The ferry Heron left berth 12.") == "Lo paso Heron resto mola 12."


def test_training_and_measuring_draw_from_different_seeds() -> None:
    assert world.TRAIN_SEEDS.stop <= world.HELD_OUT_SEEDS.start
    assert SEED in world.HELD_OUT_SEEDS


def test_the_weights_are_small_enough_to_ship() -> None:
    assert (MODEL_DIR / "model.safetensors").stat().st_size <= 8 * MEGABYTE
    assert sum(path.stat().st_size for path in MODEL_DIR.iterdir()) <= 10 * MEGABYTE


def test_importing_the_world_loads_no_torch() -> None:
    code = (
        "import sys, semantic_parrot.core.demo_model, semantic_parrot.core.demo_model.world\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_training_seed_is_refused_for_measuring(evaluator: "Evaluator") -> None:
    with pytest.raises(ValueError, match="not in"):
        evaluator.score("extract", world.TRAIN_SEEDS.start, 1)


@pytest.mark.parametrize("task", world.TASKS)
def test_exact_match_on_held_out_examples(evaluator: "Evaluator", task: str) -> None:
    score = evaluator.score(task, SEED, 32)
    assert score.exact_match >= 0.95, score.miss


def test_map_reduce_over_a_day_is_exact(evaluator: "Evaluator") -> None:
    entries = world.records(random.Random(SEED), world.MAX_MERGE)
    prompts = [world.SUMMARISE.format(text=entry.text) for entry in entries]
    summaries = evaluator.answers([[{"role": "user", "content": prompt}] for prompt in prompts])
    merge = world.MERGE.format(summaries="\n\n".join(summaries))
    assert evaluator.answers([[{"role": "user", "content": merge}]]) == [world.report(entries)]
