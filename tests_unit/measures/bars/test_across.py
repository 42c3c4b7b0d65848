"""Bar B between seeds, what is resumed of it, and the search as the pipeline makes it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from polyrot.judge.verdicts import judge, reading
from polyrot.measures.bars import (
    across,
    alignment,
    behaviour,
    kept,
    parametric,
    published_search,
)
from polyrot.measures.bars.across import Across
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Artifact, Runtime, Store
from polyrot.toy import symmetry, task, transformer
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.folding import TENSORS, fold, joined
from tests_unit.toy.few_sequences import few_sequences
from tests_unit.worlds.asked import registration

PAIRS = SimpleNamespace(seeds=(0, 1, 2, 3, 4))


def lively(seeds):
    fresh = transformer.initialise(seeds)
    return {n: x if n.startswith("norm") else 8 * x for n, x in fresh.items()}


@pytest.fixture(scope="module")
def models():
    return fold(lively([0, 1, 2]))


class Stopping:
    """A checkpoint in memory that stops the run once it has so many draws."""

    path = "memory"

    def __init__(self, at):
        self.state, self.at = None, at

    def load(self):
        return self.state

    def save(self, artifact: Artifact):
        self.state = Artifact(dict(artifact.tensors), dict(artifact.meta))
        if len(artifact.tensors["sums"]) == self.at:
            raise KeyboardInterrupt


def test_a_killed_measurement_goes_on_where_it_was(models, monkeypatch):
    monkeypatch.setattr(behaviour, "INPUTS", 20)
    monkeypatch.setattr(behaviour, "SAVE_EVERY", 2)
    whole = behaviour.measure_behaviour(models, 5000)
    assert len(whole.draws) > 4
    checkpoint = Stopping(at=4)
    with pytest.raises(KeyboardInterrupt):
        behaviour.measure_behaviour(models, 5000, checkpoint=checkpoint)
    asked = []
    plain = behaviour.drawn
    monkeypatch.setattr(behaviour, "drawn", lambda *a: asked.append(a[1]) or plain(*a))
    again = behaviour.measure_behaviour(models, 5000, checkpoint=checkpoint)
    assert min(asked) == 4
    for name in ("kl", "positions", "draws", "draws_by_head"):
        assert torch.equal(getattr(again, name), getattr(whole, name)), name


def test_divergence_between_seeds_is_of_short_training_sequences_alone(models, monkeypatch):
    monkeypatch.setattr(behaviour, "INPUTS", 20)
    siblings, anchor = models.select([1, 2]), models.select([0])
    found = Across.of(across.measure_across(siblings, anchor, 400))
    everyone = joined([anchor, siblings, behaviour.averaged_depth(siblings)])
    total, n = torch.zeros(4, 3, dtype=torch.float64), 0
    for draw in range(len(found.siblings.draws)):
        generator = torch_generator(behaviour.DATA_SEED, "bar B", "train", draw)
        tokens = task.sequences(12, generator, "train", (2, 48))
        keep = tokens != task.PAD
        logits = everyone.run(tokens).logits
        for i, head in enumerate(task.HEADS):
            p, q = (logits[head][m].double().log_softmax(-1) for m in ([0], slice(1, None)))
            total[:, i] += (p.exp() * (p - q)).sum(-1)[:, keep].sum(1)
        n += int(keep.sum())
    assert found.counts == {"pairs": 2, "positions": n, "sequences": 12 * len(found.copy.draws)}
    both = torch.cat([found.siblings.mean, found.decoys.mean])
    assert torch.allclose(both, (total / n).mean(1), rtol=1e-4)
    assert 0 <= float(found.copy.mean) < 1e-8 < float(found.siblings.mean.min())


def planted(kl, spread):
    each = torch.tensor([1e-12, *kl, *[0.1] * len(kl)], dtype=torch.float64)[:, None]
    each = each.expand(-1, len(task.HEADS))
    luck = 1 + spread * torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    draws = luck[:, None, None] * each
    many = torch.tensor([100])
    return Across.of(behaviour.Behaviour(each[:, :, None].clone(), many, draws.mean(2), draws))


def test_the_fraction_that_passes_is_a_range_where_draws_decide():
    made = across.passing(planted([5e-5, 9e-5, 2e-4, 5e-4], 0.2), PAIRS)
    assert made.values.tolist() == [0.5]
    assert (made.interval(0).low, made.interval(0).high) == (0.25, 0.5)
    assert made.ceilings == (1.0,)
    assert made.beside["0-3"] == pytest.approx(2e-4)
    sure = across.passing(planted([5e-5, 5e-5, 2e-4, 5e-5], 0.01), PAIRS)
    assert (sure.interval(0).low, sure.interval(0).high) == (0.75, 0.75)
    decoys = across.decoys_divergence(planted([1e-5] * 4, 0.2), PAIRS)
    assert decoys.values.tolist() == pytest.approx([0.1] * 4)
    assert decoys.ceilings == ()
    assert decoys.interval(0).of == "sequences"


@pytest.mark.parametrize("parts", [("heads", "neurons"), ("neurons",), ("scales",)])
def test_the_pipelines_search_undoes_what_lies_inside(models, parts):
    """Not all at once: it matches heads as they stand, before it turns them."""
    anchor = models.select([0])
    inner = symmetry.random(2, torch_generator(4, "planted"), parts)
    moved = symmetry.act(inner, anchor.select([0, 0]))
    drawn = torch_generator(4, "starts")
    found = published_search.search(moved, anchor, drawn, starts=4, rounds=3)
    assert found.largest.max() < 1e-6
    assert found.without_rotation.max() < 1e-6


def test_the_pipelines_search_takes_the_best_start_of_all(models):
    siblings, anchor = models.select([1, 2]), models.select([0])
    many, few = (
        published_search.search(siblings, anchor, torch_generator(5, "s"), starts=k, rounds=2)
        for k in (3, 1)
    )
    assert (many.largest <= many.without_rotation.amax(1)).all()
    assert (many.largest < few.largest + 1e-9).all(), "the first start is among three"
    assert many.largest.min() > 1e-3
    unaligned = alignment.tensor_mse(siblings, anchor.select([0, 0])).amax(1)
    assert (many.largest < unaligned).all()
    with pytest.raises(ValueError, match="one anchor, not 3"):
        published_search.search(siblings, models, torch_generator(5, "s"))


def test_a_turned_stream_is_found_by_the_rotation_and_not_by_its_transpose(models):
    anchor = models.select([0])
    inner = symmetry.random(1, torch_generator(6, "planted"), ("residual",))
    moved = symmetry.act(inner, anchor)
    found = published_search.search(moved, anchor, torch_generator(6, "starts"), starts=2, rounds=2)
    assert found.forward.max() < 1e-6
    assert found.largest.max() > 1e-3, "as the pipeline applies it"


def test_neurons_are_matched_as_they_stand(models):
    """A neuron of long in-weights is matched by these; ours brings both parts to one norm first."""
    anchor = models.select([0])
    order, scales = published_search.fit_neurons(anchor, anchor, 1)
    assert order[0].tolist() == list(range(order.shape[1]))
    assert torch.allclose(scales, torch.ones_like(scales))
    doubled = symmetry.identity(1)
    doubled = replace(doubled, scales=2 * doubled.scales)
    order, scales = published_search.fit_neurons(symmetry.act(doubled, anchor), anchor, 0)
    assert order[0].tolist() == list(range(order.shape[1]))
    assert torch.allclose(scales, torch.full_like(scales, 0.5))


def searched(*largest):
    mse = torch.zeros(len(largest), len(TENSORS), dtype=torch.float64)
    mse[:, 5] = torch.tensor(largest)
    return published_search.PublishedSearch(mse, 3 * mse, mse / 2)


def test_of_two_searches_the_favourable_is_judged_and_both_are_recorded():
    ours = SimpleNamespace(searched=torch.tensor([0.3, 0.4, 0.4, 0.4]))
    claim = registration().claim("bars.parametric_before_refinement")
    both = parametric.before_refinement(ours, searched(0.36, 0.37, 0.38, 0.39), PAIRS)
    made = reading(claim, both)
    assert made.values.tolist() == pytest.approx([0.36, 0.37, 0.38, 0.39])
    assert made.beside["reading"] == parametric.PUBLISHED
    assert made.beside[f"0-1 {parametric.OURS}"] == pytest.approx(0.3)
    assert made.beside["without_rotation_0-2"] == pytest.approx(3 * 0.37)
    assert made.beside["set_by_without_rotation_0-2"] == TENSORS[5]
    assert made.intervals == (None,) * 4


def test_the_search_whose_figures_lie_within_the_bar_is_judged():
    claim = registration().claim("bars.parametric_before_refinement")

    def outcome(ours, published):
        found = SimpleNamespace(searched=torch.tensor([ours] * 4))
        made = parametric.before_refinement(found, searched(*[published] * 4), PAIRS)
        judged = judge(claim, "toy_a", made)
        return judged.outcome.value, judged.beside["reading"]

    assert outcome(0.4, 0.8) == ("held", parametric.OURS), "0.8 is too high: bar 0.35 to 0.75"
    assert outcome(0.8, 0.4) == ("held", parametric.PUBLISHED)
    assert outcome(0.25, 0.8) == ("refuted", parametric.PUBLISHED), "nearer to it, by either"


def test_the_ratio_of_cohorts_has_the_interval_of_its_pairs():
    def both(*values):
        return SimpleNamespace(searched=torch.tensor(values)), searched(*(2 * v for v in values))

    made = parametric.independent_over_shared(both(0.9, 1.0, 1.1), both(5.0, 6.0, 7.0), PAIRS3)
    assert made.values.tolist() == pytest.approx([6.0])
    low, high, of = made.interval(0)
    assert (low < 5.5, high > 6.5, of) == (True, True, "pairs")
    assert low * high == pytest.approx(36.0, rel=1e-5), "on the scale of logarithms"
    assert made.beside[f"independent by {parametric.PUBLISHED}"] == pytest.approx(12.0)
    assert made.beside["ratio_without_rotation"] == pytest.approx(6.0)


PAIRS3 = SimpleNamespace(seeds=(0, 1, 2, 3))


def test_where_the_error_sits_is_counted_over_pairs():
    mse = torch.full((3, len(TENSORS)), 0.1)
    for pair, name in enumerate(("w_in_1", "w_out_1", "embed")):
        mse[pair, TENSORS.index(name)] = 0.3
    none = torch.zeros(3)
    found = alignment.Alignment(symmetry.identity(3), mse, none, none, none, none > 0)
    made = parametric.in_second_mlp(found, PAIRS3)
    assert made.values.tolist() == pytest.approx([2 / 3])
    assert made.beside["worst_0-3"] == "embed"
    assert made.beside["elsewhere_mse_0-1"] == pytest.approx(0.1)


def test_what_is_kept_between_seeds_is_what_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(behaviour, "INPUTS", 20)
    monkeypatch.setattr(across, "POSITIONS", 300)
    monkeypatch.setattr(kept, "STARTS", 1)
    with few_sequences():
        cohort = ToyCohort("toy_a", (0, 1), lively([0, 1]), ["for a test"])
    runtime = Runtime(Store(tmp_path))

    def everything():
        return (
            across.passing(kept.between_seeds(runtime, cohort), cohort),
            across.decoys_divergence(kept.between_seeds(runtime, cohort), cohort),
            kept.published_search_of(runtime, cohort),
        )

    cold = everything()
    monkeypatch.setattr(across, "measure_across", None)
    monkeypatch.setattr(published_search, "search", None)
    warm = everything()
    for a, b in zip(cold[:2], warm[:2], strict=True):
        assert (a.values.tolist(), a.beside, a.intervals) == (
            b.values.tolist(),
            b.beside,
            b.intervals,
        )
    assert torch.equal(cold[2].mse, warm[2].mse)
