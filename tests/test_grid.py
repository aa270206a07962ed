"""Points keep their ids, data are the same for all contenders, filters say what they miss."""

from dataclasses import fields, replace

import numpy as np
import pytest

from harness.config import load_profile
from harness.errors import UsageError
from harness.speed.grid import (
    Contender,
    Point,
    cell_id,
    params_of,
    parse_only,
    points,
    select,
    work_of,
)
from impls import params
from impls.contract import ModelSpec, Placement

POINT = Point("backward", ModelSpec(input_size=6, hidden_size=5), Placement(), batch=3, steps=7)
OTHER = {
    "kind": "forward", "device": "cuda", "dtype": "bfloat16", "batch": 4, "steps": 8,
    "ragged": True, "repeat": 1, "threads": 2, "family": "lstm", "input_size": 7,
    "hidden_size": 6, "layers": 2, "kernel_width": 3, "pooling": "ifo", "zoneout": 0.1,
    "zoneout_mode": "literal", "zoneout_eval": "expectation", "dense": True,
    "bidirectional": True, "dilated": True, "heads": 2,
}  # fmt: skip


def changed(point, name, value):
    for part in ("spec", "placement"):
        if name in {f.name for f in fields(getattr(point, part))}:
            return replace(point, **{part: replace(getattr(point, part), **{name: value})})
    return replace(point, **{name: value})


def test_ids_are_those_of_the_first_release():
    default = points(load_profile("default"), threads=2)
    assert default[0].point_id == "44a8381ed032"
    assert default[17].point_id == "248498ca5afa"
    assert POINT.point_id == "e1bc97c08942"
    assert cell_id(POINT, Contender("torch_eager")) == "58f15f71aafe4d11"
    assert cell_id(POINT, Contender("torch_eager", twin=True)) == "4cd519be0cad9b21"


def test_every_field_of_a_row_is_covered():
    assert set(OTHER) == set(POINT.fields())


@pytest.mark.parametrize("name", OTHER)
def test_id_changes_when_a_field_changes(name):
    other = changed(POINT, name, OTHER[name])
    assert other.fields()[name] == OTHER[name]
    assert other.point_id != POINT.point_id
    arm = Contender("torch_eager")
    assert cell_id(other, arm) != cell_id(POINT, arm)


def test_ids_are_unique_in_every_profile():
    for name in ("default", "paper", "aa"):
        found = points(load_profile(name), threads=1)
        assert len({point.point_id for point in found}) == len(found)


def test_whole_number_zoneout_is_the_same_point():
    assert changed(POINT, "zoneout", 0).point_id == POINT.point_id


