"""An ablation's file is understood as a whole or refused in one line that says what to do."""

from dataclasses import replace

import pytest

from harness import report, tasks
from harness.ablation import changes, command, config, course, seeds
from harness.ablation import plan as ablation_plan
from harness.analysis import contrasts
from harness.cli import main
from harness.errors import UsageError
from impls import net_params
from impls.contract import SpecError
from impls.nets import OptimiserSpec
from tests.ablating import K1, text, use_fakes

ONLY = '[[changes]]\nname = "x"\n'
BAD = {
    "unknown task": (text().replace("selective_copy", "selectiv_copy"),
                     "did you mean 'selective_copy'?"),
    "unknown field": (text(ONLY + "kernel_with = 1"), "did you mean 'kernel_width'?"),
    "unknown word": (text(ONLY + 'pooling = "fi"'), "allowed are 'f', 'fo', 'ifo'"),
    "unknown family": (text(ONLY + 'family = "lstn"'), "did you mean 'lstm'?"),
    "unknown optimiser": (text(ONLY + 'algorithm = "adamm"'), "did you mean 'adam'?"),
    "unknown metric": (text(K1 + '[task.selective_copy]\nmetric = "acuracy"'),
                       "did you mean 'accuracy'?"),
    "another task's metric": (text(K1 + '[task.selective_copy]\nmetric = "mse"'), "'accuracy'"),
    "unknown arm of a task": (text(K1 + '[task.selective_copy]\narms = ["k9"]'), "k1"),
    "unknown key": (text(more="seed = 3"), "did you mean 'seeds'?"),
    "unknown table": (text("[change]\n"), "did you mean 'changes'?"),
    "unknown implementation": (text().replace("fake_net", "fake_nett"), "did you mean 'fake_net'?"),
    "zero seeds": (text().replace("seeds = 2", "seeds = 0"), "whole number of at least 1"),
    "target beyond reach": (text(K1 + "[task.selective_copy]\ntarget = 1.01"),
                            "cannot be reached: the best accuracy there is is 1"),
    "a change of nothing": (text(ONLY + "kernel_width = 2"), "changes nothing"),
    "two factors without a name": (text("[[changes]]\nkernel_width = 1\nlayers = 1"), "a name"),
    "two arms of one name": (text(K1 + K1), "a second arm named 'k1'"),
    "a grid without seeds": (text(more="learning_rates = [1e-3, 1e-2, 1e-1]"), "needs both"),
    "a grid that falls": (text(more="learning_rates = [1e-2, 1e-3, 1e-1]"), "ascending"),
    "wall without seconds": (text(K1 + 'budgets = ["wall"]'), "`seconds`"),
    "a rate of zero": (text(ONLY + "learning_rate = 0.0"), "learning_rate"),
    "no implementation": (text(ONLY + "dense = true"), "no dense stacks"),
    "not TOML": ("[ablation", "not valid TOML"),
    "unpaired seeds": (text(K1 + "first_seed = 50"), "control"),
    "seeds of a control that the reference tunes on": (
        text(K1.replace("kernel_width = 1", 'contrast = "control"\nfirst_seed = 2'),
             more="tuning_seeds = 2\nrunoff_seeds = 4\nlearning_rates = [1e-3, 1e-2, 1e-1]"),
        "first_seed = 2: give at least 6"),
    "seeds of a control that choose rates": (
        text(K1.replace("kernel_width = 1", 'contrast = "control"\nfirst_seed = 999_999')),
        "first_seed = 999999: give at most 999998"),
    "a target of nan": (text(K1 + "[task.selective_copy]\ntarget = nan"), "give a number"),
    "a target of inf": (text(K1 + "[task.selective_copy]\ntarget = inf"), "give a number"),
    "a target like a guess": (text(K1 + "[task.selective_copy]\ntarget = 0.125"),
                              "no better than a guess"),
    "a rate of inf": (text(ONLY + "learning_rate = inf"), "learning_rate"),
    "a grid up to inf": (text(more="tuning_seeds = 1\nlearning_rates = [1e-3, 1e-2, inf]"),
                         "ascending"),
    "a decay of nan": (text(ONLY + "decay = nan"), "decay = nan: give a number"),
    "one beta": (text(ONLY + "betas = 0.9"), "two numbers"),
    "three betas": (text(ONLY + "betas = [0.9, 0.9, 0.9]"), "two numbers"),
    "a task that is a number": ("task = 3\n" + text(), "a table per task"),
    "a task's table that is a number": (text(K1 + "[task]\nselective_copy = 5"), "give a table"),
    "a product that is a word": (text(ONLY + 'product = ""'), "a table of lists"),
    "a product that is zero": (text(ONLY + "product = 0"), "a table of lists"),
    "a product of nothing": (text(ONLY + "product = {}"), "a table of lists"),
    "a name with a comma": (text('[[changes]]\nname = "a,b"\nlayers = 1\n'), "without a comma"),
    "a decoder without a decoder": (text(ONLY + 'decoder = "state"'), "only 'seq2seq' reads"),
    "a readout of every step": (text(ONLY + 'readout = "mean"'), "only 'sequence' reads"),
    "a baseline's decoder": (text().replace("layers = 2", "layers = 2\ndecoder_width = 3"),
                             "[baseline] decoder_width"),
    "an arm on another task": (text(K1 + 'tasks = ["mqar"]'), "none of the ablation's"),
    "an option of another task": (text(K1 + "[task.selective_copy]\noptions = {file = 1}"), "file"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    use_fakes(monkeypatch)
    monkeypatch.setattr(report, "lacking", lambda: "a file that is right")


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_gives_one_line_and_exit_code_2(name, tmp_path, capsys):
    given, expected = BAD[name]
    file, out = tmp_path / "mine.toml", tmp_path / "run"
    file.write_text(given)
    assert main(["ablate", str(file), "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert said.err.startswith("quasibench: ")
    assert said.err.count("\n") == 1
    assert not out.exists(), "something was written"


WORDS = {
    "unknown ablation": (["quik"], "did you mean 'quick'?"),
    "unknown arm": (["quick", "--only", "arm=zonout"], "did you mean 'zoneout'?"),
    "unknown task": (["quick", "--only", "task=count"], "did you mean 'counting'?"),
    "unknown filter": (["quick", "--only", "arms=f"], "did you mean 'arm'?"),
    "zero seeds": (["quick", "--seeds", "0"], "--seeds 0: give at least 1"),
    "unknown status": (["quick", "--retry", "crashed"], "did you mean 'crash'?"),
    "unknown implementation": (["quick", "--impl", "torch_nativ"], "torch_native"),
    "another family": (["quick", "--impl", "lstm_torch"], "'lstm' layers, the baseline of quick"),
    "no core": (["quick", "--impl", "fake_good"], "fake_good"),
    "a file for a task that reads none": (["quick", "--data", "mqar=x.txt"], "no local file"),
    "a file that is not there": (["claim", "--data", "char_lm=nowhere.txt"], "nowhere.txt"),
}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("betas", 0.9, "two numbers"), ("betas", (0.9,), "two numbers"),
        ("betas", (0.9, 1.0), "betas = 1.0"), ("betas", (-0.1, 0.9), "betas = -0.1"),
        ("epsilon", 0.0, "above 0"), ("epsilon", float("nan"), "epsilon"),
        ("learning_rate", float("inf"), "learning_rate"), ("momentum", 1.0, "momentum"),
        ("smoothing", -0.1, "smoothing"),
    ],
)  # fmt: skip
def test_an_optimiser_that_cannot_be_is_refused(field, value, message):
    with pytest.raises(SpecError, match=message):
        OptimiserSpec(**{field: value})


@pytest.mark.parametrize("name", WORDS)
def test_bad_words_give_one_line_and_exit_code_2(name, tmp_path, capsys):
    words, expected = WORDS[name]
    assert main(["ablate", *words, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1


def test_a_data_file_that_is_one_line_long_is_refused(tmp_path, capsys):
    file = tmp_path / "one.txt"
    file.write_text("one line and nothing else")
    words = ["ablate", "claim", "--data", f"char_lm={file}", "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_product_has_an_arm_for_every_pair():
    product = '[[changes]]\nname = "w"\nproduct = {kernel_width = [1, 2], pooling = ["f", "fo"]}\n'
    arms = config.parse(text(product), "x").arms[1:]
    assert [arm.changes for arm in arms] == [
        {"kernel_width": k, "pooling": p} for k, p in ((1, "f"), (1, "fo"), (2, "f"))
    ], "the baseline's own cell is no arm"
    assert arms[0].name == "w[kernel_width=1+pooling=f]"
    chosen = command._only(config.parse(text(product), "x"), [f"arm={arms[0].name}"])
    assert chosen == {"arm": {arms[0].name}}
    betas = '[[changes]]\nname = "b"\nproduct = {betas = [[0.8, 0.9], [0.9, 0.99]]}\n'
    assert config.parse(text(betas), "x").arms[1].name == "b[betas=0.8/0.9]"


def test_bits_per_character_may_aim_below_the_tasks_ceiling_and_not_below_zero():
    given = text().replace("selective_copy", "char_lm") + "[task.char_lm]\ntarget = "
    assert config.parse(given + "0.9", "x").tasks[0].target == 0.9
    with pytest.raises(UsageError, match="cannot be reached"):
        config.parse(given + "-0.1", "x")
    assert config.load_ablation("claim").tasks[-1].steps == 1000


def test_the_known_good_and_bad_arms_of_a_task_are_trained_unless_an_arm_is_one_of_them(
    monkeypatch,
):
    task = tasks.get("selective_copy")
    known = replace(task, good={"kernel_width": 4}, bad={"pooling": "ifo"})
    monkeypatch.setattr(tasks, "get", lambda name: known)
    given = text().replace("controls = false", "controls = true")
    made = config.parse(given, "x")
    assert {arm.name for arm in made.arms if arm.contrast == "control"} == {
        "good-selective_copy", "bad-selective_copy",
    }  # fmt: skip
    named = config.parse(given + '[[changes]]\nname = "k4"\nkernel_width = 4\n', "x")
    assert ablation_plan.separation(named)["selective_copy"] == {
        "good": "k4", "bad": "bad-selective_copy",
    }  # fmt: skip


def test_the_plans_hash_follows_what_decides_results_and_nothing_else():
    plan = config.parse(text(), "x")
    same = config.parse(text(workers=2, checkpoint="3s").replace("small and quick", "words"), "y")
    assert ablation_plan.plan_hash(plan) == ablation_plan.plan_hash(same)
    for changed in (
        text(steps=41),
        text(timeout="9s"),
        text().replace("seeds = 2", "seeds = 3"),
        text(K1.replace("= 1", "= 3")),
        text(K1 + 'contrast = "secondary"'),
        text(K1 + "[task.selective_copy]\ntarget = 0.5"),
        text(more="root = 2"),
    ):
        assert ablation_plan.plan_hash(plan) != ablation_plan.plan_hash(
            config.parse(changed, "x")
        ), changed
    assert ablation_plan.plan_hash(config.parse(text(), "x")) == ablation_plan.plan_hash(plan)


def test_the_plans_hash_follows_tasks_defaults_and_the_rules_of_stopping_and_comparing(
    monkeypatch,
):
    plan = config.parse(text(), "x")
    given, one = ablation_plan.plan_hash(plan), plan.tasks[0]
    for change in (
        {"good": {}}, {"bad": {}}, {"chance": 0.2}, {"ceiling": 0.9}, {"net": {}},
        {"higher_is_better": False}, {"evaluated": 99},
    ):  # fmt: skip
        other = replace(plan, tasks=(replace(one, task=replace(one.task, **change)),))
        assert ablation_plan.plan_hash(other) != given, change
    for module, name in (
        (course, "SOLVED_AT"), (course, "DIVERGED"), (course, "LAST"), (course, "FIRST"),
        (contrasts, "ALPHA"), (contrasts, "MARGIN"), (contrasts, "ENOUGH"),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(module, name, 0.5)
            assert ablation_plan.plan_hash(plan) != given, name
    for name in ("epsilon", "dropout", "zoneout"):
        with monkeypatch.context() as patch:
            patch.setitem(changes.DEFAULTS, name, 0.123)
            assert ablation_plan.plan_hash(plan) != given, name


def test_a_local_file_is_no_part_of_the_registered_plan():
    claim = config.load_ablation("claim")
    char_lm = claim.tasks[-1]
    given = (*claim.tasks[:-1], replace(char_lm, options={"file": "mine.txt"}))
    assert ablation_plan.plan_hash(replace(claim, tasks=given)) == ablation_plan.plan_hash(claim)


def test_options_are_part_of_a_training_but_no_path_is(tmp_path):
    claim = config.load_ablation("claim")
    keys = set()
    for name, evaluated in (("a.txt", 4096), ("b.txt", 4096), ("b.txt", 8192)):
        file = tmp_path / name
        file.write_text("".join(f"{n} ships at sea\n" for n in range(6000)))
        char_lm = replace(claim.tasks[-1], options={"file": str(file), "evaluated": evaluated})
        ours = replace(claim, tasks=(*claim.tasks[:-1], char_lm), impl="fake_net")
        cell = ablation_plan.build(ours, None, {"task": {"char_lm"}, "arm": {"fo"}}).cells[0]
        run = cell.open_runs({})[0]
        assert str(tmp_path) not in str(run.identity())
        assert run.identity()["options"] == {"evaluated": evaluated}
        keys.add(run.row_key)
    assert len(keys) == 2


def test_todays_differences_are_deviations_of_the_same_plan():
    plan = config.parse(text(), "x")
    today = ablation_plan.build(plan, None, {"arm": {"k1"}}, 1)
    assert today.plan_hash == ablation_plan.plan_hash(plan)
    assert today.deviations == ("1 seeds instead of 2", "only arm k1")
    assert ablation_plan.build(plan).deviations == ()


def test_the_streams_of_a_run_are_those_of_the_seed_and_the_name_alone():
    root = seeds.run_root(1, 3)
    assert root == seeds.run_root(1, 3) != seeds.run_root(1, 4)
    one, two = seeds.masks(root, 7), seeds.masks(root, 8)
    assert len({one.dropout, one.zoneout, two.dropout, two.zoneout}) == 4
    plan = ablation_plan.build(config.parse(text(K1 + ONLY + "layers = 3"), "x"))
    values = {
        cell.arm.name: net_params.init(cell.net, seeds.of(root, "init")) for cell in plan.cells
    }
    for name in ("embedding.weight", "head.weight", "layers.1.fwd.z.weight"):
        assert (values["k2"][name] == values["x"][name]).all(), "a further layer moved the others"


def test_the_plan_is_printed_and_nothing_written(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["ablate", "quick", "--dry-run", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "48 trainings" in said
    assert "at 2 at a time" in said or "at 1 at a time" in said
    assert not out.exists()


def test_the_claim_has_ten_seeds_a_grid_and_the_six_primary_contrasts():
    claim = config.load_ablation("claim")
    assert (claim.seeds, claim.tuning_seeds, claim.runoff_seeds, len(claim.learning_rates)) == (
        10,
        2,
        4,
        5,
    )
    primary = {arm.name for arm in claim.arms if arm.contrast == "primary"}
    assert primary == {"f", "ifo", "k1", "k4", "zoneout", "dense"}


def test_an_arm_that_cannot_go_on_where_a_batch_ended_is_refused_before_anything_is_trained(
    tmp_path,
):
    file = tmp_path / "a.txt"
    file.write_text("".join(f"{n} ships at sea\n" for n in range(6000)))
    path = tmp_path / "mine.toml"
    path.write_text(text(ONLY + "bidirectional = true").replace("selective_copy", "char_lm"))
    plan = config.load_ablation(str(path))
    one = replace(plan.tasks[0], options={"file": str(file)})
    with pytest.raises(UsageError, match="arm 'x' on task 'char_lm': a reverse direction"):
        ablation_plan.build(replace(plan, tasks=(one,)))
