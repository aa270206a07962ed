"""Everything a report notebook shows: words, figures and tables as self-contained HTML.

Each function takes what `harness.results` reads and returns an object that a notebook displays.
"""

from harness.plots.ablation import answer, forest, in_words
from harness.plots.accord import implementations
from harness.plots.costs import score_and_cost, step_times
from harness.plots.depth import by_depth
from harness.plots.equivalence import claims, error_maps, failed_claims, gate, proof
from harness.plots.grids import paper, speedup_maps
from harness.plots.learning import learning_curves, learning_rates, steps_to_target
from harness.plots.lines import floor, samples, times
from harness.plots.parts import memory, part_dots, part_ratios, part_times, reached, step_costs
from harness.plots.rates import part_rates
from harness.plots.record import failed_runs, plan, reproduce_ablation
from harness.plots.tables import cells, environment, failures, reproduce, status, verdict

__all__ = [
    "answer",
    "by_depth",
    "cells",
    "claims",
    "environment",
    "error_maps",
    "failed_claims",
    "failed_runs",
    "failures",
    "floor",
    "forest",
    "gate",
    "implementations",
    "in_words",
    "learning_curves",
    "learning_rates",
    "memory",
    "paper",
    "part_dots",
    "part_rates",
    "part_ratios",
    "part_times",
    "plan",
    "proof",
    "reached",
    "reproduce",
    "reproduce_ablation",
    "samples",
    "score_and_cost",
    "speedup_maps",
    "status",
    "step_costs",
    "step_times",
    "steps_to_target",
    "times",
    "verdict",
]
