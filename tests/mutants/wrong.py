"""One deliberately wrong implementation per mistake that public ports made.

The numbers are those of the list of mistakes in the project's QRNN notes; `MUTANTS` says which
check must catch which.
"""

import numpy as np

from tests.mutants.base import Layer, Net

MUTANTS = {}


def mutant(mistake, check, words):
    """Register a Layer or Net with one mistake, and the check that must see it."""

    def register(cls):
        net = cls if issubclass(cls, Net) else type(cls.__name__, (Net,), {"layer_type": cls})
        name = "".join("_" + c.lower() if c.isupper() else c for c in cls.__name__).strip("_")
        MUTANTS[name] = (mistake, net, check, words)
        return cls

    return register


MASK = "zoneout mask of a training pass is the oracle's, with no rescaling"


@mutant(1, "zoneout_mask_equals_oracle", MASK)
class ZoneoutRescaled(Layer):
    def zoneout(self, f, i, held):
        f, i = super().zoneout(f, i, held)
        p = self.spec.zoneout
        return (f, i) if held is None else (1 - (1 - f) / (1 - p), i)


@mutant(2, "zoneout_evaluation_is_deterministic", "zoneout draws nothing at evaluation")
class ZoneoutRandomAtEvaluation(Layer):
    def held(self, seed, rows, t0, steps):
        if seed is None and self.spec.zoneout:
            seed = int(np.random.default_rng().integers(2**62))
        return super().held(seed, rows, t0, steps)


@mutant(3, "zoneout_mask_equals_oracle", MASK)
class ZoneoutOnInputGate(Layer):
    def zoneout(self, f, i, held):
        if held is None:
            return super().zoneout(f, i, held)
        return f, np.where(held, 0, i)


@mutant(3, "zoneout_mask_equals_oracle", MASK)
class ZoneoutMaskInverted(Layer):
    def held(self, seed, rows, t0, steps):
        mask = super().held(seed, rows, t0, steps)
        return None if mask is None else ~mask


@mutant(4, "zoneout_evaluation_has_gradients", "zoneout at evaluation has gradients")
class ZoneoutChangesSavedGate(Layer):
    """Changes a gate in place that the backward pass has saved; only the backward pass raises."""

    def forward(self, *args):
        results = super().forward(*args)
        self.saved[2].flags.writeable = False
        return results

    def scale(self, held):
        if held is None and self.spec.zoneout:
            plain = self.saved[2]
            plain *= 1 - self.spec.zoneout
        return super().scale(held)


@mutant(5, "zoneout_keeps_state", "zoneout in mode keep keeps the state of a held unit")
class ZoneoutModeKeepIgnored(Layer):
    def zoneout(self, f, i, held):
        return super().zoneout(f, i, held)[0], i


LAST = "the final state equals the oracle's after the last valid step"


@mutant(7, "states_equal_oracle", LAST)
class FinalStateOffByOne(Layer):
    def final(self, states, valid, c0):
        return states[-2] if len(states) > 1 else c0


@mutant(7, "states_equal_oracle", LAST)
class FinalStateOfLastSequence(Layer):
    def final(self, states, valid, c0):
        return np.broadcast_to(states[-1, -1], c0.shape)


@mutant(8, "reverse_is_flipped_back", "flipped back in time")
class ReverseNotFlippedBack(Net):
    def turn(self, x, lengths, direction):
        flipped_back = direction == "rev" and x.shape[2] == self.spec.hidden_size
        return x if flipped_back else super().turn(x, lengths, direction)


@mutant(9, "directions_have_their_own_weights", "each direction has parameters of its own")
class DirectionsShareWeights(Net):
    def parameters_of(self, layer, direction):
        one = super().parameters_of(layer, direction)
        one.p = super().parameters_of(layer, "fwd").p
        return one


TAPS = "tap K-1 multiplies the current step and tap 0 the oldest"


@mutant(10, "taps_are_in_order", TAPS)
class TapsReversed(Layer):
    def taps(self, before, x):
        return super().taps(before, x)[::-1]


