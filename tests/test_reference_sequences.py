"""The oracle on batches of sequences: chunks, padding, reversal, dense stacks, masks, counters."""

from dataclasses import replace

import numpy as np
import pytest

from impls import params
from impls.contract import Work
from impls.reference import hold_mask, run
from tests.test_reference import DEEP, SMALL, assert_same, tree, work


@pytest.mark.parametrize("family", ["qrnn", "lstm"])
@pytest.mark.parametrize("chunks", [(1, 1, 7, 2), (3, 8), (10, 1)])
def test_uneven_chunks_equal_one_pass(family, chunks):
    spec = replace(SMALL, family=family, layers=3, dense=True, pooling="ifo")
    given = work(spec, "forward", steps=11, lengths=None)
    given = replace(given, state=given.state | {"t0": np.array([0, 3, 13])})
    weights, state, parts, at = tree(spec), given.state, [], 0
    for steps in chunks:
        out = run(
            spec,
            weights,
            replace(given, x=given.x[at : at + steps], dy=None, target=None, state=state),
        )
        state = {n.removeprefix("state."): v for n, v in out.items() if n.startswith("state.")}
        parts.append(out["y"])
        at += steps
    found = {"y": np.concatenate(parts)} | {f"state.{n}": v for n, v in state.items()}
    assert_same(found, run(spec, weights, given))


@pytest.mark.parametrize("family", ["qrnn", "lstm"])
def test_step_is_a_sequence_of_length_one(family):
    spec = replace(SMALL, family=family, layers=2)
    given = work(spec, "step", steps=1, lengths=None)
    assert_same(run(spec, tree(spec), given), run(spec, tree(spec), replace(given, kind="forward")))


@pytest.mark.parametrize("family", ["qrnn", "lstm"])
@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
def test_a_padded_batch_equals_runs_of_each_sequence_and_ignores_nan(family, pooling):
    spec = replace(DEEP, family=family, pooling=pooling)
    clean = work(spec, rows=np.array([4, 0, 7]))
    pad = np.arange(5)[:, None] >= clean.lengths
    given = replace(
        clean, **{n: np.where(pad[..., None], np.nan, getattr(clean, n)) for n in ("x", "dy")}
    )
    weights = tree(spec)
    whole, summed = run(spec, weights, given), dict.fromkeys(weights, 0.0)
    assert not whole["y"][pad].any()
    assert not whole["grad.x"][pad].any()
    for b, length in enumerate(clean.lengths):
        one = slice(b, b + 1)
        alone = run(
            spec,
            weights,
            Work(
                "backward",
                clean.x[:length, one],
                state={n: v[..., one, :] for n, v in clean.state.items()},
                seed=11,
                rows=clean.rows[one],
                dy=clean.dy[:length, one],
                dstate={n: v[..., one, :] for n, v in clean.dstate.items()},
            ),
        )
        for name, value in alone.items():
            if name.removeprefix("grad.") in weights:
                summed[name.removeprefix("grad.")] += value
            elif name in ("y", "grad.x"):
                np.testing.assert_allclose(whole[name][:length, one], value, atol=1e-13)
            elif name == "state.t0":
                assert whole[name][b] == value[0] == length
            else:
                np.testing.assert_allclose(whole[name][..., one, :], value, atol=1e-13)
    assert_same({n: whole[f"grad.{n}"] for n in weights}, summed)


@pytest.mark.parametrize("family", ["qrnn", "lstm"])
def test_the_reverse_direction_is_the_forward_one_on_the_reversed_sequence(family):
    spec = replace(SMALL, family=family, bidirectional=True, zoneout=0.0)
    one, given = replace(spec, bidirectional=False), work(spec, "forward", lengths=None)
    weights = tree(spec)
    forth = {n.replace("rev", "fwd"): v for n, v in weights.items() if ".rev." in n}
    state = {n.replace("rev", "fwd"): v for n, v in given.state.items() if ".rev." in n}
    back = run(one, forth, Work("forward", given.x[::-1], state=state))
    both = run(spec, weights, given)
    np.testing.assert_allclose(both["y"][..., 4:], back["y"][::-1], atol=1e-14)
    for name in state:
        found = both["state." + name.replace("fwd", "rev")]
        np.testing.assert_allclose(found, back[f"state.{name}"], atol=1e-14)


def test_a_dense_stack_is_layers_fed_by_input_then_output():
    spec = replace(SMALL, layers=3, dense=True)
    weights, x = tree(spec), work(spec, "forward").x
    features = x
    for layer in range(3):
        one = replace(spec, layers=1, dense=False, input_size=features.shape[-1])
        at = f"layers.{layer}."
        own = {n.replace(at, "layers.0."): v for n, v in weights.items() if n.startswith(at)}
        y = run(one, own, Work("forward", features))["y"]
        features = np.concatenate([features, y], axis=-1)
    np.testing.assert_allclose(run(spec, weights, Work("forward", x))["y"], y, atol=1e-14)


def test_steps_done_are_counted_per_sequence():
    out = run(SMALL, tree(SMALL), replace(work(SMALL, "forward"), state={"t0": 7}))
    assert out["state.t0"].tolist() == [12, 9, 8]
    assert out["state.t0"].dtype == np.int64
    lstm = replace(SMALL, family="lstm")
    assert "state.t0" not in run(lstm, tree(lstm), work(lstm, "forward"))


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("direction", ["fwd", "rev"])
def test_each_layer_and_direction_uses_its_own_mask_in_processing_order(layer, direction):
    spec = replace(DEEP, layers=layer + 1, pooling="f")
    weights = {name: np.zeros(shape) for name, shape in params.shapes(spec).items()}
    for name in weights:  # from c = 0, a unit stays 0 exactly as long as it is held
        if name.endswith("z.bias"):
            weights[name] += 1.0
        if name.endswith("f.bias"):
            weights[name] -= 40.0
    given = Work("forward", np.ones((5, 3, 3)), np.array([5, 2, 1]), {"t0": 6}, seed=11)
    y = run(spec, weights, given)["y"][..., slice(4) if direction == "fwd" else slice(4, 8)]
    held = hold_mask(spec, 11, np.arange(3), 6, 5, layer, direction)
    for b, length in enumerate(given.lengths):
        processed = y[:length, b] if direction == "fwd" else y[:length, b][::-1]
        np.testing.assert_array_equal(processed == 0.0, np.logical_and.accumulate(held[:length, b]))
