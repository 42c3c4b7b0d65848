"""The toy as a cohort: activations, agreement, distinctness, untrained siblings."""

import numpy as np
import pytest
import torch

from polyrot.cohorts.cohort import error_over_sequences, pair_labels
from polyrot.measured import interval_about
from polyrot.runtime.seeding import torch_generator
from polyrot.toy import task, transformer
from polyrot.toy.cohort import DATA_SEED, ToyCohort
from tests_unit.toy.few_sequences import few_sequences


def cohort_of(params, seeds, **more):
    return ToyCohort("toy_a", seeds, params, ["by hand"], **more)


@pytest.fixture(scope="module", autouse=True)
def _few_sequences():
    with few_sequences():
        yield


@pytest.fixture(scope="module")
def cohort(_few_sequences):
    return cohort_of(transformer.initialise([0, 1, 2]), (0, 1, 2))


def test_activations_are_those_of_a_forward_pass_without_padding(cohort):
    tokens = cohort.tokens("score")
    got = cohort.activations("score", "resid_mid_1")
    assert got.shape == (3, int((tokens != task.PAD).sum()), 64)
    run = transformer.forward(cohort.params, tokens[:5], capture=["resid_mid_1"])
    expected = run.captured["resid_mid_1"][:, tokens[:5] != task.PAD]
    torch.testing.assert_close(got[:, : expected.shape[1]], expected)
    sequence = cohort.sequences("score")
    assert len(sequence) == got.shape[1]
    lengths = (tokens != task.PAD).sum(1)
    assert torch.equal(torch.bincount(sequence), lengths)
    assert torch.equal(sequence, sequence.sort().values)


def test_activations_can_be_forgotten(cohort):
    first = cohort.activations("fit", "resid_pre_0")
    cohort.forget("fit")
    assert torch.equal(cohort.activations("fit", "resid_pre_0"), first)


def test_one_model_twice_agrees_wholly_and_is_not_distinct():
    twice = cohort_of(transformer.initialise([5, 5, 6]), (5, 7, 6))
    agreement = twice.agreement_with_anchor()
    assert agreement.values[0] == 1
    assert agreement.values[1] < 1
    assert agreement.labels == pair_labels(twice) == ("5-7", "5-6")
    assert twice.distinct_fraction() == pytest.approx(2 / 3)
    assert agreement.ceilings == (1.0, 1.0)


def test_the_lowest_head_is_judged_with_the_error_of_its_sequences():
    params = transformer.initialise([5, 5])
    params["w_out_1"][1] *= 1.05
    made = cohort_of(params, (5, 6))
    found, ends = made.agreement_with_anchor(), made.agreement_with_anchor().interval(0)
    hits, tokens = [], []
    for name in task.DISTRIBUTIONS:
        generator = torch_generator(DATA_SEED, "agreement", name)
        drawn = task.sequences(100, generator, name)
        logits = transformer.forward(params, drawn).logits
        keep = drawn != task.PAD
        tops = {h: logits[h].argmax(-1) for h in task.HEADS}
        hits.append(torch.stack([((t[0] == t[1]) & keep).sum(1) for t in tops.values()]))
        tokens.append(keep.sum(1))
    whole, n = torch.cat(hits, 1).double(), torch.cat(tokens).double()
    by_head = whole.sum(1) / n.sum()
    lowest = int(by_head.argmin())
    value = float(by_head[lowest])
    assert 0 < value < 1
    assert found.values[0] == pytest.approx(value)
    assert found.counts == {"positions": int(n.sum()), "sequences": 300}
    error = float(error_over_sequences(whole[lowest][None].numpy(), n.numpy())[0])
    assert ends == pytest.approx(interval_about(value, error, "sequences", "fraction"))


def test_a_sibling_given_twice_is_seen_among_siblings():
    siblings = cohort_of(transformer.initialise([5, 6, 6]), (5, 6, 7))
    assert siblings.distinct_fraction() == pytest.approx(2 / 3)


def test_a_doubled_seed_is_refused():
    with pytest.raises(ValueError, match="toy_a: seed 5 is given twice"):
        cohort_of(transformer.initialise([5, 5, 6]), (5, 5, 6))


def test_untrained_siblings_are_the_seeds_before_their_first_step(cohort):
    before = cohort.untrained()
    assert not before.trained
    assert before.fingerprint != cohort.fingerprint
    fresh = transformer.initialise(cohort.seeds)
    for name, p in before.params.items():
        assert torch.equal(p, fresh[name])


def test_a_direction_is_of_sites_that_are_offered(cohort):
    assert cohort.direction("depth", "resid_post_1").shape == (3, 64)
    with pytest.raises(KeyError, match="no such site: resid_pre_0; of depth have resid_post_0"):
        cohort.direction("depth", "resid_pre_0")
    published = cohort.published_contrasts[0]
    assert cohort.direction(published, "resid_pre_0").shape == (3, 64)
    with pytest.raises(KeyError, match=f"no such site: post_9; of {published} have resid_pre_0"):
        cohort.direction(published, "post_9")


def test_fingerprint_follows_what_made_the_models(cohort):
    other = ToyCohort("toy_a", cohort.seeds, cohort.params, ["something else"])
    assert other.fingerprint != cohort.fingerprint
    assert np.all(
        cohort.activations("fit", "resid_pre_0").numpy()
        == other.activations("fit", "resid_pre_0").numpy()
    )


def test_the_position_buffer_is_the_same_in_every_model(cohort):
    fixed = cohort.fixed_directions("resid_pre_0")
    buffer = transformer.position_buffer()
    assert fixed.shape == (6, 64)
    torch.testing.assert_close(buffer @ fixed.T @ fixed, buffer, atol=0, rtol=0)
    # embeddings that are 0 leave the buffer alone, whatever the model
    blank = {
        name: torch.zeros_like(p) if name == "embed" else p for name, p in cohort.params.items()
    }
    x = transformer.forward(blank, cohort.tokens("fit")[:2], capture=["resid_pre_0"])
    found = x.captured["resid_pre_0"]
    torch.testing.assert_close(found @ fixed.T @ fixed, found, atol=0, rtol=0)
