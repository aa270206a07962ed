"""Conformance: what every implementation must do, as checks that name the claim they make.

    from harness.conformance import parametrize_with_checks

    @parametrize_with_checks(["my_impl"])
    def test_conformance(check):
        check()

An implementation whose `prepare` raises NotImplementedError for a kind of Work is counted as
"unsupported" there, not as failing.
"""

from harness.conformance.cases import Case, covering_set, for_family, full_product, quick_set
from harness.conformance.check import CHECKS, Check, ConformanceError, Measured, check
from harness.conformance.difference_checks import check_finite_differences
from harness.conformance.gate_checks import (
    check_forget_gate_keeps_the_past,
    check_output_gate_scales_the_output,
    check_state_is_not_gated,
    check_zoneout_evaluation_follows_its_policy,
    check_zoneout_evaluation_has_gradients,
    check_zoneout_evaluation_is_deterministic,
    check_zoneout_keeps_state,
    check_zoneout_mask_equals_oracle,
    check_zoneout_mask_follows_its_row,
)
from harness.conformance.network_checks import (
    NETWORK_CHECKS,
    NetworkCheck,
    check_attention_ignores_padding,
    check_decoder_gates_have_their_own_projections,
    check_dropout_reaches_the_next_layer,
    check_translation_equals_reference,
)
from harness.conformance.oracle_checks import (
    check_any_layout_is_read_rightly,
    check_dtype_is_honest,
    check_edge_shapes_equal_oracle,
    check_gradients_equal_oracle,
    check_long_sequences_stay_accurate,
    check_states_equal_oracle,
    check_taps_are_in_order,
    check_train_step_equals_oracle,
    check_values_equal_oracle,
)
from harness.conformance.parametrize import BoundCheck, parametrize_with_checks
from harness.conformance.runner import run_checks
from harness.conformance.sequence_checks import (
    check_batch_independence,
    check_causality,
    check_directions_have_their_own_weights,
    check_gradient_repeatability,
    check_long_stream_equals_sequence,
    check_padded_equals_per_sequence,
    check_padded_gradients_equal_per_sequence,
    check_repeatability,
    check_reverse_is_flipped_back,
    check_steps_equal_sequence,
    check_stream_equals_sequence,
)
from harness.conformance.subject import Subject, clear_caches

__all__ = [
    "CHECKS",
    "NETWORK_CHECKS",
    "BoundCheck",
    "Case",
    "Check",
    "ConformanceError",
    "Measured",
    "NetworkCheck",
    "Subject",
    "check",
    "check_any_layout_is_read_rightly",
    "check_attention_ignores_padding",
    "check_batch_independence",
    "check_causality",
    "check_decoder_gates_have_their_own_projections",
    "check_directions_have_their_own_weights",
    "check_dropout_reaches_the_next_layer",
    "check_dtype_is_honest",
    "check_edge_shapes_equal_oracle",
    "check_finite_differences",
    "check_forget_gate_keeps_the_past",
    "check_gradient_repeatability",
    "check_gradients_equal_oracle",
    "check_long_sequences_stay_accurate",
    "check_long_stream_equals_sequence",
    "check_output_gate_scales_the_output",
    "check_padded_equals_per_sequence",
    "check_padded_gradients_equal_per_sequence",
    "check_repeatability",
    "check_reverse_is_flipped_back",
    "check_state_is_not_gated",
    "check_states_equal_oracle",
    "check_steps_equal_sequence",
    "check_stream_equals_sequence",
    "check_taps_are_in_order",
    "check_train_step_equals_oracle",
    "check_translation_equals_reference",
    "check_values_equal_oracle",
    "check_zoneout_evaluation_follows_its_policy",
    "check_zoneout_evaluation_has_gradients",
    "check_zoneout_evaluation_is_deterministic",
    "check_zoneout_keeps_state",
    "check_zoneout_mask_equals_oracle",
    "check_zoneout_mask_follows_its_row",
    "clear_caches",
    "covering_set",
    "for_family",
    "full_product",
    "parametrize_with_checks",
    "quick_set",
    "run_checks",
]
