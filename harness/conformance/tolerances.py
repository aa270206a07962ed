"""How far a result may lie from the float64 oracle: one table for values, one for gradients.

Errors are relative Frobenius norms, ||given - expected|| / ||expected||, of one named array.
Nothing in the project loosens these numbers: no environment variable, no argument, no case.
"""

from __future__ import annotations

from types import MappingProxyType

VALUES = MappingProxyType({"float32": 2e-6, "bfloat16": 6e-3, "float64": 1e-12})
"""Outputs and states against the oracle, and one run against another of the same layer."""

GRADIENTS = MappingProxyType({"float32": 2e-6, "bfloat16": 6e-3, "float64": 1e-12})
"""Every gradient against the oracle's."""

DIFFERENCE_STEP = MappingProxyType({"float32": 3e-2, "float64": 1e-4})
"""Step of the central differences, along a direction of length 1."""

DIFFERENCES = MappingProxyType({"float32": 2e-2, "float64": 1e-6})
"""Gradients of a family without an oracle against central differences of its own outputs.

The error is |difference - <gradient, v>| over the size that <gradient, v> has for a random unit
direction v, which is ||gradient|| / sqrt(entries). With a step e the truncation is of order e^2
and the rounding of order eps / e: 1e-8 and 1e-12 in float64; 1e-3 and 4e-6 in float32, where the
outputs' own rounding errors add up over the sum that makes the loss. The bounds leave a factor of
about 20 above these orders.
"""

TRAINING = MappingProxyType({"float64": 1e-11, "float32": 8e-5})
"""The losses of a training and each parameter's change at its end, against the other framework's.

float64: rounding, which 50 steps blow up to 4e-14 at most in these lessons; the rest is room for
other machines' products. float32: the same rounding gives up to 3e-6; optax computes Adam's
1 - beta2^n in float32, which is off by up to 2^-25 / 1e-3 = 3e-5 in the first step, half of it
under the root; and a scale near 1 that has gone 0.02 is itself rounded, sqrt(50) 2^-24 / 0.02 =
2e-5. The bound is twice the sum.
"""
