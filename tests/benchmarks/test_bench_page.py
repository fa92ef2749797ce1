"""The page of the proof is a function of result files: ratios of pairs, verdicts, what failed; and its picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proof import middleware, page, plots
from proof.goals import GOALS, Ratio, better, goal_of, ratio_of

GOAL = next(goal for goal in GOALS if goal.workload == "W2")


def result(took: dict[str, list[float]], **more: Any) -> dict[str, Any]:
    """W2, `took` seconds by comparator; at 250 ms, half a second more."""
    runs = [
        {
            "workload": "W2", "comparator": name, "rtt": rtt, "repeat": i, "dtype": "bfloat16",
            "figures": {"seconds": s + rtt / 500, "whole": s + rtt / 500}, "bound": 1.0, "requests": 7, "computed": 99,
        }
        for name, seconds in took.items() for rtt in (0.0, 250.0) for i, s in enumerate(seconds)
    ]  # fmt: skip
    return {
        "started": "2026-01-01",
        "finished": True,
        "machine": {"processor": "abacus", "cores": 2, "commit": "c0ffee", "date": "2026-01-01"},
        "settings": {
            "workloads": {"W2": "map-reduce summary"}, "comparators": {name: name for name in [*took, "vllm"]},
            "rtt": [0.0, 250.0], "threads": 2, "model": "tiny", "dtype": "bfloat16", "scale": {"W2": 0.2}, "repeats": 4,
        },
        "checks": {"W2": {name: {"same": True, "difference": None} for name in took}},
        "failures": [{"engine": "vllm", "dtype": "float32", "workload": None, "why": "not installed"}],
        "runs": runs,
        **more,
    }  # fmt: skip


TOOK = {"parrot": [1.0, 2.0, 1.0, 1.0], "E0": [5.0, 10.0, 5.0, 5.0], "E1": [1.0, 2.1, 1.0, 1.1]}


def test_ratios_are_of_pairs_and_judged_by_their_interval() -> None:
    data = result(TOOK)
    e0 = better(data, GOAL, "E0", 0.0)
    assert e0 == Ratio(5.0, 5.0, 5.0, 4)
    lines = page.tables([data]).splitlines()
    (row,) = [line for line in lines if line.startswith("| W2, completion | 0 ms")]
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[3] == "5.00 [5.00, 5.00] of 4.4: **met**"
    assert "of 1.5: **missed**" in cells[4]
    assert cells[5] == "failed: not installed"
    assert cells[6] == cells[7] == "not measured"


def test_every_goal_has_a_row_for_each_round_trip() -> None:
    text = page.tables([])
    for goal in GOALS:
        for rtt in ("0 ms", "250 ms"):
            assert f"| {goal.workload}, {goal.what} | {rtt} |" in text
    assert "not measured (goal 4.4)" in text


def test_noise_is_told_as_noise() -> None:
    assert str(ratio_of([1.0, 3.0, 2.0])) == "noise hides it [1.00, 3.00]"
    wide = ratio_of([1.0, 3.0, 2.0])
    assert [wide.verdict(goal) for goal in (0.9, 2.0, 3.1)] == ["met", "not decided", "missed"]
    assert [wide.within(goal) for goal in (0.9, 2.0, 3.1)] == ["missed", "not decided", "met"]
    assert ratio_of([2.0, 2.0]).verdict(1.0) == ratio_of([2.0, 2.0]).within(3.0) == "not decided"
    assert str(ratio_of([2.0, 2.0])) == "too few repetitions (2)"
    assert Ratio(1.5, 1.4, 1.6, 5).verdict(1.5) == "not decided"
    assert [Ratio(1.5, 1.4, 1.6, 5).within(goal) for goal in (1.3, 1.5, 1.6)] == ["missed", "not decided", "met"]
    assert ratio_of([]) is None


def test_a_rate_is_better_the_higher_it_is() -> None:
    goal = next(goal for goal in GOALS if goal.workload == "W4")
    rates = {"parrot": [4.0] * 3, "E0": [2.0] * 3}
    runs = [
        {"workload": "W4", "comparator": name, "rtt": 0.0, "repeat": i, "figures": {"rate": rate}}
        for name, own in rates.items() for i, rate in enumerate(own)
    ]  # fmt: skip
    assert better({"runs": runs}, goal, "E0", 0.0) == Ratio(2.0, 2.0, 2.0, 3)


def test_who_serves_no_rate_was_measured() -> None:
    goal = next(goal for goal in GOALS if goal.workload == "W4")
    rows = [
        {"workload": "W4", "comparator": name, "rtt": 0.0, "repeat": i, "figures": {"rate": rate}}
        for name, rate in (("parrot", 4.0), ("E0", 0.0)) for i in range(3)
    ]  # fmt: skip
    data = {"runs": rows, "failures": []}
    assert page._goal(data, goal, "E0", 0.0) == "it serves none (goal 15)"
    assert page._goal(data, goal, "E0", 250.0) == "not measured (goal 15)"


def test_another_text_stands_beside_the_figure() -> None:
    data = result(TOOK)
    data["checks"]["W2"]["E0"] = {"same": False, "difference": "answer 0 differs"}
    text = page.tables([data])
    assert "ANOTHER TEXT of 4.4" in text
    assert "ANOTHER TEXT: answer 0 differs" in text


def test_an_interrupted_run_says_so_and_the_newest_counts() -> None:
    old, new = result(TOOK, finished=False), result(TOOK, started="2026-01-02")
    assert "INTERRUPTED" in page.tables([old])
    assert "INTERRUPTED" not in page.tables([new, old])


def test_each_scale_has_rows_of_its_own() -> None:
    larger = result({**TOOK, "parrot": [0.5] * 4}, started="2026-01-02")
    larger["settings"]["scale"] = {"W2": 0.5}
    text = page.tables([larger, result(TOOK)])
    rows = [line.split("|")[1].strip() for line in text.splitlines() if ", completion | 0 ms" in line]
    assert rows.index("W2 at 0.5, completion") == rows.index("W2, completion") + 1
    assert text.index("scale 0.2, 4 repetitions") < text.index("scale 0.5, 4 repetitions")


def test_an_ablation_takes_no_comparisons_place() -> None:
    part = result({"parrot": [1.0] * 3, "without:planning": [2.0] * 3}, started="2026-01-02")
    text = page.tables([result(TOOK), part])
    assert "5.00 [5.00, 5.00] of 4.4: **met**" in text
    assert "## W2, map-reduce summary: ablation" in text


def test_the_bound_is_judged_with_the_network_in_it() -> None:
    assert page.over_bound(result(TOOK), "W2", 250.0) == Ratio(1.5, 1.5, 2.5, 4)


def test_a_miss_says_what_the_bound_would_allow() -> None:
    text = page.tables([result(TOOK)])
    (row,) = [line for line in text.splitlines() if line.startswith("| W2, completion | 0 ms")]
    # E1 took 1.0, 2.1, 1.0 and 1.1 s, the bound is 1 s.
    assert "of 1.5: **missed** (at the lower bound: noise hides it [1.00, 2.10])" in row
    assert "lower bound" not in row.split("|")[3], "what is met needs no excuse"


def test_an_ablation_tells_each_part_of_the_gain() -> None:
    took = {"parrot": [1.0] * 3, "E0": [4.0] * 3, "without:planning": [2.0] * 3, "without:retention": [1.0] * 3}
    text = page.tables([result(took)])
    assert "| without:planning | 0 ms | 2.00 [2.00, 2.00] | 50% |" in text
    assert "| without:retention | 0 ms | 1.00 [1.00, 1.00] | 0% |" in text
    assert "ablation" not in page.tables([result(TOOK)])


def test_a_variant_is_compared_by_what_the_workload_is() -> None:
    assert (goal_of("W4-sk").figure, goal_of("W4-sk").workload) == ("rate", "W4-sk")
    assert goal_of("W6").figure == goal_of("other.csv").figure == "seconds"


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    data = result(TOOK)
    plots.draw(page.latest([data]), tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes()[1:4] == b"PNG"
    plots.draw({}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_a_round_trip_is_in_the_legend_though_its_first_bar_is_noise() -> None:
    panel = pytest.importorskip("matplotlib.figure").Figure().subplots()
    plots.fill(panel, "W2", result({"parrot": [1.0] * 3, "E0": [1.0, 5.0, 2.5], "E1": [2.0] * 3}))
    assert len(panel.patches) == 3  # E1's two bars, and the paper's
    told = [text.get_text() for text in panel.get_legend().texts]
    assert sorted(told) == ["RTT 0 ms", "RTT 250 ms", "the paper, over its baseline"]


def test_middleware_without_a_result_is_not_measured(tmp_path: Path) -> None:
    assert "not measured" in middleware.lines(tmp_path)[2]