@mutant(10, "taps_are_in_order", TAPS)
class TapMissing(Layer):
    def taps(self, before, x):
        taps = super().taps(before, x)
        return [np.zeros_like(x)] * (len(taps) - 1) + taps[-1:]


@mutant(11, "causality", "step t does not see inputs after t")
class PaddedOnBothSides(Layer):
    def taps(self, before, x):
        width = self.spec.kernel_width
        right = np.zeros((width // 2, *x.shape[1:]), x.dtype)
        both = np.concatenate([before[width // 2 :], x, right])
        return [both[j : j + len(x)] for j in range(width)]


@mutant(12, "output_gate_scales_the_output", "a closed output gate lets nothing out")
class OutputGateUnused(Layer):
    def output(self, o, c):
        return c


@mutant(13, "state_is_not_gated", "the output gate does not touch the state")
class GatedOutputFedBack(Layer):
    def pool(self, f, added, o, c):
        states, h = np.empty_like(f), c
        for t in range(len(f)):
            states[t] = f[t] * h + added[t]
            h = o[t] * states[t]
        return states


@mutant(14, "forget_gate_keeps_the_past", "f = 1 keeps the past")
class ForgetPolarityFlipped(Layer):
    def preactivation(self, gate, taps):
        a = super().preactivation(gate, taps)
        return -a if gate == "f" else a


@mutant(15, "gradients_equal_oracle", "every gradient equals the oracle's")
class GradientsShiftedByOneStep(Layer):
    def parameters(self, da, taps, both):
        return super().parameters({g: np.roll(a, 1, axis=0) for g, a in da.items()}, taps, both)


@mutant(19, "padded_equals_per_sequence", "a padded batch equals its sequences run alone")
class PaddingDecaysState(Layer):
    def pad(self, f, added, valid):
        return f, np.where(valid, added, 0)


@mutant(20, "long_stream_equals_sequence", "nothing is lost between chunks")
class WindowLostBetweenChunks(Layer):
    def forward(self, x, c0, before, *rest):
        return super().forward(x, c0, np.zeros_like(before), *rest)


@mutant(21, "long_sequences_stay_accurate", "4096 steps are as accurate as few")
class LogSpaceScan(Layer):
    """States from cumulative sums of log f, stabilised within chunks of 32 steps."""

    def pool(self, f, added, o, c):
        logs = np.cumsum(np.log(f), axis=0, dtype=f.dtype)
        before = np.concatenate([np.zeros_like(logs[:1]), logs[:-1]])
        out = np.empty_like(f)
        for start in range(0, len(f), 32):
            part = slice(start, start + 32)
            relative = logs[part] - before[start]
            terms = np.cumsum(added[part] * np.exp(-relative), axis=0, dtype=f.dtype)
            out[part] = np.exp(relative) * (c + terms)
            c = out[part][-1]
        return out


EDGES = "T = 1, B = 1, K = 1, K > T and odd sizes work like any other shape"


@mutant(22, "edge_shapes_equal_oracle", EDGES)
class OneStepSqueezed(Layer):
    def taps(self, before, x):
        return [tap.squeeze(0) if len(x) == 1 else tap for tap in super().taps(before, x)]


@mutant(22, "edge_shapes_equal_oracle", EDGES)
class OneSequenceSqueezed(Layer):
    def output(self, o, c):
        return super().output(o, c).squeeze()


@mutant(22, "edge_shapes_equal_oracle", EDGES)
class WindowOfShortSequence(Layer):
    def window(self, before, x, lengths):
        last = x[len(x) - len(before) :] if len(before) else x[:0]
        return last if len(last) == len(before) else np.zeros_like(before)


@mutant(22, "edge_shapes_equal_oracle", EDGES)
class OnlyWholeBlocksOfUnits(Layer):
    def preactivation(self, gate, taps):
        a = super().preactivation(gate, taps)
        if a.shape[2] > 32:
            a[..., a.shape[2] // 32 * 32 :] = 0
        return a


@mutant(22, "edge_shapes_equal_oracle", EDGES)
class WidthOneUnknown(Layer):
    def taps(self, before, x):
        if self.spec.kernel_width == 1:
            raise ValueError("zero-size array to concatenate")
        return super().taps(before, x)
