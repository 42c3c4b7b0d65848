"""Section 2 and the TL;DR: what the models are, and whether they compute the same function.

Formulas: polyrot/toy/transformer.py, polyrot/language/architecture.py, polyrot/cohorts/cohort.py,
polyrot/toy/cohort.py, polyrot/language/cohort.py, polyrot/measures/architecture.py.
"""

import pytest

from polyrot import language, measures, toy


@pytest.mark.claim("architecture.toy_parameters")
def test_toy_has_104k_parameters(toy_cohort, verdict):
    verdict(toy.transformer.n_parameters(toy_cohort.params))


@pytest.mark.claim("architecture.pythia_parameters")
def test_pythia_70m_has_71m_parameters(verdict):
    verdict(language.architecture.pythia_70m_parameters() / 1e6)


@pytest.mark.claim("architecture.same_function")
def test_seeds_compute_the_same_function(cohort, keep, verdict):
    verdict(keep(measures.architecture.trained_agreement), over="pairs")


@pytest.mark.claim("architecture.seeds_are_distinct")
def test_checkpoints_are_different_models(cohort, verdict):
    verdict(cohort.distinct_fraction())


@pytest.mark.claim("architecture.untrained_agreement_control")
def test_untrained_seeds_do_not_agree(untrained_agreement, verdict):
    verdict(untrained_agreement, over="pairs")


@pytest.mark.claim("architecture.length_extrapolation")
def test_depth_drops_beyond_the_lengths_of_training(extrapolation, verdict):
    verdict(measures.architecture.depth_beyond(extrapolation))
