"""Attribution: exact where it must be, complete within its error, equal to a plain loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from polyrot.maps.checks import BadActivations
from polyrot.maps.correlation import fisher_interval, pearson
from polyrot.measures import component_effects
from polyrot.measures.attribution import tabulate
from polyrot.measures.component_effects import (
    attribution_patching,
    integrated_gradients,
    loss_along_path,
    mean_ablation_by_block,
    step_convergence,
)
from polyrot.measures.published_attribution import published_deviation, published_interval_width
from polyrot.toy import task, training, transformer
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.folding import fold
from polyrot.toy.run import ToyRun, cropped
from tests_unit.maps.rotated_pair import strong_params

quick = settings(max_examples=20, deadline=None)
WIDTH, COMPONENTS = 3, ("a", "b", "c", "d")


@dataclass
class PlantedRun:
    """The loss is a weighted sum of a known function of each component's write."""

    writes: Tensor
    kept: Tensor
    function: Callable[[Tensor], Tensor]

    def loss(self, components: Sequence[int], writes: Tensor) -> Tensor:
        weights = torch.arange(1.0, 1 + len(COMPONENTS), dtype=writes.dtype)
        clean = weights * self.of(self.writes)
        index = list(components)
        return clean.sum() - clean[index] + weights[index] * self.of(writes)

    def of(self, writes: Tensor) -> Tensor:
        return self.function(writes[:, self.kept].sum(-1)).mean(-1)


