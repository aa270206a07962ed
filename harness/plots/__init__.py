"""Everything a report notebook shows: words, figures and tables as self-contained HTML.

Each function takes tables of `harness.results` and returns an object that a notebook displays.
"""

from harness.plots.equivalence import claims, error_maps, failed_claims, gate, proof
from harness.plots.grids import paper, speedup_maps
from harness.plots.lines import floor, samples, times
from harness.plots.parts import memory, part_dots, part_ratios, part_times, reached, step_costs
from harness.plots.rates import part_rates
from harness.plots.tables import cells, environment, failures, reproduce, status, verdict

__all__ = [
    "cells",
    "claims",
    "environment",
    "error_maps",
    "failed_claims",
    "failures",
    "floor",
    "gate",
    "memory",
    "paper",
    "part_dots",
    "part_rates",
    "part_ratios",
    "part_times",
    "proof",
    "reached",
    "reproduce",
    "samples",
    "speedup_maps",
    "status",
    "step_costs",
    "times",
    "verdict",
]
