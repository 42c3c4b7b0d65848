"""Bar B against direct formulas, decoys, and the effects of Bars C and Pr."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from polyrot.measured import PairSite
from polyrot.measures import component_effects
from polyrot.measures.bars import alignment, bars, behaviour, causal, joint, kept
from polyrot.measures.bars.joint import Joint
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Runtime, Store, fingerprint
from polyrot.toy import symmetry, task, transformer
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.folding import fold
from polyrot.toy.transformer import COMPONENTS
from tests_unit.toy.few_sequences import few_sequences


def rotated_ev(*means):
    """At two sites, of pairs with these means over them."""
    values = np.array([[mean - 0.01, mean + 0.01] for mean in means])
    return PairSite(values, tuple(f"0-{i + 1}" for i in range(len(means))), ("a", "b"))


def test_the_cost_of_sharing_nothing_is_positive_where_the_shared_cohort_recovers_more():
    shared, independent = rotated_ev(0.89, 0.91), rotated_ev(0.68, 0.70, 0.72)
    found = bars.independent_minus_shared((shared, 0.99), (independent, 0.98))
    assert found.values[0] == pytest.approx(0.2)
    assert found.ceilings == pytest.approx((0.01,))
    reverse = bars.independent_minus_shared(
        (rotated_ev(0.7, 0.7), 1.0), (rotated_ev(0.9, 0.9), 1.0)
    )
    assert reverse.values[0] == pytest.approx(-0.2)
    samples = [0.89, 0.91], [0.68, 0.70, 0.72]
    ends = found.interval(0)
    wanted = scipy.stats.ttest_ind(*samples, equal_var=False).confidence_interval()
    assert (ends.low, ends.high) == pytest.approx((wanted.low, wanted.high))


def test_it_is_recorded_at_how_many_sites_of_either_cohort_r_is_not_determined():
    shared, independent = rotated_ev(0.89, 0.91), rotated_ev(0.68, 0.70)
    found = bars.independent_minus_shared(
        (shared.through({"a": False, "b": True}), 1.0),
        (independent.through({"a": True, "b": True}), 1.0),
    )
    assert found.beside["sites_not_identified_toy_a"] == 1
    assert found.beside["sites_not_identified_toy_b"] == 0
    plain = bars.independent_minus_shared((shared, 1.0), (independent, 1.0))
    assert not [name for name in plain.beside if "identified" in name]


def planted(kl, draws):
    """Two models; kl: [models, heads]; draws: factors of it, one a draw."""
    kl = torch.tensor(kl, dtype=torch.float64)
    by_draw = torch.tensor(draws, dtype=torch.float64)[:, None, None] * kl
    positions = torch.full((3,), 10)
    whole = kl[:, :, None].expand(-1, -1, 3).clone()
    return behaviour.Behaviour(whole, positions, by_draw.mean(2), by_draw)


def test_of_two_readings_the_lower_is_judged_and_both_are_recorded(cohort):
    text = planted([[1e-4, 2e-4, 6e-4], [4e-4, 4e-4, 4e-4]], [0.9, 1.1])
    pipeline = planted([[1e-4, 1e-4, 1e-4], [9e-4, 9e-4, 9e-4]], [0.9, 1.1])
    readings = {"2-62": text, "2-48": pipeline}
    anchor = bars.anchors_bar_b(readings, cohort)
    assert anchor.values.tolist() == pytest.approx([1e-4])
    assert anchor.beside["reading"] == "train lengths 2-48"
    assert anchor.beside["seed_0_2-62"] == pytest.approx(3e-4)
    # Over seeds the other one is: one setting for all values, by the worst of them.
    every = bars.bar_b(readings, cohort)
    assert every.values.tolist() == pytest.approx([3e-4, 4e-4])
    assert every.beside["reading"] == "train lengths 2-62"
    share = bars.depth_share(readings, cohort)
    of_text = dict(zip(task.HEADS, (1 / 9, 2 / 9, 6 / 9), strict=True))["depth"]
    assert share.values[0] == pytest.approx(1 / 3)
    assert share.beside["anchor_2-62"] == pytest.approx(of_text)
    assert share.interval(0).low == pytest.approx(1 / 3), "each draw has the same share"


def test_bar_b_has_the_interval_of_its_draws(cohort):
    found = planted([[1e-4] * 3, [2e-4] * 3], [0.8, 1.0, 1.2])
    made = bars.bar_b({"2-62": found}, cohort)
    ends = made.interval(1)
    relative = 0.2 / 3**0.5 * scipy.stats.t.ppf(0.975, 2)
    assert ends.of == "sequences"
    assert (ends.low, ends.high) == pytest.approx(
        (2e-4 / math.exp(relative), 2e-4 * math.exp(relative))
    )
    assert made.n == 3 * behaviour.INPUTS
    alone = planted([[1e-4] * 3, [2e-4] * 3], [1.0])
    assert bars.bar_b({"2-62": alone}, cohort).interval(0) is None


def test_the_error_of_a_share_is_that_of_a_ratio():
    generator = torch_generator(9, "shares")
    by_head = torch.rand(200, 1, 3, generator=generator, dtype=torch.float64)
    by_head[:, :, 1] = by_head[:, :, 0]  # two heads that go together
    kl = by_head.mean(0)[:, :, None].expand(-1, -1, 3)
    found = behaviour.Behaviour(kl, torch.full((3,), 5), by_head.mean(2), by_head)
    drawn = torch.randint(200, (4000, 200), generator=generator)
    sums = by_head[:, 0][drawn].mean(1)
    head = task.HEADS[0]
    spread = (sums[:, 0] / sums.sum(1)).std()
    assert float(found.share_error(head)[0]) == pytest.approx(float(spread), rel=0.1)
    assert behaviour.Behaviour(kl, torch.full((3,), 5), by_head.mean(2)).share_error(head) is None


def test_the_pipelines_train_lengths(monkeypatch):
    monkeypatch.setattr(behaviour, "INPUTS", 200)
    drawn = [b for b in next(behaviour.batches(0, content=(2, 48))) if b.distribution == "train"]
    lengths = torch.cat([(b.tokens != task.PAD).sum(1) for b in drawn])
    assert len(lengths) == 120
    assert lengths.min() >= 4
    assert 40 < lengths.max() <= 50
    labels = task.label(drawn[0].tokens)
    assert torch.equal(drawn[0].labels["depth"], labels.depth)


def lively(seeds):
    fresh = transformer.initialise(seeds)
    return {n: x if n.startswith("norm") else 8 * x for n, x in fresh.items()}


@pytest.fixture(scope="module")
def cohort():
    with few_sequences():
        return ToyCohort("toy_a", (0, 1), lively([0, 1]), ["for a test"])


def test_divergence_from_smoothed_labels():
    generator = torch_generator(0, "logits")
    logits = torch.randn(2, 3, 5, 9, generator=generator, dtype=torch.float64)
    label = torch.randint(9, (3, 5), generator=generator)
    p = (1 - 1e-6) * torch.nn.functional.one_hot(label, 9).double() + 1e-6 / 9
    expected = (p * (p.log() - logits.log_softmax(-1))).sum(-1)
    assert torch.allclose(behaviour.from_labels(logits, label), expected)
    # A model that puts out the smoothed label itself is at 0, and nothing is below.
    assert behaviour.from_labels(p.log()[None], label).abs().max() < 1e-12


def test_divergence_from_a_model():
    generator = torch_generator(1, "logits")
    a, b = torch.randn(2, 1, 3, 5, 9, generator=generator, dtype=torch.float64)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=a), torch.distributions.Categorical(logits=b)
    )
    assert torch.allclose(behaviour.from_model(b, a), expected)
    assert behaviour.from_model(a, a).abs().max() < 1e-15


def test_streamed_bar_is_the_mean_over_kept_positions(monkeypatch):
    monkeypatch.setattr(behaviour, "INPUTS", 20)
    params = lively([0, 1])
    found = behaviour.measure_behaviour(params, 1500, seed=5)
    total, n = torch.zeros(2, 3, dtype=torch.float64), 0
    drawn = behaviour.batches(5)
    while n < 1500:
        for batch in next(drawn):
            where = {"positions": batch.positions, "segments": batch.segments}
            logits = transformer.forward(params, batch.tokens, **where).logits
            keep = batch.tokens != task.PAD
            for i, head in enumerate(task.HEADS):
                kl = behaviour.from_labels(logits[head], batch.labels[head])
                total[:, i] += kl[:, keep].double().sum(1)
            n += int(keep.sum())
    assert int(found.positions.sum()) == n
    assert torch.allclose(found.by_head, total / n)
    assert torch.allclose(found.mean, (total / n).mean(1))
    assert len(found.draws) > 1
    assert found.standard_error.min() > 0
    assert torch.allclose(sum(found.share(h) for h in task.HEADS), torch.ones(2).double())


def test_inputs_are_shared_60_20_20():
    drawn = next(behaviour.batches(0))
    inputs = dict.fromkeys(task.DISTRIBUTIONS, 0)
    for batch in drawn:
        inputs[batch.distribution] += int((batch.tokens == task.BOS).sum())
    assert inputs == {"train": 1920, "compositional": 640, "long": 640}


def test_uniform_model_is_far_off(monkeypatch):
    monkeypatch.setattr(behaviour, "INPUTS", 20)
    blank = {n: torch.zeros_like(x) for n, x in lively([0]).items()}
    found = behaviour.measure_behaviour(blank, 1)
    expected = [math.log(c) for c in task.HEAD_CLASSES.values()]
    assert found.by_head[0].tolist() == pytest.approx(expected, abs=1e-4)


def test_specification_is_its_model_and_not_another(monkeypatch):
    monkeypatch.setattr(behaviour, "INPUTS", 20)
    params = lively([0, 1])
    spec = fold(transformer.select(params, [0]))
    kl = behaviour.measure_behaviour(params, 1, specification=spec).mean
    assert kl[0] < 1e-9
    assert kl[1] > 1e-2
    assert behaviour.measure_behaviour(fold(params), 1, specification=spec).mean[0] < 1e-9


def test_bar_b_refuses_nonsense():
    with pytest.raises(ValueError, match="0 is none"):
        behaviour.measure_behaviour(lively([0]), 0)
    with pytest.raises(ValueError, match="one specification, not 2"):
        behaviour.measure_behaviour(lively([0]), 1, specification=fold(lively([0, 1])))


def test_decoys():
    model = fold(lively([0]))
    averaged = behaviour.averaged_depth(model)
    w = averaged["unembed_depth"]
    assert torch.equal(w[..., 0], w[..., 1])
    assert torch.equal(w[..., 6], w[..., 7])
    assert torch.equal(w[..., 8], model["unembed_depth"][..., 8])
    assert torch.allclose(w.sum(-1), model["unembed_depth"].sum(-1), atol=1e-5)
    swapped = behaviour.swapped_layers(model)
    assert torch.equal(swapped["w_q_1"], model["w_q_0"])
    twice = behaviour.swapped_layers(swapped)
    assert all(torch.equal(twice[n], x) for n, x in model.items())
    assert all(torch.equal(swapped[n], model[n]) for n in ("embed", "position", "unembed_token"))


def test_every_bar_looks_at_what_folded_gives(monkeypatch, tmp_path):
    """A cohort whose parameters are one model twice, and whose `folded` says otherwise."""
    monkeypatch.setattr(behaviour, "INPUTS", 20)
    monkeypatch.setattr(kept, "FEW_POSITIONS", 100)
    params = lively([0])
    stranger = fold(lively([1]))

    class Other(ToyCohort):
        def folded(self, model):
            return stranger if model else super().folded(model)

    cohort = Other("toy_a", (0, 1), {n: torch.cat([p, p]) for n, p in params.items()}, ["seen"])
    runtime = Runtime(Store(tmp_path))
    found = kept.behaviours(runtime, cohort, 100)
    assert found.mean[0] != pytest.approx(float(found.mean[1]), rel=1e-3)
    spec = kept.decoys(runtime, cohort).specification.mean
    assert spec[0] < 1e-9 < 1e-2 < spec[1]
    siblings, anchor = kept.siblings_and_anchor(cohort)
    assert torch.equal(siblings["w_q_0"], stranger["w_q_0"])
    assert torch.equal(anchor["w_q_0"], fold(params)["w_q_0"])


def test_components_follow_the_alignment():
    heads = torch.tensor([[[2, 0, 1, 3], [3, 2, 1, 0]]])
    assert causal.aligned_components(heads).tolist() == [[2, 0, 1, 3, 7, 6, 5, 4, 8, 9]]


def test_correlation_is_pearson():
    generator = torch_generator(2, "effects")
    x, y = torch.randn(2, 4, 10, generator=generator, dtype=torch.float64)
    expected = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(x, y, strict=True)]
    assert causal.correlation(x, y).tolist() == pytest.approx([float(e) for e in expected])
    with pytest.raises(ValueError, match="nothing to correlate"):
        causal.correlation(torch.ones(1, 10), y[:1])


@pytest.mark.parametrize("name", ["SHARPNESS", "POLISH"])
def test_joint_alignments_are_kept_for_the_search_that_they_start_from(name, cohort, monkeypatch):
    class Asked(Exception):
        """Where an artifact would be looked for: its fingerprint."""

    class Asking:
        def get_or_build(self, kind, recipe, build, name):
            raise Asked(fingerprint(kind, recipe))

    def asked():
        with pytest.raises(Asked) as found:
            kept.joint_alignments(Runtime(Asking()), cohort, None)
        return str(found.value)

    before = asked()
    assert asked() == before
    monkeypatch.setattr(alignment, name, getattr(alignment, name) + 1)
    assert asked() != before


def test_cumulative_ablation_begins_with_single_effects(cohort):
    tokens = cohort.intervention_tokens(8)
    folded, means = cohort.folded(0), cohort.mean_writes(0)
    single = component_effects.mean_ablation_by_block(cohort, 0, tokens).mean
    order = torch.arange(len(COMPONENTS))
    for first in (0, 9):
        found = causal.cumulative_ablation(folded, means, order.roll(-first), tokens)
        assert float(found[0]) == pytest.approx(float(single[first]), abs=1e-5)
    # All together do not depend on the order.
    last = causal.cumulative_ablation(folded, means, order.flip(0), tokens)[-1]
    assert float(last) == pytest.approx(float(found[-1]), abs=1e-5)


def test_a_permuted_twin_has_its_anchors_effects(monkeypatch):
    """Across seeds r is 1 where the sibling is the anchor in another guise, by the right heads."""
    _in_few_steps(monkeypatch)
    params = lively([0])
    # A rotated position buffer has no place in plain parameters: leave the stream as it is.
    inner = symmetry.random(1, torch_generator(3, "twin"), ["heads", "neurons"])
    twin = symmetry.act(inner, fold(params))
    both = {n: torch.cat([fold(params).params[n], twin.params[n]]) for n in params}
    with few_sequences():
        cohort = ToyCohort("toy_a", (0, 1), both, ["a twin"])
    found = causal.measure_causal(cohort, inner.inverse(), sequences=4)
    assert found.across().item() == pytest.approx(found.within()[0].item(), abs=1e-4)
    assert found.measured_across().item() == pytest.approx(1, abs=1e-4)
    assert found.cumulative_across().item() == pytest.approx(
        found.cumulative_within()[0].item(), abs=1e-3
    )
    unaligned = causal.measure_causal(cohort, symmetry.identity(1), sequences=4)
    assert unaligned.across().item() < 0.999


def test_the_largest_difference_stands_beside_each_pair():
    """Of two aligned siblings one entry of each differs from the anchor's, by 2 and by 3."""
    params = lively([0, 0, 0])
    params["w_in_0"][1].view(-1)[7] += 2
    params["w_out_1"][2].view(-1)[5] -= 3
    with few_sequences():
        three = ToyCohort("toy_a", (0, 1, 2), params, ["planted"])
    siblings, anchor = (x.to(torch.float64) for x in kept.siblings_and_anchor(three))
    anchors = anchor.select([0, 0])
    difference = alignment.largest_difference(siblings, anchors)
    mse = alignment.tensor_mse(siblings, anchors)
    worst, none = mse.amax(1), torch.zeros(2, dtype=torch.bool)
    element = symmetry.identity(2).to(torch.float64)
    aligned = alignment.Alignment(element, mse, difference, worst, worst, none)
    found = bars.bar_p(aligned, three)
    assert found.beside["largest_difference_0-1"] == difference[0].item() != difference[1].item()
    assert found.beside["largest_difference_0-2"] == difference[1].item()
    assert "largest_difference" not in found.beside


