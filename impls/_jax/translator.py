"""The trainer of an encoder-decoder: teacher forcing, and decoding by streaming step by step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from impls import beam as search
from impls._jax import seq2seq
from impls._jax.arrays import device_of, numbers_of, to_device, to_numpy
from impls._jax.heads import head, loss
from impls._jax.nets import Feed, feed
from impls._jax.optimisers import rounded
from impls._jax.seq2seq import DecoderLayer, Encoded
from impls._jax.stack import Core, Mask, Tensors
from impls._jax.trainer import BaseTrainer
from impls.batches import ready
from impls.beam import END, Candidate
from impls.contract import Arrays, Placement
from impls.nets import NetSpec, OptimiserSpec
from impls.reference.philox import key_of
from impls.training import Batch, Seeds, Translator

READ = ("decoder.embedding.", "attention.", "head.")
"""Parameters that a step of the decoder reads beside those of its layers."""
Fixed = tuple[Tensors, list[DecoderLayer], Encoded]
"""What all steps of a stream share: parameters, layers, the sources read."""


def make(
    core: Core, net: NetSpec, params: Arrays, optimiser: OptimiserSpec, placement: Placement
) -> Translator:
    """A translator of `net` around `core`.

    Raises:
        SpecError: parameters of another network, or optax is not installed.
    """
    return CoreTranslator(core, net, params, optimiser, placement)


@dataclass(frozen=True)
class MeanLoss:
    """The objective of `CoreTranslator`; two equal ones are compiled once."""

    core: Core
    net: NetSpec

    def __call__(
        self,
        params: Tensors,
        given: Feed,
        ends: jax.Array | None,
        mask: Mask | None,
        seed: jax.Array | None,
    ) -> tuple[jax.Array, None]:
        """Mean cross-entropy of the batch's valid target steps."""
        logits = self.logits(params, given, ends, mask, seed)
        return loss(self.net, logits, given.targets, given.weights), None

    def logits(
        self,
        params: Tensors,
        given: Feed,
        ends: jax.Array | None,
        mask: Mask | None = None,
        seed: jax.Array | None = None,
    ) -> jax.Array:
        """[U, B, O], teacher forced; `ends` int32 [B] are the targets' lengths or None."""
        core, net = self.core, self.net
        encoded = seq2seq.encode(core, net, params, given.inputs, given.lengths, mask, seed)
        layers = seq2seq.decoder_layers(net, params)
        state = seq2seq.first_state(net, layers, encoded)
        first = jnp.full_like(given.targets[:1], END)
        inputs = jnp.concatenate([first, given.targets[:-1]])
        h, _ = seq2seq.decode(core, net, params, layers, encoded, inputs, state, ends, mask, seed)
        return head(net, params, h)


@lru_cache(maxsize=64)
def _programs(core: Core, net: NetSpec, placement: Placement) -> tuple[Any, Any, Any]:
    """The compiled functions `logits`, `begin` (source -> what a stream needs) and `advance`.

    What a step reads of the parameters is made once in `begin`: rounded, and fused into layers.
    """

    def logits(masters: Tensors, given: Feed, ends: jax.Array | None) -> Any:
        return MeanLoss(core, net).logits(rounded(masters, placement), given, ends)

    def begin(masters: Tensors, source: jax.Array, lengths: jax.Array | None, beam: int) -> Any:
        params = rounded(masters, placement)
        encoded = _repeated(seq2seq.encode(core, net, params, source, lengths), beam)
        layers = seq2seq.decoder_layers(net, params)
        read = {name: value for name, value in params.items() if name.startswith(READ)}
        return (read, layers, encoded), seq2seq.first_state(net, layers, encoded)

    def advance(given: Fixed, state: Tensors, read: jax.Array, order: jax.Array) -> Any:
        params, layers, encoded = given
        # Rows of one sentence share its memory, so only the states move with their parents.
        state = {
            name: jnp.take(value, order, axis=1 if name.endswith(".window") else 0)
            for name, value in state.items()
        }
        h, state = seq2seq.decode(core, net, params, layers, encoded, read[None], state)
        return head(net, params, h[0]), state

    return jax.jit(logits), jax.jit(begin, static_argnums=3), jax.jit(advance, donate_argnums=1)


