"""The toy as a cohort: activations, agreement, distinctness, untrained siblings."""

import numpy as np
import pytest
import torch

from polyrot.cohorts.cohort import pair_labels
from polyrot.toy import task, transformer
from polyrot.toy.cohort import ToyCohort


def cohort_of(params, seeds, **more):
    return ToyCohort("toy_a", seeds, params, ["by hand"], **more)


@pytest.fixture(scope="module")
def cohort():
    return cohort_of(transformer.initialise([0, 1, 2]), (0, 1, 2))


def test_activations_are_those_of_a_forward_pass_without_padding(cohort):
    tokens = cohort.tokens("score")
    got = cohort.activations("score", "resid_mid_1")
    assert got.shape == (3, int((tokens != task.PAD).sum()), 64)
    run = transformer.forward(cohort.params, tokens[:5], capture=["resid_mid_1"])
    expected = run.captured["resid_mid_1"][:, tokens[:5] != task.PAD]
    torch.testing.assert_close(got[:, : expected.shape[1]], expected)


def test_activations_can_be_forgotten(cohort):
    first = cohort.activations("fit", "resid_pre_0")
    cohort.forget("fit")
    assert torch.equal(cohort.activations("fit", "resid_pre_0"), first)


def test_one_model_twice_agrees_wholly_and_is_not_distinct():
    twice = cohort_of(transformer.initialise([5, 5, 6]), (5, 5, 6))
    agreement = twice.agreement_with_anchor()
    assert agreement.values[0] == 1
    assert agreement.values[1] < 1
    assert agreement.labels == pair_labels(twice) == ("5-5", "5-6")
    assert twice.distinct_fraction() == 0.5


def test_untrained_siblings_are_the_seeds_before_their_first_step(cohort):
    before = cohort.untrained()
    assert not before.trained
    assert before.fingerprint != cohort.fingerprint
    fresh = transformer.initialise(cohort.seeds)
    for name, p in before.params.items():
        assert torch.equal(p, fresh[name])


def test_fingerprint_follows_what_made_the_models(cohort):
    other = ToyCohort("toy_a", cohort.seeds, cohort.params, ["something else"])
    assert other.fingerprint != cohort.fingerprint
    assert np.all(
        cohort.activations("fit", "resid_pre_0").numpy()
        == other.activations("fit", "resid_pre_0").numpy()
    )
