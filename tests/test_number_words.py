"""The encoder-decoder learns to translate German number words into English ones.

    python -m pytest -n 0 -s -m slow tests/test_number_words.py

trains the recipe of the task on one thread (about 3 minutes of CPU time) and prints the figures.
"""

from dataclasses import dataclass
from time import process_time

import numpy as np
import pytest

import impls
from harness import tasks
from impls import beam, net_params
from impls.beam import END
from impls.contract import ModelSpec
from impls.nets import NetSpec, OptimiserSpec
from impls.training import Batch, Seeds, trainer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
ROOT = 1


@dataclass
class Learnt:
    """A trained translator, the held-out batches and what two searches make of them."""

    translator: object
    batches: list
    greedy: list
    wide: list

    def right(self, found):
        """Share of held-out integers whose words are right to the last letter."""
        wanted = [
            column[: end - 1].tolist()
            for batch in self.batches
            for column, end in zip(batch.targets.T, batch.target_lengths, strict=True)
        ]
        return np.mean([one.symbols == want for one, want in zip(found, wanted, strict=True)])


@pytest.fixture(scope="module")
def learnt():
    torch = pytest.importorskip("torch")
    pytest.importorskip("num2words")
    if reason := impls.missing(impls.get("torch_native")):
        pytest.skip(reason)
    torch.set_num_threads(1)
    task = tasks.get("number_words")
    data, recipe = task.data(ROOT), task.recipe
    core = ModelSpec(input_size=task.input_size, **recipe["core"])
    net = NetSpec(core, **data.net, **recipe["net"])
    optimiser = OptimiserSpec(**recipe["optimiser"])
    params = net_params.init(net, ROOT)
    translator = trainer(impls.get("torch_native"), net, params, optimiser)
    begun = process_time()
    for step in range(task.steps):
        translator.step(data.train(step), Seeds(step, step))
        if step % 150 == 149:
            print(f"\nstep {step + 1}: loss {translator.loss():.5f}", end="", flush=True)
    seconds = process_time() - begun
    batches = list(data.test)
    greedy, wide = (
        [one for batch in batches for one in translator.candidates(batch, width)]
        for width in (1, 8)
    )
    found = Learnt(translator, batches, greedy, wide)
    print(
        f"\nnumber_words: {net_params.count(net)} parameters, {task.steps} steps in "
        f"{seconds:.0f} s of CPU time; of {len(greedy)} held-out integers greedy search has "
        f"{100 * found.right(greedy):.2f} % right, beam 8 {100 * found.right(wide):.2f} %"
    )
    return found


def test_held_out_integers_are_translated_exactly(learnt):
    assert len(learnt.greedy) >= 2000
    assert learnt.right(learnt.greedy) >= 0.99


def test_a_beam_of_eight_is_not_worse_than_greedy_search(learnt):
    assert learnt.right(learnt.wide) >= learnt.right(learnt.greedy) - 0.002


def test_a_beam_of_eight_finds_what_is_at_least_as_probable(learnt):
    pairs = zip(learnt.greedy, learnt.wide, strict=True)
    # The same words in another size of batch differ by rounding alone.
    share = np.mean(
        [w.symbols == g.symbols or w.log_probability >= g.log_probability for g, w in pairs]
    )
    print(f"raw log-probability of beam 8 at least greedy's on {100 * share:.2f} % of sentences")
    assert share >= 0.99


def test_streaming_equals_full_recomputation(learnt):
    """Symbol by symbol, and in log-probability, on everything that greedy search wrote."""
    apart, at = [], 0
    for batch in learnt.batches:
        found = learnt.greedy[at : at + batch.inputs.shape[1]]
        at += len(found)
        written = [one.symbols + [END] * one.ended for one in found]
        ends = np.array([len(symbols) for symbols in written])
        targets = np.zeros((ends.max(), len(written)), np.int64)
        for column, symbols in enumerate(written):
            targets[: len(symbols), column] = symbols
        again = Batch(batch.inputs, targets, batch.lengths, target_lengths=ends)
        log_p = beam.log_softmax(learnt.translator.outputs(again))
        for b, one in enumerate(found):
            own = log_p[: ends[b], b]
            assert own.argmax(axis=1).tolist() == written[b]
            total = own[np.arange(ends[b]), written[b]].sum()
            apart.append(abs(total - one.log_probability))
    print(f"log-probabilities of streaming and recomputation differ by at most {max(apart):.1e}")
    assert max(apart) <= 1e-4
