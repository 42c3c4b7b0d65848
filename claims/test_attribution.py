"""Section 8: predictions of a component's effect against the effect itself.

Formulas: polyrot/measures/attribution.py, polyrot/measures/component_effects.py,
polyrot/measures/convergence.py, polyrot/measures/published_attribution.py,
polyrot/maps/correlation.py.
"""

import pytest

from polyrot import measures


@pytest.mark.claim("attribution.patching_anticorrelates")
def test_attribution_patching_anticorrelates_in_most_seeds(attributions, verdict):
    verdict(attributions.anticorrelating())


@pytest.mark.claim("attribution.patching_uncorrelated")
def test_attribution_patching_is_uncorrelated(attributions, verdict):
    verdict(attributions.uncorrelated())


@pytest.mark.claim("attribution.integrated_gradients_toy")
def test_integrated_gradients_predict_the_toy(attributions, verdict):
    verdict(attributions.agreement(), over="seeds")


@pytest.mark.claim("attribution.integrated_gradients_language_model")
def test_integrated_gradients_predict_a_language_model(attributions, verdict):
    verdict(attributions.agreement())


@pytest.mark.claim("attribution.published_table")
def test_published_rows_give_the_published_correlations(verdict):
    verdict(measures.published_attribution.published_deviation())


@pytest.mark.claim("attribution.published_table_decides")
def test_six_rows_decide(verdict):
    verdict(measures.published_attribution.published_interval_width())


@pytest.mark.claim("attribution.remainder_is_quadratic")
def test_error_of_attribution_patching_is_quadratic(attributions, verdict):
    verdict(attributions.order_of_error())


@pytest.mark.claim("attribution.untrained_control")
def test_untrained_network_does_not_agree(untrained_attributions, verdict):
    verdict(untrained_attributions.agreement_by_completeness())


@pytest.mark.claim("attribution.patching_falls_short")
def test_attribution_patching_predicts_too_little(attributions, verdict):
    verdict(attributions.falls_short())


@pytest.mark.claim("attribution.convergence_is_the_cause")
def test_earlier_checkpoints_are_predicted_better(attributions_along_run, verdict):
    verdict(attributions_along_run.convergence())


@pytest.mark.claim("attribution.five_seeds_decide")
def test_five_signs_tell_a_majority_from_a_coin(patching_signs, verdict):
    verdict(patching_signs.majority())
