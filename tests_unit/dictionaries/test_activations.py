"""TopK and JumpReLU in the trainer: what they promise, and whether a broken promise is seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from polyrot.dictionaries import activations
from polyrot.dictionaries.activations import Activation, JumpReLU, TopK
from polyrot.dictionaries.sae import Dictionary, quality, stack
from polyrot.dictionaries.training import Schedule, initialise, train
from polyrot.maps.matching import matched_fraction, max_cosine

D, FEATURES, TOKENS, ACTIVE = 32, 48, 4000, 3
TARGET = 4


@pytest.fixture(scope="module")
def planted() -> tuple[Tensor, Tensor]:
    """Tokens [1, TOKENS, D] of ACTIVE features each, and the features [D, FEATURES]."""
    generator = torch.Generator().manual_seed(1)
    features = torch.nn.functional.normalize(torch.randn(D, FEATURES, generator=generator), dim=0)
    which = torch.rand(TOKENS, FEATURES, generator=generator).topk(ACTIVE, dim=-1).indices
    size = 1 + torch.rand(TOKENS, ACTIVE, generator=generator)
    codes = torch.zeros(TOKENS, FEATURES).scatter(1, which, size)
    return (codes @ features.T)[None], features


def trained(
    x: Tensor, activation: Activation | None, l1: float = 0.0, steps: int = 1000
) -> Dictionary:
    schedule = Schedule(steps=steps, batch=256, rate=3e-3, activation=activation)
    found, _ = train(x, [0], [0], [l1], FEATURES, schedule)
    return found[0]


@pytest.fixture(scope="module")
def shrunk(planted: tuple[Tensor, Tensor]) -> Dictionary:
    """ReLU's, by an l1 at which its L0 is that of the others or more."""
    return trained(planted[0], None, l1=0.02)


@pytest.mark.parametrize(
    "activation", [TopK(TARGET), JumpReLU(float(TARGET))], ids=["topk", "jumprelu"]
)
def test_more_is_explained_than_by_l1_with_no_more_features(
    planted: tuple[Tensor, Tensor], shrunk: Dictionary, activation: Activation
) -> None:
    x, features = planted
    made = trained(x, activation)
    mine, other = quality(made, x[0]), quality(shrunk, x[0])
    assert mine.l0 < 1.1 * TARGET
    assert mine.l0 <= other.l0
    assert mine.ev > other.ev + 0.02
    start = initialise([0], D, D, FEATURES)["w_dec"][0].T
    found, chance = (
        matched_fraction(max_cosine(features, decoder, features="columns"), 0.9)
        for decoder in (made.decoder, start)
    )
    assert found > 0.5
    assert chance < 0.2


def test_topk_keeps_k_at_most_in_training_as_afterwards(planted: tuple[Tensor, Tensor]) -> None:
    x = planted[0]
    made = trained(x, TopK(3), steps=50)
    assert quality(made, x[0]).l0 <= 3
    hidden = (x[0] - made.b_in) @ made.w_enc + made.b_enc
    during = TopK(3).features(hidden[None], {})[0]
    torch.testing.assert_close(during, made.encode(x[0]))
    assert int((during > 0).sum(-1).max()) <= 3
    assert int((hidden > 0).sum(-1).max()) > 3, "there was nothing to leave out"


def test_jumprelu_encodes_in_training_as_afterwards(planted: tuple[Tensor, Tensor]) -> None:
    x, how = planted[0], JumpReLU(4.0)
    made = trained(x, how, steps=50)
    weights: dict[str, Any] = {
        "log_threshold": made.threshold.log()[None],  # type: ignore[attr-defined]
        "scale": activations.scale_of(x[0])[None],
    }
    hidden = (x[0] - made.b_in) @ made.w_enc + made.b_enc
    torch.testing.assert_close(how.features(hidden[None], weights)[0], made.encode(x[0]))


def _weights(threshold: Tensor) -> dict[str, Tensor]:
    return {
        "log_threshold": threshold.log()[None].requires_grad_(),
        "scale": torch.ones(1, dtype=threshold.dtype),
        "w_dec": torch.ones(1, len(threshold), 7, dtype=threshold.dtype),
    }


@pytest.mark.parametrize("of", ["penalty", "features"])
def test_thresholds_follow_the_derivative_of_the_smoothed_step(of: str) -> None:
    """A step that rises over the kernel's width has a derivative, which is worked out by
    differences; the straight-through estimator is that, but for what the width itself changes."""
    generator = torch.Generator().manual_seed(0)
    how = JumpReLU(l0=2.0, bandwidth=0.05)
    hidden = torch.rand(1, 200_000, 3, generator=generator, dtype=torch.float64)
    threshold = torch.tensor([0.3, 0.5, 0.7], dtype=torch.float64)
    gain = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    def smoothed(log: Tensor) -> Tensor:
        rise = ((hidden - log.exp()) / how.bandwidth + 0.5).clamp(0, 1)
        if of == "features":
            return (hidden * rise * gain).sum(2).mean()
        return how.weight / 7 * (rise.sum(2).mean() / how.l0 - 1).square()

    weights = _weights(threshold)
    if of == "features":
        (how.features(hidden, weights) * gain).sum(2).mean().backward()
    else:
        how.penalty(hidden, weights).sum().backward()
    found = weights["log_threshold"].grad
    assert found is not None
    step, log = 1e-4, threshold.log()
    for i in range(3):
        moved = torch.zeros(3, dtype=torch.float64)
        moved[i] = step
        wanted = float(smoothed(log + moved) - smoothed(log - moved)) / (2 * step)
        assert float(found[0, i]) == pytest.approx(wanted, rel=0.02)
        assert abs(wanted) > 1e-3


def test_a_dropped_derivative_is_seen(
    planted: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = planted[0]
    start = JumpReLU(2.0).start * float(activations.scale_of(x[0]))
    moved = trained(x, JumpReLU(2.0), steps=100)
    monkeypatch.setattr(activations, "_near", lambda hidden, *_: torch.zeros_like(hidden))
    stuck = trained(x, JumpReLU(2.0), steps=100)
    thresholds = [d.threshold for d in (moved, stuck)]  # type: ignore[attr-defined]
    # Scaled with the encoder where decoder rows are brought to unit norm, and no more than that.
    assert float(thresholds[0].median()) > 2 * start
    assert float(thresholds[1].median()) < 1.5 * start
    assert quality(stuck, x[0]).l0 > 2 * quality(moved, x[0]).l0


def test_what_relu_was_it_stays() -> None:
    assert Schedule().recipe() == {
        "steps": 6000,
        "batch": 4096,
        "rate": 5e-4,
        "precision": Schedule().precision,
    }
    known = [Schedule(activation=each).recipe() for each in (None, TopK(3), TopK(4), JumpReLU(3))]
    assert len({str(each) for each in known}) == 4


def test_more_than_weights_is_not_kept_as_weights(planted: tuple[Tensor, Tensor]) -> None:
    made = trained(planted[0], TopK(3), steps=2)
    with pytest.raises(TypeError, match="LoadedDictionary is more than its weights"):
        stack([made])


@pytest.mark.parametrize(
    "wrong", [lambda: TopK(0), lambda: JumpReLU(0.0), lambda: JumpReLU(3.0, bandwidth=-1.0)]
)
def test_what_cannot_be_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"at least one feature|must be positive"):
        wrong()
