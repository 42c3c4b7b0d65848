"""Section 3: the anchor's SAE on a sibling's activations, untouched.

Formulas: polyrot/measures/transfer.py, polyrot/measures/published_scores.py,
polyrot/maps/explained_variance.py.
"""

import pytest

from polyrot import measures
from polyrot.measured import with_pipeline


@pytest.mark.claim("naive.input_site_transfers")
def test_shared_embedding_transfers(cohort, transfer, verdict):
    embedding = cohort.sites[:1]
    verdict(
        transfer.naive_off_own(embedding).each(),
        over="pairs",
    )


@pytest.mark.claim("naive.internal_sites_fail")
def test_internal_sites_fail(cohort, transfer, transfer_of_pipeline, verdict):
    def naive(found):
        grand = found.naive_ev_grand.at(cohort.internal).values.max()
        return found.naive_ev.at(cohort.internal).also(ev_grand=grand).each()

    verdict(with_pipeline(naive, transfer, transfer_of_pipeline), over="pairs x internal sites")


@pytest.mark.claim("naive.worst_case_x32")
def test_worst_site_at_32x_is_far_below_zero(wide_transfer, cohort, verdict):
    naive, grand = (
        measures.transfer.lowest_site(table.at(cohort.internal))
        for table in (wide_transfer.naive_ev, wide_transfer.naive_ev_grand)
    )
    verdict(naive.also(ev_grand=grand.values[0]))


@pytest.mark.claim("naive.language_model_sites_fail")
def test_language_model_sites_fail(cohort, transfer, verdict):
    naive, grand = (
        table.at(cohort.from_second_block).mean_over_pairs()
        for table in (transfer.naive_ev, transfer.naive_ev_grand)
    )
    verdict(
        naive.also(ev_grand=grand.values.max()),
        over="sites from the second block's output onward",
    )


@pytest.mark.claim("naive.internal_sites_fail_as_published")
def test_internal_sites_fail_as_published(cohort, scores_as_published, verdict):
    verdict(
        scores_as_published.naive(cohort.internal),
        over="internal sites, mean over pairs",
    )


@pytest.mark.claim("naive.language_model_sites_fail_as_published")
def test_language_model_sites_fail_as_published(cohort, scores_as_published, verdict):
    verdict(
        scores_as_published.naive(cohort.from_second_block),
        over="sites from the second block's output onward, mean over pairs",
    )


@pytest.mark.claim("naive.noise_beats_sibling")
def test_noise_is_reconstructed_better_than_a_sibling(
    cohort, transfer, transfer_of_pipeline, verdict
):
    def beyond_sibling(found):
        grand = found.naive_ev_grand.at(cohort.internal).values.max()
        return (
            (found.noise_ev - found.naive_ev).at(cohort.internal).also(naive_ev_grand=grand).each()
        )

    verdict(
        with_pipeline(beyond_sibling, transfer, transfer_of_pipeline),
        over="pairs x internal sites",
    )


@pytest.mark.claim("naive.noise_level")
def test_noise_is_reconstructed_well(cohort, transfer, verdict):
    noise = transfer.noise_ev.at(cohort.internal)
    shuffled = transfer.permuted_ev.at(cohort.internal).values.mean()
    verdict(
        measures.transfer.of_anchor(noise.also(dimensions_shuffled=shuffled)), over="internal sites"
    )


@pytest.mark.claim("naive.translation_control")
def test_moving_the_mean_does_not_repair(cohort, transfer, transfer_of_pipeline, verdict):
    def closed_by_shift(found):
        return found.gap_closed_by_shift(cohort.internal)

    verdict(
        with_pipeline(closed_by_shift, transfer, transfer_of_pipeline),
        over="internal sites, mean over pairs",
    )


@pytest.mark.claim("naive.untrained_control")
def test_untrained_siblings_do_not_fail(cohort, untrained_transfer, verdict):
    naive, grand = (
        table.at(cohort.internal).mean_over_pairs()
        for table in (untrained_transfer.naive_ev, untrained_transfer.naive_ev_grand)
    )
    verdict(
        naive.also(ev_grand=grand.values.min()),
        over="internal sites",
    )


@pytest.mark.claim("naive.untrained_noise_control")
def test_noise_does_not_beat_an_untrained_sibling(cohort, untrained_transfer, verdict):
    verdict(untrained_transfer.noise_beyond_sibling(cohort.internal), over="internal sites")
