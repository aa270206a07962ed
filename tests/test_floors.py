"""Floors: FLOPs as the oracle really does them, bytes and seconds against numbers by hand."""

import ast
import inspect
import json
from dataclasses import replace

import numpy as np
import pytest

from harness.floors import Ceilings, Cost, cost, floor_s, staged_floor_s
from impls import params, reference
from impls.contract import DTYPES, KINDS, ModelSpec, Work
from impls.reference import attention, conv, lstm, ops, qrnn

SPECS = [
    ModelSpec(input_size=3, hidden_size=5, pooling="f", kernel_width=1),
    ModelSpec(input_size=3, hidden_size=5, pooling="fo", kernel_width=2, layers=2),
    ModelSpec(input_size=4, hidden_size=2, pooling="ifo", kernel_width=3, layers=3, dense=True),
    ModelSpec(input_size=3, hidden_size=5, layers=2, bidirectional=True),
    ModelSpec(input_size=3, hidden_size=5, layers=3, bidirectional=True, dense=True),
    ModelSpec(family="lstm", input_size=3, hidden_size=5),
    ModelSpec(family="lstm", input_size=3, hidden_size=5, layers=3, dense=True),
    ModelSpec(family="lstm", input_size=6, hidden_size=2, layers=2, bidirectional=True),
    ModelSpec(family="conv", input_size=3, hidden_size=5, kernel_width=3, layers=2, dilated=True),
    ModelSpec(family="conv", input_size=3, hidden_size=5, layers=2, bidirectional=True, dense=True),
    ModelSpec(family="attention", input_size=8, hidden_size=8, heads=2, layers=2),
    ModelSpec(family="attention", input_size=3, hidden_size=8, heads=4, layers=2, dense=True),
]
STEPS, BATCH = 7, 4
ROUND = Ceilings(
    gemm_flops={"float32": 1e9, "bfloat16": 4e9},
    copy_bytes=1e8,
    dispatch_s=1e-6,
    exp_rate=1e8,
    step_s=1e-6,
    source="round numbers",
)


class CountedProducts(ast.NodeTransformer):
    """Turns every `a @ b` into `counted(a, b)`."""

    def visit_BinOp(self, node):
        self.generic_visit(node)
        if not isinstance(node.op, ast.MatMult):
            return node
        return ast.Call(ast.Name("counted", ast.Load()), [node.left, node.right], [])


@pytest.fixture
def products(monkeypatch):
    """Multiply-adds of every matrix product that the oracle does, from the shapes it uses."""
    done = []

    def counted(left, right):
        done.append(left.size * right.shape[-1])
        return left @ right

    def product(array, matrix):
        done.append(array.size * matrix.shape[-1])
        return ops.product(array, matrix)

    for module in (qrnn, lstm, conv, attention):
        tree = ast.fix_missing_locations(
            CountedProducts().visit(ast.parse(inspect.getsource(module)))
        )
        counting = {**vars(module), "counted": counted}
        exec(compile(tree, module.__file__, "exec"), counting)
        counting["product"] = product  # the module has just imported the real one again
        for name in ("forward", "backward"):
            monkeypatch.setattr(module, name, counting[name])
    return done


def work_of(spec, kind):
    rng = np.random.default_rng(0)
    steps = 1 if kind == "step" else STEPS
    y = rng.standard_normal((steps, BATCH, spec.output_size))
    return Work(kind, rng.standard_normal((steps, BATCH, spec.input_size)), dy=y, target=y)


@pytest.mark.parametrize("kind", ["forward", "backward", "step"])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_flops_are_those_of_the_products_that_the_oracle_does(spec, kind, products):
    if kind == "step" and spec.family == "attention":
        kind = "forward"  # it knows no step
    if kind == "step" and spec.bidirectional:
        spec = replace(spec, bidirectional=False)
    reference.run(spec, params.init(spec, 0), work_of(spec, kind))
    assert cost(spec, kind, BATCH, STEPS, "float32").flops == 2 * sum(products)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_train_step_saves_the_gradient_of_x_and_nothing_else(spec, products):
    reference.run(spec, params.init(spec, 0), work_of(spec, "train_step"))
    taps = spec.kernel_width if spec.family in ("qrnn", "conv") else 1
    gates = {"lstm": 4, "attention": 1}.get(spec.family, len(spec.gates))
    unneeded = STEPS * BATCH * taps * spec.input_size * gates * spec.output_size
    if spec.family == "attention" and spec.input_size == spec.hidden_size:
        unneeded = 0  # its first norm needs the gradient of what it gives in any case
    assert cost(spec, "train_step", BATCH, STEPS, "float32").flops == 2 * (sum(products) - unneeded)


def test_the_paper_layer_costs_what_the_formulas_give_by_hand():
    spec = ModelSpec(input_size=320, hidden_size=320, kernel_width=2, pooling="fo")
    found = cost(spec, "forward", 8, 32, "float32")
    assert found.flops == 2 * 256 * 640 * 960 == 314_572_800
    assert found.bytes == 4 * (256 * 320 + (640 * 960 + 960) + 256 * 320) == 3_116_800
    assert found.transcendentals == 256 * 3 * 320
    assert (found.calls, found.serial_steps) == (1, 0)
    assert found.staged == (
        ("layers.0.fwd.conv", 314_572_800, 4 * (256 * 320 + 640 * 960 + 256 * 960)),
        ("layers.0.fwd.pool", 0, 4 * 4 * 256 * 320),
    )


