"""Methods: the five lenses on the first seed.

Formulas: polyrot/measures/lenses/lenses.py, polyrot/measures/lenses/circuits.py,
polyrot/measures/lenses/patching.py, polyrot/measures/lenses/regions.py,
polyrot/measures/lenses/specification.py, polyrot/measures/lenses/transcoders.py,
polyrot/measures/lenses/graph.py, polyrot/measures/lenses/neurons.py.
"""

import pytest

from polyrot import measures


@pytest.mark.claim("lenses.folding_is_exact")
def test_folding_changes_no_logit(toy_cohort, keep, verdict):
    verdict(keep(measures.lenses.lenses.folding_change), over="seeds")


@pytest.mark.claim("lenses.roles_regress")
def test_features_are_readable_from_the_last_site(lenses, verdict):
    verdict(measures.lenses.lenses.lowest_readout(lenses))


@pytest.mark.claim("lenses.weights_name_the_depth_counter")
def test_depth_counter_attends_uniformly(lenses, verdict):
    verdict(measures.lenses.lenses.depth_counter_entropy(lenses))


@pytest.mark.claim("lenses.transcoder")
def test_transcoders_account_for_the_mlps(transcoder_quality, verdict):
    verdict(measures.lenses.lenses.transcoder_ev(transcoder_quality), over="layers")


@pytest.mark.claim("lenses.causal_agrees_with_norms")
def test_high_norm_does_not_imply_use(lenses, verdict):
    verdict(measures.lenses.lenses.least_used_of_ordinary_norm(lenses))


@pytest.mark.claim("lenses.regions_are_affine")
def test_each_region_is_affine(lenses, verdict):
    verdict(measures.lenses.lenses.region_errors(lenses))


@pytest.mark.claim("lenses.heads_kept")
def test_pruning_keeps_most_heads(lenses, verdict):
    verdict(measures.lenses.lenses.heads_kept(lenses))


@pytest.mark.claim("lenses.vestigial_heads")
def test_some_heads_cost_nothing(attributions, verdict):
    verdict(measures.lenses.lenses.vestigial_heads(attributions))


@pytest.mark.claim("lenses.all_neurons_alive")
def test_every_neuron_is_in_use(neurons, verdict):
    verdict(measures.lenses.lenses.neurons_alive(neurons))
