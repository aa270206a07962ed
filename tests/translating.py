"""Encoder-decoders and what trains them, for their tests in both frameworks."""

from dataclasses import replace

import numpy as np
import pytest

import impls
from harness.conformance.network_checks import CORE, PLAIN, SEEDS, ZONED, translation
from impls.contract import Placement
from impls.training import trainer

CORES = ("torch_eager", "torch_native", "jax_scan", "jax_native", "jax_associative")
NETS = {
    "f": translation(core=replace(ZONED, pooling="f", kernel_width=2), decoder_width=3),
    "fo-wide": translation(
        core=replace(CORE, dense=True, kernel_width=6), masked_encoder=False, decoder_width=1
    ),
    "fo-state": translation(core=replace(CORE, kernel_width=1), decoder="state"),
    "ifo": translation(
        core=replace(ZONED, pooling="ifo", zoneout_eval="expectation"), reversed_source=True
    ),
    "ifo-literal": translation(
        core=replace(ZONED, pooling="ifo", dense=True, layers=3, zoneout_mode="literal"),
        masked_encoder=False,
        decoder="state",
    ),
    "one-layer": translation(core=replace(ZONED, layers=1), reversed_source=True),
}


def make(name, net, params, dtype="float64", optimiser=PLAIN):
    card = impls.get(name)
    pytest.importorskip(card.requires[0])
    return trainer(card, net, params, optimiser, Placement("cpu", dtype))


def valid(outputs, batch):
    return outputs[np.arange(len(outputs))[:, None] < batch.target_lengths]


def gradients(made, params, batch, seeds=SEEDS):
    made.step(batch, seeds)
    return {name: params[name] - value for name, value in made.export().items()}
