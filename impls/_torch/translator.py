"""The trainer of an encoder-decoder: teacher forcing, and decoding by streaming step by step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from impls import beam as search
from impls._torch import seq2seq
from impls._torch.arrays import to_numpy, to_tensor
from impls._torch.attention import Memory
from impls._torch.heads import head, loss
from impls._torch.nets import Feed, feed
from impls._torch.seq2seq import Encoded
from impls._torch.stack import Core
from impls._torch.trainer import BaseTrainer
from impls.batches import ready
from impls.beam import END, Candidate
from impls.contract import Arrays, Placement
from impls.nets import NetSpec, OptimiserSpec
from impls.training import Batch, Seeds, Translator


def make(
    core: Core, net: NetSpec, params: Arrays, optimiser: OptimiserSpec, placement: Placement
) -> Translator:
    """A translator of `net` around `core`.

    Raises:
        SpecError: parameters of another network.
    """
    return CoreTranslator(core, net, params, optimiser, placement)


class CoreTranslator(BaseTrainer):
    """A trainer of head "seq2seq"."""

    def step(self, batch: Batch, seeds: Seeds) -> None:
        """One optimiser step on the mean cross-entropy of the batch's valid target steps.

        Raises:
            SpecError: a batch that does not fit the network.
        """
        given = feed(self._net, ready(self._net, batch), self._params)
        logits = self._logits(batch, given, seeds)
        mean = loss(self._net, logits, given.targets, given.weights)
        self._descent.step(mean)
        self._loss = mean.detach()

    def outputs(self, batch: Batch) -> np.ndarray:
        """Teacher-forced logits of evaluation, float32 (float64 for float64), [U, B, O].

        Raises:
            SpecError: a batch that does not fit the network.
        """
        with torch.inference_mode():
            given = feed(self._net, ready(self._net, batch), self._params)
            return to_numpy(self._logits(batch, given, None))

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
        with torch.inference_mode():
            given = feed(self._net, ready(self._net, batch), self._params)
            steps, size = given.inputs.shape
            lengths = np.full(size, steps) if batch.lengths is None else batch.lengths
            return search.search(self._stream(given, beam), lengths, beam, alpha)

    def _logits(self, batch: Batch, given: Feed, seeds: Seeds | None) -> Tensor:
        """[U, B, O], teacher forced; seeds None = evaluation."""
        net, params = self._net, self._params
        mask = None if seeds is None else self._mask(batch, seeds.zoneout)
        seed = None if seeds is None else seeds.dropout
        ends = None
        if batch.target_lengths is not None:
            ends = to_tensor(batch.target_lengths, torch.int64, params.device)
        encoded = seq2seq.encode(self._core, net, params, given.inputs, given.lengths, mask, seed)
        layers = seq2seq.decoder_layers(net, params.leaves)
        state = seq2seq.first_state(net, layers, encoded)
        inputs = torch.cat([torch.full_like(given.targets[:1], END), given.targets[:-1]])
        h, _ = seq2seq.decode(
            *(self._core, net, params.leaves, layers, encoded, inputs, state, ends, mask, seed)
        )
        return head(net, params.leaves, h)

    def _stream(self, given: Feed, beam: int) -> Stream:
        encoded = seq2seq.encode(self._core, self._net, self._params, given.inputs, given.lengths)
        return Stream(self, _repeated(encoded, beam))


class Stream:
    """The decoder as `impls.beam.Step`: a step of all hypotheses from the states that it keeps."""

    def __init__(self, translator: CoreTranslator, encoded: Encoded) -> None:
        """`encoded`: a row for every hypothesis, a sentence's together."""
        self._core, self._net = translator._core, translator._net
        self._leaves, self._encoded = translator._params.leaves, encoded
        self._layers = seq2seq.decoder_layers(self._net, self._leaves)
        self._state = seq2seq.first_state(self._net, self._layers, encoded)

    def __call__(self, symbols: np.ndarray, parents: np.ndarray) -> np.ndarray:
        """Logits [N, O] after row n, going on from row parents[n], has read symbols[n]."""
        device = self._leaves["head.bias"].device
        read, order = (to_tensor(a, torch.int64, device) for a in (symbols, parents))
        # Rows of one sentence share its memory, so only the states move with their parents.
        state = {
            name: value.index_select(1 if name.endswith(".window") else 0, order)
            for name, value in self._state.items()
        }
        h, self._state = seq2seq.decode(
            *(self._core, self._net, self._leaves, self._layers, self._encoded, read[None], state)
        )
        return to_numpy(head(self._net, self._leaves, h[0]))


def _repeated(encoded: Encoded, times: int) -> Encoded:
    """Every sentence `times` times, its copies together."""

    def rows(value: Tensor) -> Tensor:
        return value if times == 1 else value.repeat_interleave(times, dim=0)

    memory, outputs, cells = encoded
    padded = None if memory.padded is None else rows(memory.padded)
    repeated = Memory(rows(memory.values), padded)
    return Encoded(repeated, [rows(h) for h in outputs], [rows(c) for c in cells])