class Planted:
    """A cohort whose loss is `function` of the summed write."""

    components = COMPONENTS

    def __init__(self, function: Callable[[Tensor], Tensor], seed: int = 0) -> None:
        self.function, self.seed = function, seed

    def clean_run(self, model: int, tokens: Tensor, dtype: torch.dtype) -> PlantedRun:
        drawn = torch.stack(
            [
                torch.randn(
                    (len(COMPONENTS), tokens.shape[1], WIDTH),
                    generator=torch.Generator().manual_seed(self.seed + int(row[0])),
                )
                for row in tokens
            ],
            dim=1,
        )
        return PlantedRun(drawn.to(dtype), tokens > 0, self.function)

    def mean_writes(self, model: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(len(COMPONENTS), WIDTH, generator=generator)


TOKENS = torch.tensor([[i + 1, 1 + i % 2, i % 3] for i in range(37)])


@pytest.fixture(scope="module")
def toy() -> ToyCohort:
    params = {
        n: torch.cat([a, b])
        for (n, a), b in zip(strong_params(3).items(), strong_params(4).values(), strict=True)
    }
    made = ToyCohort("toy_a", (3, 4), params, ["strong random weights"])
    made._tokens = {split: x[:160] for split, x in made._tokens.items()}
    return made


@pytest.fixture(scope="module")
def tokens(toy: ToyCohort) -> Tensor:
    return toy.intervention_tokens(12)


@quick
@given(st.integers(0, 10_000))
def test_attribution_patching_is_exact_on_a_linear_model(seed: int) -> None:
    cohort = Planted(lambda s: 2 * s - 1, seed)
    measured = mean_ablation_by_block(cohort, 0, TOKENS).mean
    torch.testing.assert_close(attribution_patching(cohort, 0, TOKENS), measured, atol=1e-5, rtol=0)
    one = integrated_gradients(cohort, 0, TOKENS, steps=1)
    assert one.completeness_error.max() < 1e-5


@quick
@given(st.integers(0, 10_000))
def test_integrated_gradients_are_exact_on_a_quadratic_with_one_midpoint(seed: int) -> None:
    cohort = Planted(lambda s: s.square(), seed)
    one = integrated_gradients(cohort, 0, TOKENS, steps=1, dtype=torch.float64)
    torch.testing.assert_close(one.effects, one.measured, atol=1e-9, rtol=1e-9)


def test_points_of_the_pipeline_are_k_over_n_from_mean_to_clean() -> None:
    # Of s -> s^2 the gradient's mean over the points is exact arithmetic: with the clean end
    # included and the mean's left out, each effect misses (clean - mean)^2 / n.
    cohort, n = Planted(lambda s: s.square()), 8
    found = integrated_gradients(cohort, 0, TOKENS, n, points="clean end", dtype=torch.float64)
    run, means = cohort.clean_run(0, TOKENS, torch.float64), cohort.mean_writes(0).double()
    way = means.sum(-1)[:, None] - run.writes[:, run.kept].sum(-1)
    weights = torch.arange(1.0, 1 + len(COMPONENTS)).double()
    missed = weights * way.square().mean(1) / n
    torch.testing.assert_close(found.measured - found.effects, missed)
    largest = float(missed.max() / found.measured.abs().max())
    assert found.largest_error == pytest.approx(largest)
    assert integrated_gradients(cohort, 0, TOKENS, n).largest_error < 1e-5


@pytest.mark.parametrize("order", [2, 3])
def test_order_of_the_remainder_is_the_planted_one(order: int) -> None:
    # The remainder of s -> |s - s0|^order around s0 has that order; s0 is the clean value.
    cohort = Planted(lambda s: s)
    run = cohort.clean_run(0, TOKENS, torch.float64)
    clean = run.writes.sum(-1)

    class Around(PlantedRun):
        def loss(self, components: Sequence[int], writes: Tensor) -> Tensor:
            moved = writes.sum(-1) - clean[list(components)]
            return (moved + moved.abs() ** order)[:, self.kept].mean(-1)

    class OneBatch(Planted):
        def clean_run(self, model: int, tokens: Tensor, dtype: torch.dtype) -> PlantedRun:
            return Around(run.writes, run.kept, self.function)

    small = OneBatch(lambda s: s)
    path, _ = loss_along_path(small, 0, TOKENS[:1])
    np.testing.assert_allclose(path.orders().numpy(), order, atol=1e-6)


def test_linear_model_has_no_order() -> None:
    run_free = component_effects.Path(
        ("a",), torch.tensor([0.5]), torch.zeros(1, 1), torch.zeros(1)
    )
    with pytest.raises(ValueError, match="no remainder to take the order of: a"):
        run_free.orders()


def test_result_does_not_depend_on_the_batching(monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = Planted(lambda s: s.sin())
    found = []
    for batch, at_once in ((64, 64), (5, 3)):
        monkeypatch.setattr(component_effects, "BATCH", batch)
        monkeypatch.setattr(component_effects, "AT_ONCE", at_once)
        found.append(integrated_gradients(cohort, 0, TOKENS, 8, dtype=torch.float64))
    torch.testing.assert_close(found[0].curve, found[1].curve)
    torch.testing.assert_close(found[0].measured, found[1].measured)


# ------------------------------------------------------------------------------ the toy


def test_run_equals_the_transformer(toy: ToyCohort, tokens: Tensor) -> None:
    one = transformer.select(toy.params, [1])
    wanted = transformer.forward(one, cropped(tokens), capture=transformer.COMPONENTS)
    run = toy.clean_run(1, tokens)
    for i, name in enumerate(transformer.COMPONENTS):
        torch.testing.assert_close(run.writes[i], wanted.captured[name][0], atol=1e-4, rtol=1e-4)
    for site in transformer.SITES:
        logits = run.outputs(site, torch.zeros(1, 1, 1, 64))
        for head in task.HEADS:
            torch.testing.assert_close(logits[head], wanted.logits[head], atol=1e-4, rtol=1e-4)
    labels = {head: run.labels.head(head)[None] for head in task.HEADS}
    loss = training.losses(wanted.logits, labels, run.kept[None])
    torch.testing.assert_close(run.loss([0], run.writes[:1]), loss, atol=1e-5, rtol=1e-5)


def test_variants_come_back_in_their_order(toy: ToyCohort, tokens: Tensor) -> None:
    run = toy.clean_run(0, tokens[:4])
    components = [9, 0, 8, 4, 1]
    writes = 0.5 * run.writes[components]
    together = run.loss(components, writes)
    alone = [run.loss([c], w[None])[0] for c, w in zip(components, writes, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone))


def plain_effects(toy: ToyCohort, model: int, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ablation and attribution patching through the training's own forward pass."""
    one = transformer.select(toy.params, [model])
    means, kept = toy.mean_writes(model), tokens != task.PAD
    labels = {head: task.label(tokens).head(head)[None] for head in task.HEADS}

    def loss(edits: dict[str, transformer.Edit]) -> Tensor:
        run = transformer.forward(one, tokens, edits=edits)
        return training.losses(run.logits, labels, kept[None])[0]

    clean = loss({})
    measured, predicted = [], []
    for i, name in enumerate(transformer.COMPONENTS):
        mean = means[i]
        measured.append(loss({name: lambda x, mean=mean: mean.expand_as(x)}) - clean)
        leaf: list[Tensor] = []

        def tap(x: Tensor, leaf: list[Tensor] = leaf) -> Tensor:
            leaf.append(x.detach().requires_grad_())
            return leaf[0]

        (gradient,) = torch.autograd.grad(loss({name: tap}), leaf)
        predicted.append((gradient * (mean - leaf[0])).sum())
    return torch.stack(measured).double(), torch.stack(predicted).double()


def test_effects_equal_a_plain_loop(toy: ToyCohort, tokens: Tensor) -> None:
    measured, predicted = plain_effects(toy, 1, tokens)
    found = mean_ablation_by_block(toy, 1, tokens).mean
    torch.testing.assert_close(found, measured, atol=1e-4, rtol=1e-3)
    found = attribution_patching(toy, 1, tokens)
    torch.testing.assert_close(found, predicted, atol=1e-4, rtol=1e-3)


def test_integrated_gradients_are_complete_and_converge(toy: ToyCohort, tokens: Tensor) -> None:
    ig = integrated_gradients(toy, 0, tokens[:5])
    assert ig.completeness_error.max() < 0.02 * ig.measured.abs().max()
    torch.testing.assert_close(ig.completeness_error, (ig.effects - ig.measured).abs())
    errors = step_convergence(toy, 0, tokens[:5], (2, 16))
    assert errors[16] < errors[2]


def test_integrated_gradients_equal_captum(toy: ToyCohort, tokens: Tensor) -> None:
    captum = pytest.importorskip("captum.attr", reason='needs captum: pip install -e ".[test]"')
    few = tokens[:3]
    run, means = toy.clean_run(1, few), toy.mean_writes(1)
    found = integrated_gradients(toy, 1, few, 8)
    for c in range(len(toy.components)):

        def loss(x: Tensor, c: int = c) -> Tensor:
            return run.loss([c] * len(x), x)

        clean = run.writes[c][None]
        by_entry = captum.IntegratedGradients(loss).attribute(
            means[c].expand_as(clean), clean, n_steps=8, method="riemann_middle"
        )
        torch.testing.assert_close(found.effects[c], by_entry.double().sum(), atol=1e-5, rtol=1e-4)


def test_means_leave_padding_out(toy: ToyCohort) -> None:
    few = toy.tokens("fit")
    one = transformer.select(toy.params, [0])
    total = torch.zeros(10, 64, dtype=torch.float64)
    for part in few.split(256):
        captured = transformer.forward(one, part, capture=transformer.COMPONENTS).captured
        stacked = torch.stack([captured[n][0] for n in transformer.COMPONENTS])
        total += stacked[:, part != task.PAD].double().sum(1)
    wanted = (total / (few != task.PAD).sum()).float()
    torch.testing.assert_close(toy.mean_writes(0), wanted, atol=1e-4, rtol=1e-4)


def test_table_of_every_model(toy: ToyCohort, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("N_SEQUENCES", "N_PATH"):
        monkeypatch.setattr(f"polyrot.measures.attribution.{name}", 4)
    table = tabulate(toy)
    assert table.measured.shape == table.orders.shape == (2, 10)
    assert table.agreement().labels == ("seed 3", "seed 4")
    negative = np.mean([c.r < 0 for c in table.patching])
    assert table.anticorrelating().values[0] == negative
    assert table.patching_without.shape == (2, 4)
    assert table.uncorrelated().n == 4
    assert (table.uncorrelated().values == [abs(c.r) for c in table.patching]).all()
    assert table.order_of_error().values[1] == np.median(table.orders[1])
    beside = table.agreement().beside
    for seed, gradient in zip(toy.seeds, table.clean_end, strict=True):
        r = np.corrcoef(gradient.effects, gradient.measured)[0, 1]
        assert beside[f"r_clean_end_{seed}"] == pytest.approx(r)
    assert beside["largest_completeness_error_clean_end"] == max(
        gradient.largest_error for gradient in table.clean_end
    )
    found = beside["largest_completeness_error"]
    assert found == max(gradient.largest_error for gradient in table.gradients)
    share = np.median(np.abs(table.predicted) / np.abs(table.measured), axis=1)
    short = table.falls_short()
    assert short.values[0] == pytest.approx(np.median(share))
    assert short.beside["median_3"] == pytest.approx(share[0])
    assert table.effects_without.shape == (2, 4, 2, 10)


# ------------------------------------------------------------------------------ agreement


@quick
@given(st.integers(0, 10_000), st.integers(4, 30))
def test_pearson_equals_scipy(seed: int, n: int) -> None:
    drawn = np.random.default_rng(seed)
    x, y = drawn.normal(size=n), drawn.normal(size=n)
    found = pearson(torch.tensor(x), torch.tensor(y), drawn, draws=50)
    wanted = scipy.stats.pearsonr(x, y)
    assert found.r == pytest.approx(wanted.statistic)
    assert found.fisher == pytest.approx(tuple(wanted.confidence_interval()))
    assert -1 <= found.bootstrap[0] <= found.bootstrap[1] <= 1


def test_bootstrap_covers_the_planted_correlation() -> None:
    drawn = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        x = drawn.normal(size=40)
        y = 0.6 * x + 0.8 * drawn.normal(size=40)
        low, high = pearson(torch.tensor(x), torch.tensor(y), drawn, draws=300).bootstrap
        hits += low <= 0.6 <= high
    assert hits >= 50


def test_published_table_gives_its_correlations() -> None:
    assert max(published_deviation().values()) < 0.005
    width = published_interval_width()
    assert width.values[0] == pytest.approx(1.6216, abs=1e-3)
    assert "no model" in str(width.beside["demonstration"])
    assert fisher_interval(1.0, 6) == (1.0, 1.0)


# ------------------------------------------------------------------------------ bad input


def test_bad_input_is_named(toy: ToyCohort, tokens: Tensor) -> None:
    run = toy.clean_run(0, tokens[:2])
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"tokens must be \[batch, position\]"):
        mean_ablation_by_block(toy, 0, tokens[0])
    with pytest.raises(ValueError, match="one row for each"):
        attribution_patching(toy, 0, tokens, means=torch.zeros(3, 64))
    with pytest.raises(BadActivations, match="means are not finite"):
        attribution_patching(toy, 0, tokens, means=torch.full((10, 64), torch.nan))
    with pytest.raises(BadActivations, match="gradient is not finite"):
        attribution_patching(Planted(lambda s: s / 0.0), 0, TOKENS)
    with pytest.raises(BadActivations, match="no position of the batch is kept"):
        mean_ablation_by_block(Planted(lambda s: s), 0, TOKENS * 0)
    with pytest.raises(ValueError, match="at least one step"):
        integrated_gradients(toy, 0, tokens, 0)
    with pytest.raises(ValueError, match="each variant needs one component"):
        run.loss([0, 1], run.writes[:1])
    with pytest.raises(KeyError, match="no such site: resid_pre_9"):
        run.outputs("resid_pre_9", torch.zeros(1, 1, 1, 64))
    with pytest.raises(ValueError, match="a run is of one model, not of 2"):
        ToyRun(fold(toy.params), tokens)
    with pytest.raises(ValueError, match="two vectors of four or more"):
        pearson(torch.zeros(3), torch.zeros(3), generator)
    with pytest.raises(ValueError, match="same effect for every component"):
        pearson(torch.zeros(4), torch.arange(4.0), generator)
    with pytest.raises(ValueError, match="not finite"):
        pearson(torch.full((4,), torch.inf), torch.arange(4.0), generator)
    with pytest.raises(ValueError, match="needs n > 3"):
        fisher_interval(0.5, 3)
