"""A planted value of every kind of figure, and small measured objects that they are made of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from polyrot.haar.orthogonal import sample_haar
from polyrot.maps.correlation import Correlation
from polyrot.maps.matching import max_cosine
from polyrot.measured import PairSite
from polyrot.measures.attribution import Table
from polyrot.measures.bars.causal import Causal
from polyrot.measures.bars.joint import PUBLISHED_WEIGHTINGS, WEIGHTINGS, Joint
from polyrot.measures.component_effects import Attribution
from polyrot.measures.effects import BEYOND, DOSES
from polyrot.measures.steering import Curves, Steering
from polyrot.measures.transfer import Transfer
from polyrot.report.figures.cosine import DecoderCosine
from polyrot.report.figures.effects import Effects
from polyrot.report.figures.glance import Glance, Line, Mark
from polyrot.report.figures.power import Power
from polyrot.report.figures.reconstruction import EVBySite
from polyrot.report.figures.rotation import RotationSpectrum
from polyrot.report.figures.steering import DoseCurves
from polyrot.report.figures.tradeoff import TradeOff
from polyrot.runtime.seeding import numpy_generator, torch_generator

SITES, PAIRS, WIDTH = ("pre_0", "mid_0", "post_0"), ("0-1", "0-2"), 12
COHORT: Any = SimpleNamespace(
    scale="toy_a",
    seeds=(0, 1, 2),
    width=WIDTH,
    sites=SITES,
    internal=SITES[1:],
    named_sites=SITES[-1:],
    fingerprint="f" * 64,
)


def transfer(**levels: float) -> Transfer:
    """A field of EVs around `levels` (0.5 unless given), a little lower for each pair and site."""
    fall = np.add.outer([0.0, 0.01], [0.0, 0.02, 0.04])
    names = Transfer.__dataclass_fields__
    return Transfer(
        **{
            name: PairSite(levels.get(name, 0.5) - fall, PAIRS, SITES, counts={"tokens": 1000})
            for name in names
        }
    )


def ev_by_site() -> EVBySite:
    found = transfer(self_ev=0.99, naive_ev=-4.0, rotated_ev=0.95, noise_ev=0.9)
    return EVBySite.of(COHORT, found).merged(EVBySite.of_untrained(COHORT, found))


def fits(matched: np.ndarray, shuffled: np.ndarray) -> Any:
    """Rotations [pairs, sites, d, d] where the figure looks for them."""

    def by_site(stack: np.ndarray) -> dict[str, list[Any]]:
        return {
            site: [SimpleNamespace(r=torch.from_numpy(stack[i, j])) for i in range(len(PAIRS))]
            for j, site in enumerate(SITES)
        }

    return SimpleNamespace(
        pairs=PAIRS, sites=SITES, matched=by_site(matched), shuffled=by_site(shuffled)
    )


def haar_stack(purpose: str) -> np.ndarray:
    drawn = sample_haar(WIDTH, len(PAIRS) * len(SITES), numpy_generator(1, purpose))
    return drawn.reshape(len(PAIRS), len(SITES), WIDTH, WIDTH)


def rotation() -> RotationSpectrum:
    return RotationSpectrum.of(COHORT, fits(haar_stack("matched"), haar_stack("shuffled")))


def cosines(same: bool, name: str) -> DecoderCosine:
    """Decoders of three models at the named site: one and the same, or each drawn anew."""
    drawn = [
        torch.randn(WIDTH, 64, generator=torch_generator(2, "decoder", 0 if same else m))
        for m in range(3)
    ]
    best = torch.stack([max_cosine(drawn[0], other) for other in drawn[1:]])
    return DecoderCosine.of(COHORT, COHORT.named_sites, best[:, None], name)


def cosine() -> DecoderCosine:
    return cosines(True, "shared start").merged(cosines(False, "own start"))


def steering(rotated: float = 1.0, naive: float = -0.5) -> Steering:
    """Gains in proportion to the dose: `rotated` and `naive` times the anchor's."""
    doses = DOSES + BEYOND
    line = np.array(doses)

    def curves(share: float, models: int) -> Curves:
        gain = np.tile(share * line, (2, models, 1))
        return Curves(gain, np.zeros_like(gain), np.abs(gain) + 0.1)

    random = np.tile(0.2 * line[: len(DOSES)], (2, len(PAIRS), 1))
    return Steering(
        ("depth", "closer"),
        doses,
        PAIRS,
        curves(1.0, 1),
        curves(naive, 2),
        curves(rotated, 2),
        curves(1.2, 2),
        random,
        random / 4,
        random,
        np.ones(2),
        (0, 1, 2),
        128,
        (256, 300),
    )


