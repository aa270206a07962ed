"""jax_associative against the oracle."""

import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from impls.contract import Placement  # noqa: E402
from tests import jax_works as works  # noqa: E402

NAME = "jax_associative"
EVERYTHING = works.small(
    layers=2, kernel_width=3, pooling="ifo", zoneout=0.3, dense=True, bidirectional=True
)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_values_states_and_gradients_equal_oracle(dtype):
    works.assert_equals_oracle(NAME, EVERYTHING, dtype)


@pytest.mark.parametrize(
    ("changes", "lengths"),
    [
        ({"pooling": "f", "kernel_width": 1}, None),
        ({"pooling": "f", "zoneout": 0.4}, (9, 4, 6)),
        ({"pooling": "ifo", "zoneout": 0.4, "zoneout_mode": "literal"}, None),
    ],
)
def test_every_pooling_and_width_equals_oracle(changes, lengths):
    works.assert_equals_oracle(NAME, works.small(**changes), "float64", lengths=lengths)


def test_stream_in_uneven_chunks_equals_sequence():
    spec = works.small(kernel_width=3, zoneout=0.3)
    works.assert_stream_equals_sequence(NAME, spec, (4, 1, 1, 6))


def test_padded_batch_equals_per_sequence_runs():
    works.assert_padded_equals_single(NAME, works.small(bidirectional=True), (9, 4, 1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_train_step_equals_oracle(dtype):
    works.assert_train_step_equals_oracle(NAME, works.small(zoneout=0.3), dtype)


def test_card_refuses_another_family():
    card = works.impls.get(NAME)
    assert "'lstm'" in card.unsupported(works.small(family="lstm"), Placement())
    assert card.unsupported(EVERYTHING, Placement("cuda", "bfloat16")) is None


def terms(steps):
    draw = np.random.default_rng(0)
    f = draw.uniform(0.0, 1.0, (steps, 2, 3)).astype(np.float32)
    term, initial = draw.standard_normal((steps, 2, 3)), draw.standard_normal((2, 3))
    return f, term.astype(np.float32), initial.astype(np.float32)


@pytest.mark.parametrize("steps", [1, 2, 13, 4096])
def test_recurrence_equals_a_loop_in_float64(steps):
    from impls.jax_associative.core import recurrence

    f, term, cell = terms(steps)
    got = jax.jit(recurrence)(f, term, cell)
    want, cell = [], cell.astype(np.float64)
    for keep, enter in zip(f.astype(np.float64), term, strict=True):
        cell = keep * cell + enter
        want.append(cell)
    assert works.off(got, np.stack(want)) <= 1e-6


def test_backward_keeps_f_and_c_alone_where_autodiff_keeps_every_level():
    from impls.jax_associative import core

    steps = 64
    arrays = [jnp.asarray(array) for array in terms(steps)]

    def kept(function):
        _, pull = jax.vjp(function, *arrays)
        return sum(leaf.size for leaf in jax.tree.leaves(pull)) / arrays[0].size

    def by_autodiff(f, term, initial):
        return core._scan(f, term.at[0].add(f[0] * initial))

    assert kept(core.recurrence) <= 2 + 1 / steps
    assert kept(by_autodiff) > 3
