"""Deliberately wrong networks: one per mistake of whole networks that public ports made.

Each changes one function of the real package while a test runs. `NETWORK_MUTANTS` says which
check must catch it; the numbers are those of the list of mistakes in the QRNN notes, None where
the paper's equations alone say that it is one.
"""

from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module

NETWORK_MUTANTS = {}


def mutant(mistake, where, check, words):
    """Register a function (right one -> wrong one) that replaces impls._<framework>.<where>."""

    def register(make):
        NETWORK_MUTANTS[make.__name__] = (mistake, where, make, check, words)
        return make

    return register


@mutant(6, "nets.dropout", "dropout_reaches_the_next_layer", "reaches the next layer")
def dropout_thrown_away(right):
    def dropout(x, probability, seed, site):
        dropped = right(x, probability, seed, site)
        return x if site == 1 else dropped  # of two layers, site 1 is between them

    return dropout


@mutant(23, "attention.memory_of", "attention_ignores_padding", "what it gets alone")
def attention_over_padding(right):
    return lambda y, lengths: right(y, None)


@mutant(
    *(25, "seq2seq._with_projection", "decoder_gates_have_their_own_projections"),
    "its own projection",
)
def forget_gate_takes_the_projection_of_z(right):
    def with_projection(own, what):
        if "projection" in own:  # PyTorch has the gates side by side: z f o
            z, _, o = own["projection"].tensor_split(3, dim=1)
            return right({**own, "projection": _side_by_side(z, z, o)}, what)
        return right({**own, "f.projection": own["z.projection"]}, what)

    return with_projection


@mutant(
    *(None, "seq2seq.encode", "decoder_gates_have_their_own_projections"),
    "the encoder's last output",
)
def projected_from_the_state_behind_the_output_gate(right):
    def encode(*args):
        encoded = right(*args)
        return encoded._replace(outputs=encoded.cells)

    return encode


@mutant(None, "attention.output", "translation_equals_reference", "the reference's logits")
def scores_of_the_gated_state(right):
    def output(params, cells, opened, memory):
        context, cell = ("attention.context", "attention.cell")
        gated = cells if opened is None else opened * cells
        attended = right({**params, cell: 0 * params[cell]}, gated, opened, memory)
        return attended + right({**params, context: 0 * params[context]}, cells, opened, memory)

    return output


def _side_by_side(*parts):
    import torch

    return torch.cat(parts, dim=1)


@contextmanager
def living(name, card, monkeypatch):
    """The card's framework with the mutation, for as long as the context lasts."""
    _, where, make, _, _ = NETWORK_MUTANTS[name]
    module, function = where.split(".")
    framework = next(word for word in ("torch", "jax") if word in card.requires)
    package = import_module(f"impls._{framework}.{module}")
    core = card.core()

    def own_core(*args):
        """Equal to no other core, so that JAX compiles a program of its own for the mutant."""
        return core(*args)

    with monkeypatch.context() as patch:
        patch.setattr(package, function, make(getattr(package, function)))
        yield replace(card, core=lambda: own_core)