@pytest.mark.slow  # every bar is measured, and read back
def test_what_is_stored_is_what_was_measured(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(behaviour, "INPUTS", 20)
    monkeypatch.setattr(kept, "FEW_POSITIONS", 100)
    monkeypatch.setattr(kept, "STARTS", 1)
    monkeypatch.setattr(kept, "COPIES", 1)
    monkeypatch.setattr(kept, "STEPS", 2)
    monkeypatch.setattr(causal, "SEQUENCES", 2)
    _in_few_steps(monkeypatch)
    runtime = Runtime(Store(tmp_path))
    cold = _everything(runtime, cohort)
    for name in ("measure_behaviour", "averaged_depth"):
        monkeypatch.setattr(behaviour, name, None)
    monkeypatch.setattr(alignment, "align", None)
    monkeypatch.setattr(joint, "align_jointly", None)
    monkeypatch.setattr(causal, "measure_causal", None)
    warm = _everything(runtime, cohort)
    for a, b in zip(cold, warm, strict=True):
        assert a.values.tolist() == b.values.tolist()
        assert a.beside == b.beside
        assert a.labels == b.labels
        assert a.intervals == b.intervals
        assert a.ceilings == b.ceilings


def _everything(runtime, cohort):
    seeds = kept.behaviours(runtime, cohort, 100)
    readings = {"2-62": seeds, "2-48": kept.behaviours(runtime, cohort, 100, (2, 48))}
    decoys = kept.decoys(runtime, cohort)
    aligned = kept.alignments(runtime, cohort)
    jointly: Joint = kept.joint_alignments(runtime, cohort, aligned)
    effects = kept.effects(runtime, cohort, aligned)
    across = bars.causal_across(effects, cohort)
    return [
        bars.bar_b(readings, cohort),
        bars.anchors_bar_b(readings, cohort),
        bars.depth_share(readings, cohort),
        bars.own_specification(decoys, cohort),
        bars.decoy_ratio(decoys, seeds),
        bars.bar_p(aligned, cohort).below(float(kept.self_alignment(runtime, cohort).max())),
        bars.joint_figure(jointly, cohort),
        bars.basins(jointly, cohort),
        bars.causal_within(effects, cohort),
        across,
        bars.mean_over_pairs(across),
    ]


def _in_few_steps(monkeypatch):
    monkeypatch.setattr(causal, "STEPS", 4)
    monkeypatch.setattr(causal, "CONVERGENCE", (1, 2))
    monkeypatch.setattr(causal, "CONVERGENCE_SEQUENCES", 2)
