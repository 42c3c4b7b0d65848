"""Section 10 and Methods: the four bars, within and across seeds.

Formulas: polyrot/measures/bars/bars.py, polyrot/measures/bars/behaviour.py,
polyrot/measures/bars/across.py, polyrot/measures/bars/alignment.py,
polyrot/measures/bars/published_search.py, polyrot/measures/bars/parametric.py,
polyrot/measures/bars/joint.py, polyrot/measures/bars/causal.py.
"""

import pytest

from polyrot import measures
from polyrot.measured import of_text_or_pipeline, with_pipeline


@pytest.mark.claim("bars.behavioural")
def test_behavioural_bar(readings, toy_cohort, verdict):
    verdict(measures.bars.bars.anchors_bar_b(readings, toy_cohort))


@pytest.mark.claim("bars.behavioural_near_miss")
def test_behavioural_bar_is_nearly_met(readings, toy_cohort, verdict):
    verdict(measures.bars.bars.bar_b(readings, toy_cohort), over="seeds")


@pytest.mark.claim("bars.depth_boundary_dominates")
def test_depth_head_makes_the_miss(readings, toy_cohort, verdict):
    verdict(measures.bars.bars.depth_share(readings, toy_cohort))


@pytest.mark.claim("bars.constructive_spec_is_the_model")
def test_specification_can_differ_from_its_model(decoys, toy_cohort, verdict):
    verdict(measures.bars.bars.own_specification(decoys, toy_cohort))


@pytest.mark.claim("bars.parametric")
def test_parametric_bar(alignment, self_alignment, toy_cohort, verdict):
    verdict(measures.bars.bars.bar_p(alignment, toy_cohort).below(self_alignment), over="pairs")


@pytest.mark.claim("bars.parametric_out_of_reach")
def test_parametric_bar_is_far_off(alignment, toy_cohort, verdict):
    verdict(measures.bars.bars.bar_p(alignment, toy_cohort), over="pairs")


@pytest.mark.claim("bars.joint_alignment_fails")
def test_no_weighting_clears_the_parametric_bar(joint, toy_cohort, verdict):
    verdict(measures.bars.bars.joint_figure(joint, toy_cohort), over="pairs")


@pytest.mark.claim("bars.basins_disconnected")
def test_every_weighting_worsens_both_errors(joint, toy_cohort, verdict):
    verdict(measures.bars.bars.basins(joint, toy_cohort), over="pairs")


@pytest.mark.claim("bars.causal_within")
def test_effects_are_predicted_within_a_seed(causal, toy_cohort, gradients_at_clean_end, verdict):
    verdict(
        measures.bars.bars.causal_within(causal, toy_cohort, gradients_at_clean_end), over="seeds"
    )


@pytest.mark.claim("bars.causal_across")
def test_effects_are_predicted_across_seeds(
    causal, causal_of_pipeline, toy_cohort, gradients_at_clean_end, verdict
):
    def by_pair(found):
        return measures.bars.bars.causal_across(found, toy_cohort, gradients_at_clean_end)

    verdict(with_pipeline(by_pair, causal, causal_of_pipeline.found), over="pairs")


@pytest.mark.claim("bars.causal_across_fails_as_published")
def test_prediction_across_seeds_fails_as_published(
    causal, causal_of_pipeline, toy_cohort, verdict
):
    def mean(found):
        by_pair = measures.bars.bars.causal_across(found, toy_cohort)
        return measures.bars.bars.mean_over_pairs(by_pair)

    made = of_text_or_pipeline(mean, causal, causal_of_pipeline.found)
    verdict(made.without(causal_of_pipeline.unread), over="mean over pairs")


@pytest.mark.claim("bars.decoy_rejected")
def test_decoy_is_told_apart(decoys, behaviour, verdict):
    verdict(measures.bars.bars.decoy_ratio(decoys, behaviour))


@pytest.mark.claim("bars.independent_cohort_holds_equally")
def test_independent_cohort_holds_equally(toy_scores, toy_cohort, verdict):
    verdict(measures.bars.bars.independent_minus_shared(toy_scores["toy_a"], toy_scores["toy_b"]))


@pytest.mark.claim("bars.behavioural_across")
def test_most_pairs_pass_the_behavioural_bar(across, toy_cohort, verdict):
    verdict(measures.bars.across.passing(across, toy_cohort))


@pytest.mark.claim("bars.decoy_across_control")
def test_decoy_does_not_pass_between_seeds(across, toy_cohort, verdict):
    verdict(measures.bars.across.decoys_divergence(across, toy_cohort), over="pairs")


@pytest.mark.claim("bars.parametric_before_refinement")
def test_parametric_bar_before_refinement(alignment, published_search, toy_cohort, verdict):
    verdict(
        measures.bars.parametric.before_refinement(alignment, published_search, toy_cohort),
        over="pairs",
    )


@pytest.mark.claim("bars.parametric_worse_when_independent")
def test_alignment_is_worse_when_nothing_is_shared(
    shared_searches, alignment, published_search, toy_cohort, verdict
):
    independent = alignment, published_search
    verdict(
        measures.bars.parametric.independent_over_shared(shared_searches, independent, toy_cohort)
    )


@pytest.mark.claim("bars.self_alignment_control")
def test_search_undoes_the_anchors_own_symmetries(self_alignments, toy_cohort, verdict):
    verdict(
        measures.bars.parametric.by_element(self_alignments, toy_cohort), over="8 random elements"
    )


@pytest.mark.claim("bars.error_sits_in_the_second_mlp")
def test_error_sits_in_the_second_mlp(alignment, toy_cohort, verdict):
    verdict(measures.bars.parametric.in_second_mlp(alignment, toy_cohort))