def attributions() -> Table:
    """Integrated gradients are right, attribution patching has the sign wrong."""
    components = ("head", "mlp_0", "mlp_1")
    measured = np.array([[0.1, 2.0, 5.0]] * 3)
    truth = torch.from_numpy(measured)
    none = torch.zeros(3), 32, torch.zeros(3, 32), torch.zeros(8, 2, 3)
    gradients = tuple(Attribution(components, row, row, *none) for row in truth)
    wrong, right = (Correlation(r, 3, (-1.0, 1.0), (-1.0, 1.0)) for r in (-1.0, 1.0))
    return Table(
        (0, 1, 2),
        components,
        measured,
        -measured,
        (wrong,) * 3,
        (right,) * 3,
        gradients,
        np.full((3, 3), 2.0),
        np.full((3, 8), -1.0),
        np.full((3, 8), 1.0),
        np.full((3, 8, 3), 2.0),
    )


def causal() -> Causal:
    """The sibling's components in another order, so that only the alignment finds the match."""
    effects = torch.tensor([[1.0, 2.0, 4.0], [4.0, 1.0, 2.0], [2.0, 4.0, 1.0]], dtype=torch.float64)
    order = torch.tensor([[0, 1, 2], [1, 2, 0], [2, 0, 1]])
    zeros = torch.zeros(3, 3, dtype=torch.float64)
    return Causal(effects, effects, zeros, zeros, zeros, torch.zeros(4), order)


def effects() -> Effects:
    found = Effects.of_attributions("toy_a", attributions())
    return found.merged(Effects.of_causal(COHORT, causal()))


def joint() -> Joint:
    """Weight error rises and activation error falls with the weighting."""
    n, k = len(PAIRS), len(WEIGHTINGS)
    at = torch.linspace(0.1, 1, k)
    points = torch.stack([at, 1.1 - at, 0.05 + at / 10], 1).double()
    convex = points[None, :, None].repeat(n, 1, 2, 1)
    loss = torch.zeros(n, k, 2).double()
    loss[..., 1] = 1
    published = convex[:, : len(PUBLISHED_WEIGHTINGS)] + 1
    return Joint(convex[:, [0, -1], 0], convex, loss, loss, published, torch.ones(n).double())


def tradeoff() -> TradeOff:
    return TradeOff.of(COHORT, joint())


def power() -> Power:
    criteria = ("S4", "battery", "KS .99", "KS .01", "Frob 1%", "perm.")
    rows = ((0.01, 0.01, 0.1, 0.0, 0.0, 0.01), (1.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    names = ("Haar", "cyclic shift")
    return Power(16, 50, 400, 0.01, 0, names, criteria, rows, 1.0, "2026-11-23", "a command")


def glance() -> Glance:
    null = Mark("noise", "refuted", "0.97  (< 0.5)")
    unknown = Mark("shift", "not known", "")
    return Glance(
        (
            Line(Mark("a.b  toy_a", "not diagnostic", "0.98  (≥ 0.9)"), (null, unknown)),
            Line(Mark("a.c  toy_a", "refuted", "0.1  (≥ 0.9)"), (null,)),
        )
    )


def values() -> tuple[Any, ...]:
    """One of every kind."""
    return (
        glance(), cosine(), ev_by_site(), rotation(), power(),
        DoseCurves.of("toy_a", steering()), effects(), tradeoff(),
    )  # fmt: skip
