"""What arms cost, by recorded trainings and by counting; and whether implementations agree."""

import re
from dataclasses import replace
from itertools import pairwise

import pandas as pd

from harness import plots
from harness.ablation import accuracy
from harness.analysis import accord, depths, outcomes
from harness.plots import record
from tests.recorded.ablation import SCORES, write_ablation

SMALL = {"seeds": 2, "rates": (), "mishaps": {}, "scores": {"counting": SCORES["counting"]}}
CELL = {"impl": "x", "kind": "forward", "dtype": "float32", "device": "cpu", "speedup": None,
        "status": "ok"}  # fmt: skip
NO_CELLS = pd.DataFrame(columns=list(CELL))


def studied(folder, **more):
    return accuracy.load(write_ablation(folder, **{**SMALL, **more}))


def test_cost_is_cpu_time_with_its_spread_and_no_ratio_of_wall_times(tmp_path):
    study = studied(tmp_path / "run", names=("baseline", "k4"))
    for row in study.rows:
        row |= {"cpu_s": 3.5 + 0.35 * row["seed"], "steps_done": 350, "ms_per_step": 77.0}
    shown = plots.step_times(study, NO_CELLS).text
    assert "<td>10.5 (10.0 – 11.0)</td>" in shown
    assert "CPU ms per step, with evaluations" in shown
    assert "77" not in shown.split("base64")[0]
    assert "× reference" not in shown
    assert "not interleaved" in shown
    drawn = plots.score_and_cost(study).text
    assert "against CPU ms per step, with evaluations: baseline" in drawn
    assert "at 10.5" in drawn


def test_the_speed_page_is_linked_where_the_folder_has_timings(tmp_path):
    study = studied(tmp_path / "run", names=("baseline", "k4"))
    timed = pd.DataFrame([CELL])
    assert 'href="speed.html"' in plots.step_times(study, timed).text
    assert "speed.html" not in plots.step_times(study, NO_CELLS).text


def test_memory_is_shown_with_its_spread_and_never_ranked(tmp_path):
    study = studied(tmp_path / "run", names=("baseline", "k4"))
    for row in study.rows:
        row["peak_bytes"] = (1 + row["seed"]) * 2**20
    assert "<td>1.50 (1.00 – 2.00)</td>" in plots.step_times(study, NO_CELLS).text
    assert "MiB" not in plots.score_and_cost(study).text


def test_dense_and_plain_stacks_are_counted_to_eight_layers_as_the_trained_rows_say(tmp_path):
    """50,833 and 75,409 parameters, 578,764,800 and 861,880,320 FLOP are of recorded trainings."""
    study = studied(tmp_path / "run", names=("baseline",))
    study.plan["tasks"][0]["input_size"] = 64
    task, rows = depths.counted(study)
    assert (task, [row.layers for row in rows]) == ("counting", list(range(1, 9)))
    two = rows[1]
    assert (two.plain_params, two.dense_params) == (50_833, 75_409)
    assert (two.plain_flops, two.dense_flops) == (578_764_800, 861_880_320)
    plain = {b.plain_params - a.plain_params for a, b in pairwise(rows)}
    assert plain == {50_833 - 26_065}
    shown = plots.by_depth(study).text
    assert "887,569" in shown
    assert "All arms of this run have 2 layers" in shown


def test_depth_is_counted_for_no_task_that_is_unknown_here(tmp_path):
    study = studied(tmp_path / "run", names=("baseline",))
    other = replace(study, rows=[row | {"task": "of_another_program"} for row in study.rows])
    assert depths.counted(other) is None


def two_of(tmp_path, shift):
    """A folder with two implementations; the second one's k4 is moved by `shift`."""
    names = ("baseline", "k4", "ifo")
    study = studied(tmp_path / "run", impls=("torch_native", "jax_native"), names=names)
    return replace(
        study,
        rows=[
            row | {"metric": row["metric"] + shift}
            if (row["impl"], row["arm"]) == ("jax_native", "k4") else row
            for row in study.rows
        ],
    )  # fmt: skip


def test_two_implementations_of_one_folder_are_compared_contrast_by_contrast(tmp_path):
    study = two_of(tmp_path, 0.0)
    ((pair, both),) = accord.sides(study).items()
    assert [one.name for one in pair] == ["torch_native", "jax_native"]
    assert [side.one.label for side in both] == ["k4", "ifo"]
    told = accord.words(*pair, both)
    assert told.startswith("torch_native and jax_native: 2 of 2 contrasts have the same sign;")
    assert told.endswith("No contrast is better with one and worse with the other.")


def test_opposite_signs_of_two_implementations_are_named(tmp_path):
    study = two_of(tmp_path, -0.2)
    ((pair, both),) = accord.sides(study).items()
    assert "1 of 2 contrasts have the same sign" in accord.words(*pair, both)
    named = re.search(r"Opposite signs: k4 on counting, \+\d+\.\d against −\d+\.\d\.", "".join(
        accord.words(*pair, both)))  # fmt: skip
    assert named
    shown = plots.implementations(study).text
    assert "<td>no</td>" in shown
    assert "Opposite signs: k4 on counting" in shown


def test_opposed_verdicts_are_a_contradiction(tmp_path):
    sure = {"seeds": 8, "mishaps": {}, "scores": {"counting": {
        "baseline": (0.5, 0.003), "k4": (0.6, 0.003)}}, "names": ("baseline", "k4")}  # fmt: skip
    one = studied(tmp_path / "one", **sure)
    sure["scores"] = {"counting": {"baseline": (0.5, 0.003), "k4": (0.4, 0.003)}}
    other = studied(tmp_path / "other", **sure, impls=("jax_native",))
    ((pair, both),) = accord.sides(one, other).items()
    assert "One says better and the other worse: k4 on counting" in accord.words(*pair, both)


def test_one_implementation_is_told_how_to_add_another(tmp_path):
    study = studied(tmp_path / "run", names=("baseline", "k4"))
    assert "adds another" in plots.implementations(study).text


def test_learning_rate_curves_include_the_second_budget_modes(tmp_path):
    study = studied(tmp_path / "run", names=("baseline", "k4"), rates=(1e-3, 8e-3))
    again = [row | {"budget_mode": "params"} for row in study.rows if row["arm"] == "k4"]
    shown = plots.learning_rates(replace(study, rows=study.rows + again)).text
    assert "counting, k4 (params): points on the tuning set" in shown


def test_the_data_line_says_of_which_seed_the_hash_is_and_how_many_there_are(tmp_path):
    study = studied(tmp_path / "run", names=("baseline",))
    for row in study.rows:
        row["data_sha256"] = f"{row['seed']}" * 64
    shown = record.plan(study).text
    assert "seed 0: 000000000000; 2 hashes over all seeds" in shown


def test_arms_stand_in_the_order_of_the_plan_with_their_budget_modes_beside_them(tmp_path):
    study = studied(tmp_path / "run", names=("baseline", "f", "k4"))
    more = [row | {"budget_mode": "params"} for row in study.rows if row["arm"] == "f"]
    mixed = replace(study, rows=more + study.rows[::-1])
    (subject,) = outcomes.subjects(mixed)
    labels = [one.label for one in outcomes.arms(mixed, subject).values()]
    assert labels == ["baseline", "f", "f (params)", "k4"]