def test_work_is_reproducible_and_moves_with_the_seed():
    one, again, other = (work_of(POINT, POINT.spec, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.x, again.x)
    assert np.array_equal(one.dy, again.dy)
    assert not np.array_equal(one.x, other.x)
    assert not np.allclose(one.x[..., :5], one.dy)


def test_contenders_of_other_families_get_the_same_x_and_dy():
    lstm = replace(POINT.spec, family="lstm")
    ours, theirs = work_of(POINT, POINT.spec, 3), work_of(POINT, lstm, 3)
    assert np.array_equal(ours.x, theirs.x)
    assert np.array_equal(ours.dy, theirs.dy)


def test_more_layers_or_gates_do_not_move_the_data():
    big = replace(POINT.spec, layers=2, pooling="ifo")
    assert np.array_equal(work_of(POINT, big, 3).x, work_of(POINT, POINT.spec, 3).x)
    few, many = params_of(POINT.spec, POINT, 3), params_of(big, POINT, 3)
    assert all(np.array_equal(few[name], many[name]) for name in few)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_data_are_rounded_to_the_dtype(dtype):
    point = changed(POINT, "dtype", dtype)
    work = work_of(point, point.spec, 1)
    arrays = [work.x, work.dy, *params_of(point.spec, point, 1).values()]
    for array in arrays:
        assert array.dtype == (np.float64 if dtype == "float64" else np.float32)
        assert np.array_equal(array, params.as_dtype(array, dtype))
    coarser = {"float64": "float32", "float32": "bfloat16"}.get(dtype)
    if coarser:
        assert not np.array_equal(work.x, params.as_dtype(work.x, coarser))


def test_biases_are_random_and_small():
    for name, value in params_of(POINT.spec, POINT, 1).items():
        if name.endswith(".bias"):
            assert np.all(value != 0)
            assert np.max(np.abs(value)) < 1


def test_x_is_standard_normal():
    big = replace(POINT, batch=64, steps=128)
    x = work_of(big, big.spec, 1).x
    assert abs(x.mean()) < 0.02
    assert abs(x.std() - 1) < 0.02


@pytest.mark.parametrize("steps", [1, 2, 7, 64])
@pytest.mark.parametrize("batch", [1, 5, 40])
def test_ragged_lengths_fill_the_upper_half(steps, batch):
    point = replace(POINT, steps=steps, batch=batch, ragged=True)
    lengths = work_of(point, point.spec, 1).lengths
    assert lengths.shape == (batch,)
    assert lengths.dtype == np.int64
    assert lengths.max() == steps
    assert lengths.min() >= (steps + 1) // 2


def test_ragged_lengths_differ():
    point = replace(POINT, steps=64, batch=40, ragged=True)
    assert len(set(work_of(point, point.spec, 1).lengths)) > 10


def test_each_kind_gets_what_it_needs():
    forward = work_of(replace(POINT, kind="forward"), POINT.spec, 1)
    assert (forward.dy, forward.target, forward.state) == (None, None, {})
    train = work_of(replace(POINT, kind="train_step"), POINT.spec, 1)
    assert train.target.shape == (7, 3, 5)
    step = work_of(replace(POINT, kind="step", steps=1), POINT.spec, 1)
    assert {name: value.shape for name, value in step.state.items()} == params.state_shapes(
        POINT.spec, 3
    )
    assert all(np.any(value) for value in step.state.values())


def test_a_mask_seed_comes_with_zoneout_in_training_only():
    zoned = replace(POINT.spec, zoneout=0.1)
    assert work_of(POINT, zoned, 1).seed is not None
    assert work_of(POINT, zoned, 1).seed != work_of(POINT, zoned, 2).seed
    assert work_of(replace(POINT, kind="forward"), zoned, 1).seed is None
    assert work_of(POINT, POINT.spec, 1).seed is None


def test_a_foreign_family_gets_a_step_without_state():
    foreign = replace(POINT.spec, family="mingru")
    assert work_of(replace(POINT, kind="step", steps=1), foreign, 1).state == {}


def test_labels_tell_points_of_a_profile_apart():
    found = points(load_profile("aa"), threads=1)
    assert len({point.label() for point in found}) == len(found)
    assert POINT.label() == "backward float32 3 x 7, fo K=2 6->5"


def test_filters_keep_the_points_they_name():
    all_points = points(load_profile("default"), threads=1)
    some = select(all_points, {"batch": "8,32", "kind": "forward", "dtype": "float32"})
    assert {(p.kind, p.batch) for p in some} == {("forward", 8), ("forward", 32)}
    assert len(some) == 6
    assert select(all_points, {"dense": "False", "zoneout": "0.0"}) == all_points
    assert select(all_points, {}) == all_points


def test_filters_are_read_from_the_command_line():
    assert parse_only(["batch=8", "steps = 32,128"]) == {"batch": "8", "steps": "32,128"}


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        (["batch"], "give field=value"),
        (["batch="], "give field=value"),
        (["bacth=8"], "did you mean 'batch'"),
        (["impl=torch_eager"], "unknown field 'impl'"),
        (["batch=8", "batch=32"], "given twice"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(filters, words):
    with pytest.raises(UsageError, match=words):
        parse_only(filters)


def test_a_value_that_no_point_has_is_refused_with_those_there_are():
    all_points = points(load_profile("default"), threads=1)
    with pytest.raises(UsageError, match=r"batch=9: no point .*: 1, 8, 32\)"):
        select(all_points, {"batch": "9"})
