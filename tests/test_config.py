"""Profiles: what ships is valid, and every mistake is one clear line."""

import pytest

from harness.config import OVERHEAD_S, load_profile, parse_duration, profile_names
from harness.errors import UsageError, nearest
from harness.speed.grid import points

GOOD = """
[profile]
budget = "40s"

[[grid]]
kind = "forward"
batch = 8
steps = 32
"""


@pytest.fixture
def load(tmp_path):
    def loader(text, name="mine.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return load_profile(str(path))

    return loader


def test_packaged_profiles_are_those_of_the_readme():
    assert profile_names() == ["aa", "compile", "cuda", "default", "floor", "paper", "smoke"]


@pytest.mark.parametrize(
    ("name", "budget_s", "count"),
    [
        ("default", 258, 28),
        ("smoke", 52, 2),
        ("paper", 21600, 120),
        ("aa", 2700, 54),
        ("floor", 1200, 39),
    ],
)
def test_packaged_profile_loads(name, budget_s, count):
    profile = load_profile(name)
    assert (profile.name, profile.budget_s) == (name, budget_s)
    assert len(points(profile, threads=2)) == count
    assert profile.overhead_s < profile.budget_s


def test_overhead_is_split_among_its_parts():
    profile = load_profile("smoke")
    assert sum(profile.overhead_of(part) for part in OVERHEAD_S) == pytest.approx(47)
    assert profile.overhead_of(*OVERHEAD_S) == pytest.approx(47)
    assert 0 < profile.overhead_of("report") < 47


def test_default_profile_is_the_grid_of_the_issue():
    profile = load_profile("default")
    found = {(p.kind, p.placement.dtype, p.batch, p.steps) for p in points(profile, threads=2)}
    lengths = (32, 128, 512)
    kinds = ("forward", "backward")
    wanted = {(k, "float32", b, t) for k in kinds for b in (1, 8, 32) for t in lengths}
    wanted |= {("forward", "bfloat16", b, t) for b in (1, 8) for t in lengths}
    assert found == wanted | {("backward", "bfloat16", b, t) for b in (1, 8) for t in (32, 128)}
    spec = points(profile, threads=2)[0].spec
    assert (spec.input_size, spec.hidden_size, spec.kernel_width, spec.pooling) == (
        320,
        320,
        2,
        "fo",
    )
    assert (profile.threads, profile.contenders, profile.twins) == ("all", "all", "baseline")


def test_paper_profile_holds_the_cells_of_figure_4():
    asked = points(load_profile("paper"), threads=1)
    assert {p.placement.dtype for p in asked} == {"float32", "bfloat16"}
    found = {(p.batch, p.steps) for p in asked}
    assert found == {(b, t) for b in (8, 16, 32, 64, 128, 256) for t in (32, 64, 128, 256, 512)}


def test_aa_profile_gives_every_contender_a_twin_three_times():
    profile = load_profile("aa")
    assert (profile.twins, profile.repeats) == ("all", 3)
    assert {p.repeat for p in points(profile, threads=1)} == {0, 1, 2}


def test_scalars_and_lists_are_both_axes(load):
    profile = load(GOOD)
    assert profile.name == "mine"
    assert profile.grids == ({"kind": ["forward"], "batch": [8], "steps": [32]},)
    listed = load(GOOD.replace("batch = 8", "batch = [8]"))
    assert listed.grids == profile.grids


MISTAKES = {
    "unknown profile key": ('budget = "40s"', 'budgte = "40s"', ["'budgte'", "'budget'?"]),
    "unknown axis": ("steps = 32", "stesp = 32", ["'stesp'", "mean 'steps'?", "[[grid]] 1"]),
    "unknown table": ("[[grid]]", "[[grids]]", ["'grids'", "'grid'?"]),
    "single brackets": ("[[grid]]", "[grid]", ["[[grid]]"]),
    "family as axis": ("steps = 32", 'steps = 32\nfamily = "lstm"', ["'family'", "contenders"]),
    "no budget": ('budget = "40s"', "", ["`budget`", "4.5m"]),
    "number as budget": ('"40s"', "40", ["budget = 40", "4.5m"]),
    "negative budget": ('"40s"', '"-40s"', ["budget = '-40s'"]),
    "zero budget": ('"40s"', '"0s"', ["budget = '0s'"]),
    "budget without unit": ('"40s"', '"40"', ["budget = '40'"]),
    "zero size": ("batch = 8", "batch = 0", ["batch = 0", "at least 1"]),
    "negative size": ("steps = 32", "steps = [32, -1]", ["steps = -1", "at least 1"]),
    "fraction as size": ("batch = 8", "batch = 8.5", ["batch = 8.5"]),
    "true as size": ("batch = 8", "batch = true", ["batch = True"]),
    "word as size": ("batch = 8", 'batch = "8"', ["batch = '8'"]),
    "empty list": ("batch = 8", "batch = []", ["batch = []"]),
    "nested list": ("batch = 8", "batch = [[8]]", ["batch = [8]"]),
    "unknown kind": ('"forward"', '"forwards"', ["'forwards'", "'backward'", "mean 'forward'?"]),
    "unknown dtype": ("steps = 32", 'steps = 32\ndtype = "float16"', ["'float16'", "'bfloat16'"]),
    "unknown device": ("steps = 32", 'steps = 32\ndevice = "tpu"', ["'tpu'", "'cuda'"]),
    "unknown pooling": ("steps = 32", 'steps = 32\npooling = "foo"', ["'foo'", "'ifo'"]),
    "zoneout of one": ("steps = 32", "steps = 32\nzoneout = 1.0", ["zoneout = 1.0", "[0, 1)"]),
    "number as flag": ("steps = 32", "steps = 32\ndense = 1", ["dense = 1", "true or false"]),
    "missing axis": ("batch = 8", "", ["`batch`"]),
    "long step": ('"forward"', '"step"', ["'step'", "steps = 32", "steps = 1"]),
    "value twice": ("batch = 8", "batch = [8, 8]", ["already in [[grid]] 1"]),
    "unknown implementation": (
        "[profile]", '[profile]\ncontenders = ["lstm_torhc"]', ["'lstm_torhc'", "'lstm_torch'?"],
    ),
    "implementation twice": (
        "[profile]", '[profile]\ncontenders = ["lstm_torch", "lstm_torch"]', ["given twice"],
    ),
    "no contenders": ("[profile]", "[profile]\ncontenders = []", ["contenders = []", '"all"']),
    "unknown baseline": ("[profile]", '[profile]\nbaseline = "x"', ["baseline", "'x'", "auto"]),
    "baseline left out": (
        "[profile]",
        '[profile]\ncontenders = ["torch_eager"]\nbaseline = "lstm_torch"',
        ["'lstm_torch'", "not among the contenders"],
    ),
    "all left out": ("[profile]", '[profile]\nwithout = "all"', ["without", "give a list"]),
    "unknown left out": (
        "[profile]", '[profile]\nwithout = ["conv_jaxx"]', ["without", "mean 'conv_jax'?"],
    ),
    "left out of a list": (
        "[profile]",
        '[profile]\ncontenders = ["torch_eager"]\nwithout = ["conv_jax"]',
        ["without", "remove it"],
    ),
    "baseline without": (
        "[profile]", '[profile]\nbaseline = "lstm_jax"\nwithout = ["lstm_jax"]', ["left out by"],
    ),
    "limit of nobody": (
        "[profile]", "[profile]\nup_to = { conv_troch = 8 }", ["up_to", "mean 'conv_torch'?"],
    ),
    "limit of zero": ("[profile]", "[profile]\nup_to = { conv_jax = 0 }", ["conv_jax", "least 1"]),
    "limit alone": ("[profile]", "[profile]\nup_to = 4096", ["up_to = 4096", "a table"]),
    "zero threads": ("[profile]", "[profile]\nthreads = 0", ["threads = 0", '"all"']),
    "unknown twins": ("[profile]", '[profile]\ntwins = "none"', ["'none'", "'baseline'", "'all'"]),
    "too few rounds": ("[profile]", "[profile]\nmin_rounds = 3", ["min_rounds = 3", "at least 7"]),
    "rounds crossed": (
        "[profile]", "[profile]\nmin_rounds = 20\nmax_rounds = 10", ["max_rounds = 10"],
    ),
    "negative seed": ("[profile]", "[profile]\nseed = -1", ["seed = -1", "at least 0"]),
    "compile is no flag": ("[profile]", "[profile]\ncompile = 1", ["compile = 1", "true or false"]),
    "syntax error": ("steps = 32", "steps = = 32", ["not valid TOML", "line 8"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_file_and_remedy(load, mistake):
    before, after, expected = MISTAKES[mistake]
    assert before in GOOD
    with pytest.raises(UsageError) as caught:
        load(GOOD.replace(before, after))
    message = str(caught.value)
    assert "mine.toml" in message
    assert "\n" not in message
    for words in expected:
        assert words in message


def test_the_same_point_in_two_grids_is_refused(load):
    second = '[[grid]]\nkind = ["backward", "forward"]\nbatch = 8\nsteps = [32, 64]\n'
    with pytest.raises(UsageError, match=r"\[\[grid\]\] 2: .* already in \[\[grid\]\] 1"):
        load(GOOD + second)


def test_unknown_profile_names_the_nearest_and_all():
    with pytest.raises(UsageError, match=r"'defualt'; did you mean 'default'\? \(known: aa, "):
        load_profile("defualt")


def test_absent_file_and_folder_are_usage_errors(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        load_profile(str(tmp_path / "none.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        load_profile(str(tmp_path / "folder.toml"))


def test_a_file_that_is_no_text_is_a_usage_error(tmp_path):
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_profile(str(tmp_path / "bytes.toml"))


@pytest.mark.parametrize(
    ("text", "value"), [("40s", 40), ("4.5m", 270), ("8h", 28800), (" 2 m", 120)]
)
def test_durations_have_a_unit(text, value):
    assert parse_duration(text) == value


@pytest.mark.parametrize("text", ["", "m", "4,5m", "1e3s", "nan s", "-1s", "0.0h", 40, None])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(UsageError, match="give a time above zero"):
        parse_duration(text)


def test_nearest_offers_one_word_or_nothing():
    assert nearest("stesp", ["batch", "steps"]) == "; did you mean 'steps'?"
    assert nearest("qqq", ["batch", "steps"]) == ""
