"""Which learning rate an arm gets: grid, edge, runoff, and what each stage costs."""

import pytest

from harness.ablation import plan, rates
from harness.ablation.config import load_ablation
from harness.ablation.cost import open_count
from harness.errors import UsageError

GRID = (1e-3, 4e-3, 1.6e-2)
FILE = """
[ablation]
tasks = ["selective_copy"]
seeds = 3
controls = false
tuning_seeds = 2
runoff_seeds = 2
learning_rates = [1e-3, 4e-3, 1.6e-2]
[baseline]
name = "k2"
[[changes]]
name = "k1"
kernel_width = 1
"""


def row(score, auc=0.0, status="ok"):
    return {"status": status, "validation": score, "auc": auc}


def first(tried, higher_is_better=True):
    return rates.ranked(tried, 0.5, higher_is_better)[0]


def test_the_highest_mean_wins_and_a_failure_scores_chance():
    tried = [
        (1e-3, row(0.7)),
        (1e-3, row(0.7)),
        (4e-3, row(0.95)),
        (4e-3, row(None, None, "crash")),
    ]
    assert first(tried) == 4e-3, "(0.95 + 0.5) / 2 = 0.725"
    assert first([*tried, (1e-3, row(0.8))]) == 1e-3
    assert first([(1e-3, row(0.2)), (4e-3, row(0.1))], higher_is_better=False) == 4e-3


def test_ties_go_to_the_area_then_to_the_smaller_rate():
    assert first([(1e-3, row(0.9, 0.3)), (4e-3, row(0.9, 0.4))]) == 4e-3
    assert first([(4e-3, row(0.9, 0.4)), (1e-3, row(0.9, 0.4))]) == 1e-3


def test_a_grid_grows_beyond_the_edge_that_wins_by_its_own_factor():
    assert rates.extended(GRID, 4e-3) == GRID
    assert rates.extended(GRID, 1e-3) == (2.5e-4, *GRID)
    assert rates.extended(GRID, 1.6e-2) == (*GRID, 6.4e-2)


@pytest.fixture
def cell(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(FILE)
    return plan.build(load_ablation(str(file))).cells[0]


def train(cell, rows, scores):
    """Rows of everything that is open: the score by (learning rate, seed less the first), or 0."""
    opened = cell.open_runs(rows)
    low = cell.tuning_seeds[0]
    for run in opened:
        rows[run.row_key] = row(scores.get((run.learning_rate, run.seed - low), 0.0))
    return {(run.role, run.learning_rate, run.seed) for run in opened}


def test_the_best_two_rates_meet_again_on_further_seeds_and_all_of_their_seeds_decide(cell):
    scores = {(4e-3, 0): 0.8, (4e-3, 1): 0.8, (1e-3, 0): 0.7, (1e-3, 1): 0.7, (1.6e-2, 0): 0.6}
    scores |= {(1e-3, 2): 0.9, (1e-3, 3): 0.9, (4e-3, 2): 0.6, (4e-3, 3): 0.7}
    rows = {}
    assert len(train(cell, rows, scores)) == 6
    low = cell.runoff_seeds[0]
    runoff = {("tune", rate, seed) for rate in (1e-3, 4e-3) for seed in (low, low + 1)}
    assert train(cell, rows, scores) == runoff
    assert {run for run in cell.open_runs(rows) if run.learning_rate != 1e-3} == set()
    assert train(cell, rows, scores) == {("final", 1e-3, seed) for seed in (0, 1, 2)}
    assert cell.open_runs(rows) == []


def finals(cell, scores):
    """(learning rate, edge flag) of the final runs."""
    rows = {}
    while (opened := cell.open_runs(rows)) and opened[0].role == "tune":
        train(cell, rows, scores)
    return {(run.learning_rate, run.lr_edge) for run in opened}


def test_an_edge_that_wins_the_runoff_alone_is_flagged_and_not_extended(cell):
    scores = {(4e-3, 0): 0.8, (4e-3, 1): 0.8, (1.6e-2, 0): 0.7, (1.6e-2, 1): 0.7}
    scores |= {(1.6e-2, 2): 0.9, (1.6e-2, 3): 0.9}
    assert finals(cell, scores) == {(1.6e-2, True)}


def test_an_edge_that_loses_the_runoff_is_not_flagged(cell):
    scores = {(1.6e-2, 0): 0.9, (1.6e-2, 1): 0.9, (4e-3, 0): 0.8, (4e-3, 1): 0.8}
    scores |= {(4e-3, 2): 0.9, (4e-3, 3): 0.9}
    assert finals(cell, scores) == {(4e-3, False)}


def test_a_tie_in_the_runoff_goes_to_the_smaller_rate(cell):
    scores = {(rate, seed): 0.8 for rate in (4e-3, 1.6e-2) for seed in range(4)}
    assert finals(cell, scores) == {(4e-3, False)}


def test_a_plan_counts_its_trainings_with_the_runoff_and_what_an_edge_may_add(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(FILE)
    made = plan.build(load_ablation(str(file)))
    assert made.most_runs == (2 * (6 + 4 + 3), 2 * (6 + 4 + 3 + 2))
    with pytest.raises(UsageError, match="--seeds 0"):
        plan.build(load_ablation(str(file)), wanted_seeds=0)


def test_more_seeds_than_lie_before_a_control_are_refused():
    aa = load_ablation("aa")
    assert len(plan.build(aa, wanted_seeds=100).cells) == 6
    with pytest.raises(UsageError, match=r"first_seed = 100: give at least 150"):
        plan.build(aa, wanted_seeds=150)


def test_a_rate_that_the_runoff_left_out_does_not_come_back(cell):
    scores = {(4e-3, 0): 0.9, (4e-3, 1): 0.8, (1e-3, 0): 0.8, (1e-3, 1): 0.8}
    scores |= {(1.6e-2, 0): 0.7, (1.6e-2, 1): 0.7}
    rows = {}
    train(cell, rows, scores)
    train(cell, rows, scores)  # the runoff's seeds score 0: the finalists fall below what lost
    assert {run.learning_rate for run in cell.open_runs(rows)} == {4e-3}


def test_what_is_open_counts_the_stages_that_are_to_come(cell):
    rows = {}
    assert cell.tunings == 6 + 2 * 2
    assert open_count(cell, rows) == 6 + 2 * 2 + 3
    train(cell, rows, {(4e-3, 0): 1.0})
    assert open_count(cell, rows) == 2 * 2 + 3
    train(cell, rows, {})
    assert open_count(cell, rows) == 3


def test_a_runoff_without_a_grid_is_refused(tmp_path):
    file = tmp_path / "mine.toml"
    lines = [line for line in FILE.splitlines() if not line.startswith(("learning", "tuning"))]
    file.write_text("\n".join(lines))
    with pytest.raises(UsageError, match="runoff_seeds = 2 without learning_rates"):
        load_ablation(str(file))
