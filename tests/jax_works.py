"""Random works for the tests of the JAX implementations, and their comparison with the oracle."""

import numpy as np

import impls
from harness.conformance.tolerances import GRADIENTS, VALUES
from impls import params, reference
from impls.contract import ModelSpec, Placement, Work


def rounded(shape, dtype, seed):
    return params.as_dtype(np.random.default_rng(seed).standard_normal(shape), dtype)


def weights(spec, dtype="float32"):
    """Parameters with biases that are not zero."""
    init = params.init(spec, 1)
    return {
        name: params.as_dtype(value + 0.1 * rounded(value.shape, "float64", 2), dtype)
        for name, value in init.items()
    }


def work_of(kind, spec, dtype="float32", lengths=(9, 4, 6), steps=9, seed=7):
    """Ragged (NaN on padding) where lengths are given, from a random state in mid-stream."""
    batch = 3 if lengths is None else len(lengths)
    arrays = {
        "x": rounded((steps, batch, spec.input_size), dtype, 3),
        "dy": rounded((steps, batch, spec.output_size), dtype, 4),
        "target": rounded((steps, batch, spec.output_size), dtype, 5),
    }
    if lengths is not None:
        padding = np.arange(steps)[:, None] >= np.asarray(lengths)
        for array in arrays.values():
            array[padding] = np.nan
    shapes = params.state_shapes(spec, batch)
    state = {n: rounded(s, dtype, 10 + i) for i, (n, s) in enumerate(shapes.items())}
    dstate = {n: rounded(s, dtype, 50 + i) for i, (n, s) in enumerate(shapes.items())}
    if spec.family == "qrnn":
        state["t0"] = 5 * np.arange(batch) + 3
    return Work(
        kind,
        arrays["x"],
        lengths=None if lengths is None else np.asarray(lengths),
        state=state,
        seed=seed,
        rows=np.arange(batch)[::-1] + 4,
        dy=arrays["dy"] if kind == "backward" else None,
        dstate=dstate if kind == "backward" else {},
        target=arrays["target"] if kind == "train_step" else None,
    )


def session(name, spec, dtype="float32"):
    return impls.get(name).load(spec, weights(spec, dtype), Placement("cpu", dtype))


def once(run):
    run()
    run.wait()
    return run.result()


def off(got, want):
    """Relative Frobenius distance."""
    want = np.asarray(want, dtype=np.float64)
    distance = np.linalg.norm((np.asarray(got, dtype=np.float64) - want).ravel())
    return distance / max(np.linalg.norm(want.ravel()), 1e-30)


def assert_close(got, want, dtype):
    assert set(got) == set(want)
    for name, value in want.items():
        limit = (GRADIENTS if name.startswith("grad") else VALUES)[dtype]
        assert np.shape(got[name]) == np.shape(value), name
        assert off(got[name], value) <= limit, name


def assert_equals_oracle(name, spec, dtype, kind="backward", lengths=(9, 4, 6), steps=9):
    work = work_of(kind, spec, dtype, lengths, steps)
    got = once(session(name, spec, dtype).prepare(work))
    assert {v.dtype.name for v in got.values()} <= {
        "float64" if dtype == "float64" else "float32",
        "int64",
    }
    assert_close(got, reference.run(spec, weights(spec, dtype), work), dtype)


def assert_stream_equals_sequence(name, spec, chunks):
    """Uneven chunks with the carried state, against one pass."""
    own = session(name, spec)
    whole = work_of("forward", spec, lengths=None, steps=sum(chunks))
    want = once(own.prepare(whole))
    state, outputs, start = whole.state, [], 0
    for steps in chunks:
        kind = "step" if steps == 1 else "forward"
        x = whole.x[start : start + steps]
        part = Work(kind, x, state=state, seed=whole.seed, rows=whole.rows)
        got = once(own.prepare(part))
        state = {n[len("state.") :]: v for n, v in got.items() if n.startswith("state.")}
        outputs.append(got["y"])
        start += steps
    final = {f"state.{name}": value for name, value in state.items()}
    assert_close({"y": np.concatenate(outputs)} | final, want, "float32")


def assert_padded_equals_single(name, spec, lengths):
    """Every sequence of a padded batch, against a run of its own."""
    own = session(name, spec)
    padded = work_of("forward", spec, lengths=lengths, steps=max(lengths))
    together = once(own.prepare(padded))
    for b, length in enumerate(lengths):
        one = slice(b, b + 1)
        state = {n: v[:, one] if v.ndim == 3 else v[one] for n, v in padded.state.items()}
        x = padded.x[:length, one]
        alone = once(
            own.prepare(Work("forward", x, state=state, seed=padded.seed, rows=padded.rows[one]))
        )
        assert off(together["y"][:length, one], alone["y"]) <= VALUES["float32"]
        assert not together["y"][length:, one].any()
        for key in (k for k in alone if k.startswith("state.")):
            got = together[key]
            got = got[:, one] if got.ndim == 3 else got[one]
            assert off(got, alone[key]) <= VALUES["float32"], key


def assert_train_step_equals_oracle(name, spec, dtype):
    """Loss and parameters of the first call, although there were more calls."""
    work = work_of("train_step", spec, dtype)
    own = session(name, spec, dtype)
    run = own.prepare(work)
    first = once(run)
    second = once(run)
    want = reference.run(spec, weights(spec, dtype), work)
    new = {f"param.{name}": value for name, value in own.export().items()}
    assert_close(second | new, want, dtype)
    assert second["loss"] == first["loss"]
    moved = [n for n, old in weights(spec, dtype).items() if np.any(new[f"param.{n}"] != old)]
    assert moved == list(params.shapes(spec))


def small(**changes):
    return ModelSpec(**({"input_size": 5, "hidden_size": 7} | changes))
