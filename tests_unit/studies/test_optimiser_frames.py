"""Frames of models: a planted privileged basis is seen in its own frame and in no other."""

import numpy as np
import pytest
import torch

from polyrot.cohorts.cohort import SPLITS, CohortDefaults
from polyrot.maps.null_space import haar_block
from polyrot.studies import optimiser_frames as frames
from polyrot.studies.optimiser_frames import Framed, axes, nearest_to

WIDTH, FIXED, TOKENS, MODELS = 16, 2, 4000, 5


class Planted(CohortDefaults):
    """Five models of the same heavy-tailed sources, each along the axes of a basis of its own."""

    scale, seeds, width = "planted", tuple(range(MODELS)), WIDTH
    sites = ("resid_pre_0", "resid_post_0")
    fingerprint = "planted frames"

    def __init__(self):
        g = torch.Generator().manual_seed(7)
        self.turns = torch.stack([haar_block(WIDTH, g) for _ in range(MODELS)])
        self.along = nearest_to(self, self.turns)
        self.orders = [torch.randperm(WIDTH - FIXED, generator=g) for _ in range(MODELS)]

    def fixed_directions(self, site):
        return torch.eye(WIDTH)[:FIXED]

    def sequences(self, split):
        return torch.arange(TOKENS) // 10

    def activations(self, split, site):
        g = torch.Generator().manual_seed(10 * SPLITS.index(split) + self.sites.index(site))
        drawn = torch.rand(TOKENS, WIDTH - FIXED, generator=g, dtype=torch.float64) - 0.5
        sources = -drawn.sign() * torch.log1p(-2 * drawn.abs()) * torch.linspace(1, 2, 14)
        return torch.stack(
            [sources[:, o] @ a.T for o, a in zip(self.orders, self.along, strict=True)]
        ).float()


@pytest.fixture(scope="module")
def planted():
    return Planted()


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(frames, "draws_to_decide", lambda matrices: 4000)


def rows(framed):
    found = frames.rotations(framed, None)
    assert not found.unmet
    each = frames.kurtosis_rows(framed, "arm", "f") + frames.rotation_rows(found, "arm", "f")
    return {row.what: row for row in each if row.where == "f"}


def test_a_frame_leaves_out_what_is_fixed(planted):
    for frame in (axes(planted), nearest_to(planted, planted.turns)):
        assert frame.shape == (MODELS, WIDTH, WIDTH - FIXED)
        torch.testing.assert_close(
            frame.mT @ frame, torch.eye(WIDTH - FIXED, dtype=torch.float64).expand(MODELS, -1, -1)
        )
        assert float(frame[:, :FIXED].abs().max()) < 1e-12
    # Nearest: most of every column lies along one direction of the basis.
    overlap = (planted.turns.mT @ planted.along).abs().amax(1)
    assert float(overlap.min()) > 0.7


def test_a_privileged_basis_is_seen_in_its_own_frame_alone(planted):
    own = rows(Framed(planted, planted.along))
    assert own["mean_kurtosis"].low > 1.3
    assert own["largest_kurtosis"].low > 1.1
    assert own["battery"].value == own["battery"].low == own["battery"].n == 8
    assert min(own["S4"].low, own["MX"].low) > 3
    other = rows(Framed(planted, axes(planted)))
    assert 0.9 < other["mean_kurtosis"].value < 1.1
    assert other["battery"].value == 0
    assert max(abs(other["S4"].value), abs(other["MX"].value)) < 1.5


def test_planted_tails_and_planted_shared_axes_are_seen(planted):
    plain = Framed(planted, axes(planted))
    heavy = rows(Framed(planted, axes(planted), frames.heavier(1.5), "heavy"))
    assert heavy["mean_kurtosis"].low > 1.1
    explains = frames.explained(plain, frames.rotations(plain, None).fits, planted.sites)
    assert all(0.9 < ev <= 1 for ev in explains.values())
    shared = frames.shared_axes(plain, WIDTH - FIXED, dict.fromkeys(planted.sites, 0.3))
    found = rows(Framed(planted, axes(planted), shared, "all"))
    assert found["S4"].low > 1
    assert found["battery"].value > 4
    none = frames.shared_axes(plain, 0, dict.fromkeys(planted.sites, 0.3))
    assert rows(Framed(planted, axes(planted), none, "none"))["battery"].value == 0


def test_the_fingerprint_knows_frames_and_what_is_planted(planted):
    along, own, heavy = axes(planted), planted.along, frames.heavier(1.5)
    arguments = ((along,), (own,), (along, heavy, "heavy"), (along, heavy, "heavier"))
    found = [Framed(planted, *given).fingerprint for given in arguments]
    assert len({planted.fingerprint, *found}) == 5
    assert found == [Framed(planted, *given).fingerprint for given in arguments]
    for given in ((along, heavy), (along, None, "heavy")):
        with pytest.raises(ValueError, match="say in words what is planted"):
            Framed(planted, *given)


def test_a_run_that_stays_drifts_by_nothing_and_a_turned_one_as_far_as_haar(planted):
    stays = Framed(planted, axes(planted))
    share, determined = frames.drift_of(stays, stays)
    assert share.shape == (MODELS, 2)
    assert float(np.abs(share).max()) < 1e-3
    assert determined.all()
    g = torch.Generator().manual_seed(3)
    turned = Framed(planted, axes(planted) @ torch.stack([haar_block(14, g) for _ in range(5)]))
    share, _ = frames.drift_of(stays, turned)
    assert 0.85 < share.mean() < 1.15


def test_an_interval_is_students(planted):
    row = frames.over(np.log([1.0, 2.0, 4.0]), "w", "a", "f", "models", log=True)
    assert row.value == pytest.approx(2.0)
    assert row.low == pytest.approx(2.0 / np.exp(4.302653 * np.log(2) / 3**0.5), rel=1e-5)
    assert row.n == 3