class CoreTranslator(BaseTrainer):
    """A trainer of head "seq2seq"."""

    def __init__(
        self,
        core: Core,
        net: NetSpec,
        params: Arrays,
        optimiser: OptimiserSpec,
        placement: Placement,
    ) -> None:
        super().__init__(net, MeanLoss(core, net), params, optimiser, placement)
        self._evaluate, self._begin, self._advance = _programs(core, net, placement)

    def step(self, batch: Batch, seeds: Seeds) -> None:
        """One optimiser step on the mean cross-entropy of the batch's valid target steps.

        Raises:
            SpecError: a batch that does not fit the network.
        """
        with numbers_of(self._placement):
            given, ends = self._given(batch)
            mask = self._mask(batch, seeds.zoneout)
            drops = self._net.dropout > 0 or self._net.dropout_input > 0
            seed = self._words(key_of(seeds.dropout)) if drops else None
            self._loss, _ = self._descent.step(given, ends, mask, seed)

    def outputs(self, batch: Batch) -> np.ndarray:
        """Teacher-forced logits of evaluation, float32 (float64 for float64), [U, B, O].

        Raises:
            SpecError: a batch that does not fit the network.
        """
        with numbers_of(self._placement):
            return to_numpy(self._evaluate(self._descent.masters, *self._given(batch)))

    def decode(self, batch: Batch, beam: int = 1, alpha: float = 0.0) -> list[list[int]]:
        """The best candidate of each source, without its end mark; beam 1 is greedy search.

        Raises:
            SpecError: see `candidates`.
        """
        return [found.symbols for found in self.candidates(batch, beam, alpha)]

    def candidates(self, batch: Batch, beam: int = 1, alpha: float = 0.0) -> list[Candidate]:
        """The best candidate of each source with its log-probability and score; see `impls.beam`.

        Raises:
            SpecError: a batch that does not fit the network, a beam below 1, a negative alpha.
        """
        search.check(beam, alpha)
        with numbers_of(self._placement):
            given, _ = self._given(batch)
            steps, size = given.inputs.shape
            lengths = np.full(size, steps) if batch.lengths is None else batch.lengths
            return search.search(self._stream(given, beam), lengths, beam, alpha)

    def _given(self, batch: Batch) -> tuple[Feed, jax.Array | None]:
        """The batch and its targets' lengths on the device."""
        given, ends = feed(self._net, ready(self._net, batch), self._placement), None
        if batch.target_lengths is not None:
            ends = to_device(batch.target_lengths, np.dtype(np.int32), self._device)
        return given, ends

    def _stream(self, given: Feed, beam: int) -> Stream:
        fixed, state = self._begin(self._descent.masters, given.inputs, given.lengths, beam)
        return Stream(self._advance, fixed, state, self._placement)


class Stream:
    """The decoder as `impls.beam.Step`: a step of all hypotheses from the states that it keeps."""

    def __init__(self, advance: Any, fixed: Fixed, state: Tensors, place: Placement) -> None:
        """`fixed`: with a row of the source for every hypothesis, a sentence's together."""
        self._advance, self._device = advance, device_of(place)
        self._fixed, self._state = fixed, state

    def __call__(self, symbols: np.ndarray, parents: np.ndarray) -> np.ndarray:
        """Logits [N, O] after row n, going on from row parents[n], has read symbols[n]."""
        whole = np.dtype(np.int32)
        read, order = (to_device(a, whole, self._device) for a in (symbols, parents))
        logits, self._state = self._advance(self._fixed, self._state, read, order)
        return to_numpy(logits)


def _repeated(encoded: Encoded, times: int) -> Encoded:
    """Every sentence `times` times, its copies together."""
    repeated: Encoded = jax.tree.map(lambda value: jnp.repeat(value, times, axis=0), encoded)
    return repeated
