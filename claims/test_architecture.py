"""Section 2 and the TL;DR: what the models are, and whether they compute the same function.

Formulas: polyrot/toy/transformer.py, polyrot/language/architecture.py, polyrot/cohorts/cohort.py,
polyrot/toy/cohort.py, polyrot/language/cohort.py.
"""

import pytest

from polyrot.language.architecture import pythia_70m_parameters
from polyrot.toy.transformer import n_parameters


@pytest.mark.claim("architecture.toy_parameters")
def test_toy_has_104k_parameters(toy_cohort, verdict):
    verdict(n_parameters(toy_cohort.params))


@pytest.mark.claim("architecture.pythia_parameters")
def test_pythia_70m_has_71m_parameters(verdict):
    verdict(pythia_70m_parameters() / 1e6)


@pytest.mark.claim("architecture.same_function")
def test_seeds_compute_the_same_function(cohort, verdict):
    verdict(cohort.agreement_with_anchor(), over="pairs")


@pytest.mark.claim("architecture.seeds_are_distinct")
def test_checkpoints_are_different_models(cohort, verdict):
    verdict(cohort.distinct_fraction())
