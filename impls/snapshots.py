"""What a snapshot says of itself, so that it is never restored into something else."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np

from impls.contract import Arrays, SpecError
from impls.nets import NetSpec, OptimiserSpec
from impls.params import state_shapes

IDENTITY = "identity"
"""Name of the identity in a snapshot."""
CARRIED = "carried."
"""What names of carried states begin with in a snapshot."""
ADDED_LATER = ("dtype",)
"""What older snapshots do not say of themselves; they are taken to fit."""


def identity(framework: str, net: NetSpec, optimiser: OptimiserSpec, dtype: str) -> np.ndarray:
    """uint8 JSON text of framework, number format, network and optimiser of a snapshot."""
    fields = asdict(net)
    core = {f"core.{name}": value for name, value in fields.pop("core").items()}
    whole = {"framework": framework, "dtype": dtype, **core, **fields, **asdict(optimiser)}
    return np.frombuffer(json.dumps(whole).encode(), np.uint8).copy()


def check_identity(snapshot: Arrays, own: np.ndarray) -> None:
    """Raise SpecError where the snapshot is damaged or of something else than `own` says."""
    if IDENTITY not in snapshot:
        raise SpecError(f"not a snapshot of a trainer: it has no {IDENTITY!r}")
    wanted = json.loads(own.tobytes())
    try:
        found = json.loads(snapshot[IDENTITY].tobytes())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise SpecError(f"a damaged snapshot: its {IDENTITY!r} is no JSON object; take another one")
    for name in wanted:
        if name in ADDED_LATER and name not in found:
            continue
        if found.get(name) != wanted[name]:
            raise SpecError(
                f"a snapshot of another network or optimiser: {name} = {found.get(name)!r}, "
                f"this trainer has {wanted[name]!r}"
            )


def check_arrays(snapshot: Arrays, prefix: str, wanted: dict[str, tuple[int, ...]]) -> None:
    """Raise SpecError where the arrays under `prefix` are not those of `wanted`, by shape."""
    found = {name: np.shape(a) for name, a in snapshot.items() if name.startswith(prefix)}
    expected = {f"{prefix}{name}": tuple(shape) for name, shape in wanted.items()}
    if found != expected:
        differ = sorted({*found.items()} ^ {*expected.items()})[:3]
        raise SpecError(f"a snapshot of another network or optimiser: {differ}")


def carried_states(snapshot: Arrays, net: NetSpec) -> dict[str, np.ndarray]:
    """The carried states in a snapshot by name, empty where none were carried.

    Raises:
        SpecError: states of another network.
    """
    found = {n.removeprefix(CARRIED): a for n, a in snapshot.items() if n.startswith(CARRIED)}
    if found:
        rows = np.size(found.get("t0", ()))
        check_arrays(snapshot, CARRIED, state_shapes(net.core, rows) | {"t0": (rows,)})
    return found