def test_an_attention_layer_costs_what_the_formulas_give_by_hand():
    spec = ModelSpec(family="attention", input_size=320, hidden_size=320)
    found = cost(spec, "forward", 8, 32, "float32")
    pairs = 8 * 32 * 33 // 2
    assert found.flops == 2 * 256 * 12 * 320 * 320 + 2 * 2 * pairs * 320
    assert found.transcendentals == 256 * 4 * 320 + 4 * pairs
    norms, biases = 3 * 2 * 320, 5 * 320
    assert params.count(spec) == 12 * 320 * 320 + norms + biases
    assert (found.calls, found.serial_steps) == (1, 0)


def test_a_convolution_costs_two_thirds_of_an_fo_layer():
    qrnn_layer = ModelSpec(input_size=320, hidden_size=320)
    conv_layer = replace(qrnn_layer, family="conv")
    found, other = (cost(s, "backward", 8, 32, "float32") for s in (conv_layer, qrnn_layer))
    assert 3 * found.flops == 2 * other.flops
    assert 3 * found.transcendentals == 2 * other.transcendentals


def test_training_bytes_are_x_weights_y_and_x_dy_grad_x_and_twice_the_weights():
    spec = ModelSpec(input_size=3, hidden_size=5, kernel_width=2, pooling="f")
    x, y, weights = 28 * 3, 28 * 5, 2 * 3 * 10 + 10
    assert cost(spec, "backward", 4, 7, "bfloat16").bytes == 2 * (
        (x + weights + y) + (x + y + x + 2 * weights)
    )
    assert cost(spec, "train_step", 4, 7, "float64").bytes == 8 * (2 * x + 2 * y + 3 * weights)


def test_a_bfloat16_train_step_moves_float32_master_weights():
    spec = ModelSpec(input_size=3, hidden_size=5, kernel_width=1, pooling="f")
    activations = 2 * 28 * (3 + 5)
    found = cost(spec, "train_step", 4, 7, "bfloat16").bytes
    assert found == 2 * activations + 4 * 3 * params.count(spec)


def test_an_lstm_waits_for_every_step_and_twice_in_training():
    one = ModelSpec(family="lstm", input_size=3, hidden_size=5)
    assert cost(one, "forward", 4, 7, "float32").serial_steps == 7
    assert cost(one, "backward", 4, 7, "float32").serial_steps == 14
    assert cost(one, "step", 4, 7, "float32").serial_steps == 1
    assert cost(replace(one, layers=3), "forward", 4, 7, "float32").serial_steps == 9
    both = replace(one, layers=3, bidirectional=True)
    assert cost(both, "forward", 4, 7, "float32").serial_steps == 21


def test_the_floor_is_the_largest_of_its_five_terms():
    least = dict.fromkeys(("flops", "bytes", "transcendentals", "calls", "serial_steps"), 1)
    terms = [
        ("flops", 5e9, 5.0),
        ("bytes", 3e8, 3.0),
        ("transcendentals", 2e8, 2.0),
        ("calls", 4e6, 4.0),
        ("serial_steps", 6e6, 6.0),
    ]
    for name, amount, seconds in terms:
        found = floor_s(Cost(**{**least, "staged": (), name: amount}), ROUND, "float32")
        assert found == pytest.approx(seconds), name
    assert floor_s(
        Cost(**{**least, "staged": (), "flops": 5e9}), ROUND, "bfloat16"
    ) == pytest.approx(1.25)


def test_the_staged_floor_adds_the_stages_and_is_never_below_the_floor():
    stages = (("a", 2e9, 1e8), ("b", 0, 3e8))
    one = Cost(flops=2e9, bytes=1, transcendentals=1, calls=1, staged=stages)
    assert staged_floor_s(one, ROUND, "float32") == pytest.approx(5.0)
    slow = replace(one, transcendentals=9e8)
    assert staged_floor_s(slow, ROUND, "float32") == floor_s(slow, ROUND, "float32") == 9.0
    for spec in SPECS:
        for kind in KINDS:
            for dtype in DTYPES:
                found = cost(spec, kind, BATCH, STEPS, dtype)
                assert sum(flops for _, flops, _ in found.staged) == found.flops
                assert sum(moved for _, _, moved in found.staged) > found.bytes


def test_a_family_without_formulas_has_no_cost():
    assert cost(ModelSpec(family="mingru"), "forward", 4, 7, "float32") is None


def test_unknown_words_are_answered_with_what_is_allowed():
    with pytest.raises(ValueError, match="kind = 'sideways': allowed are forward"):
        cost(ModelSpec(), "sideways", 4, 7, "float32")
    with pytest.raises(ValueError, match="dtype = 'int8': allowed are float32"):
        cost(ModelSpec(), "forward", 4, 7, "int8")
    with pytest.raises(ValueError, match=r"no matrix rate for 'float64' \(known: float32, bfloat"):
        floor_s(cost(ModelSpec(), "forward", 4, 7, "float64"), ROUND, "float64")


def test_ceilings_survive_the_manifest():
    nominal = Ceilings.nominal()
    assert nominal.source == "nominal"
    assert set(nominal.gemm_flops) == set(DTYPES)
    stored = json.loads(json.dumps({**nominal.to_dict(), "added_later": 1}))
    assert Ceilings.from_dict(stored) == nominal
    del stored["step_s"]
    with pytest.raises(ValueError, match="ceilings lack step_s: measure them again"):
        Ceilings.from_dict(stored)
