"""The pQRNN recipe: the network of definitions.md learns SNIPS on one CPU thread, in a minute.

Needs the files of SNIPS in $QUASIBENCH_DATA or the web. Nothing is chosen by the test set: it is
scored once, after the last step.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from harness import tasks
from impls import get, net_params
from impls.contract import ModelSpec
from impls.nets import NetSpec, OptimiserSpec
from impls.training import Seeds, trainer


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_pqrnn_reaches_95_percent_on_the_test_set_of_snips():
    pytest.importorskip("torch")
    start = time.process_time()
    task, root = tasks.get("text_classification"), 20_261_122
    data, recipe = task.data(root), task.recipe
    net = NetSpec(
        core=ModelSpec(input_size=task.input_size, **recipe["core"]), **(data.net | recipe["net"])
    )
    assert net_params.count(net, normalisation=False) == 1_314_567
    made = trainer(
        get("torch_native"), net, net_params.init(net, root), OptimiserSpec(**recipe["optimiser"])
    )
    for step in range(task.steps):
        low, high = np.random.SeedSequence([root, step]).generate_state(2, np.uint64)
        made.step(data.train(step), Seeds(dropout=int(low), zoneout=int(high)))
    validation, test = (
        data.score([made.outputs(batch) for batch in batches], batches)
        for batches in (data.validation, data.test)
    )
    print(f"validation {validation:.4f} test {test:.4f} cpu {time.process_time() - start:.0f} s")
    assert np.isfinite(made.loss())
    assert validation >= task.target
    assert test >= task.target
