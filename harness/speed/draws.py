"""The random data of a grid point: work and parameters as pure functions of a seed.

Every array has a stream of its own, `SeedSequence([seed, crc32(name)])`, so that one array does
not move another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from impls import params
from impls.contract import ModelSpec, Work

if TYPE_CHECKING:
    from harness.speed.grid import Point

BIAS_SCALE = 0.1
"""Standard deviation of the random biases: large enough that the gate sees a lost bias."""
CONSTANT_AT_FIRST = (".bias", ".shift", ".scale")
CARRY_SCALE = 0.5
"""Standard deviation of the random h and c that a `step` starts from."""


def work_of(point: Point, spec: ModelSpec, seed: int) -> Work:
    """The work of a point for contenders whose spec is `spec` (the point's, own family).

    x [T, B, C], dy and target [T, B, D*H] are standard normal in the point's dtype, each from a
    stream of its own, so all families of a point get the same x and dy. Training with zoneout
    gets a mask seed; forward and step are evaluation. A `step` starts from a random carry.
    """
    dtype, x_shape = point.placement.dtype, (point.steps, point.batch, spec.input_size)
    y_shape = (point.steps, point.batch, spec.output_size)
    training = point.kind in ("backward", "train_step")
    return Work(
        kind=point.kind,
        x=_normal("x", x_shape, dtype, seed),
        lengths=_lengths(point, seed) if point.ragged else None,
        state=_carry(point, spec, seed) if point.kind == "step" else {},
        seed=_mask_seed(seed) if training and spec.zoneout > 0 else None,
        dy=_normal("dy", y_shape, dtype, seed) if point.kind == "backward" else None,
        target=_normal("target", y_shape, dtype, seed) if point.kind == "train_step" else None,
    )


def params_of(spec: ModelSpec, point: Point, seed: int) -> dict[str, np.ndarray]:
    """Canonical parameters by name: `impls.params.init`, biases and the like moved a little.

    Raises:
        SpecError: the family has no canonical parameters; its card must bring `init`.
    """
    dtype = point.placement.dtype
    out = params.init(spec, seed, dtype)
    for name, value in out.items():
        if name.endswith(CONSTANT_AT_FIRST):
            moved = value + _normal(name, value.shape, dtype, seed, BIAS_SCALE)
            out[name] = params.as_dtype(moved, dtype)
    return out


def _stream(name: str, seed: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, crc32(name.encode())]))


def _normal(
    name: str, shape: tuple[int, ...], dtype: str, seed: int, scale: float = 1.0
) -> np.ndarray:
    """Normal numbers of the named stream, rounded to the dtype."""
    drawn = np.float64 if dtype == "float64" else np.float32
    values = _stream(name, seed).standard_normal(shape, dtype=drawn)
    return params.as_dtype(values * drawn(scale), dtype)


def _lengths(point: Point, seed: int) -> np.ndarray:
    """[B] int64 in ceil(T/2)..T, at least one of them T."""
    stream = _stream("lengths", seed)
    lengths = stream.integers(-(-point.steps // 2), point.steps, size=point.batch, endpoint=True)
    lengths[stream.integers(point.batch)] = point.steps
    return lengths.astype(np.int64)


def _carry(point: Point, spec: ModelSpec, seed: int) -> dict[str, np.ndarray]:
    """A random state; windows are inputs and rounded like x, h and c stay float32 at least."""
    if spec.family not in params.FAMILIES:
        return {}
    wide = "float64" if point.placement.dtype == "float64" else "float32"
    return {
        name: _normal(
            f"state.{name}",
            shape,
            point.placement.dtype if name.endswith(".window") else wide,
            seed,
            1.0 if name.endswith(".window") else CARRY_SCALE,
        )
        for name, shape in params.state_shapes(spec, point.batch).items()
    }


def _mask_seed(seed: int) -> int:
    """Seed of the first training step's zoneout mask (impls/README.md, zoneout)."""
    words = np.random.SeedSequence([seed, crc32(b"zoneout"), 0]).generate_state(1, np.uint64)
    return int(words[0])
