"""A planted value of every kind of figure, and small measured objects that they are made of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from polyrot.cohorts.cohort import ScaleFacts
from polyrot.haar.orthogonal import sample_haar
from polyrot.maps.correlation import Correlation
from polyrot.maps.matching import max_cosine
from polyrot.measured import PairSite
from polyrot.measures.attribution import Table
from polyrot.measures.bars.causal import Causal
from polyrot.measures.bars.joint import PUBLISHED_WEIGHTINGS, WEIGHTINGS, Joint
from polyrot.measures.component_effects import Attribution
from polyrot.measures.effects import BEYOND, DOSES
from polyrot.measures.firing import Firing, Overlap
from polyrot.measures.frontier import Frontier
from polyrot.measures.growth import OF_STEP, Growth
from polyrot.measures.published_scores import PublishedScores, Scores
from polyrot.measures.shared_start import UNITS, AlongTraining
from polyrot.measures.steering import Curves, Steering
from polyrot.measures.steering_arms import ARMS, DRAWN, Arms, SteeringArms
from polyrot.measures.stitching import ARMS as STITCHED, Stitching
from polyrot.measures.transfer import Transfer
from polyrot.report.figures.along_run import PatchingAlongRun
from polyrot.report.figures.cosine import DecoderCosine
from polyrot.report.figures.effects import Effects
from polyrot.report.figures.firing import FiringBySite
from polyrot.report.figures.frontier import DictionaryOnB
from polyrot.report.figures.glance import Glance, Line, Mark
from polyrot.report.figures.growth import GrowthCurve
from polyrot.report.figures.match import MatchCurve
from polyrot.report.figures.power import Power
from polyrot.report.figures.reconstruction import EVBySite
from polyrot.report.figures.rotation import RotationSpectrum
from polyrot.report.figures.steering import DoseCurves
from polyrot.report.figures.steering_arms import ArmsByDirection
from polyrot.report.figures.stitching import StitchedLoss
from polyrot.report.figures.tradeoff import TradeOff
from polyrot.runtime.seeding import numpy_generator, torch_generator

SITES, PAIRS, WIDTH = ("pre_0", "mid_0", "post_0"), ("0-1", "0-2"), 12
COUNTS = {"pairs": 1, "tokens": 1000, "sequences": 50}
COHORT: Any = SimpleNamespace(
    scale="toy_a",
    seeds=(0, 1, 2),
    width=WIDTH,
    sites=SITES,
    internal=SITES[1:],
    named_sites=SITES[-1:],
    fingerprint="f" * 64,
    facts=ScaleFacts(language=False, firing_sites=SITES[1:]),
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


def frontier(**levels: float) -> Frontier:
    """Of one pair at two of the sites, EVs around `levels`, their draws a hundredth apart."""
    found = transfer(**levels)
    drawn = np.linspace(-0.01, 0.01, 20)[:, None, None]

    def of_one(table: PairSite) -> PairSite:
        values = table.values[:1, :2]
        return PairSite(values, PAIRS[:1], SITES[:2], resamples=values + drawn, counts=COUNTS)

    names = Transfer.__dataclass_fields__
    one = Transfer(**{name: of_one(getattr(found, name)) for name in names})
    rows = {
        site: {f: float(getattr(one, f).values[0, j]) for f in ("self_ev", "naive_ev")}
        for j, site in enumerate(SITES[:2])
    }
    return Frontier(rows, COUNTS, one)


def scores_as_published() -> PublishedScores:
    """Two settings, of which the second favours the paper."""
    found = {
        name: transfer(naive_ev=naive, rotated_ev=rotated)
        for name, naive, rotated in (("one", -1.0, 0.6), ("other", -3.0, 0.9))
    }
    return PublishedScores(
        {name: Scores(t.self_ev, t.naive_ev, t.rotated_ev) for name, t in found.items()}
    )


def ev_by_site() -> EVBySite:
    found = transfer(self_ev=0.99, naive_ev=-4.0, rotated_ev=0.95, noise_ev=0.9)
    return (
        EVBySite.of(COHORT, found)
        .merged(EVBySite.of_untrained(COHORT, found))
        .merged(EVBySite.of_published(COHORT, scores_as_published()))
    )


def overlap(**levels: float) -> Firing:
    """Overlaps around `levels` (0.1 unless given), a little lower for each pair and site."""
    fall = np.add.outer([0.0, 0.02], [0.0, 0.02, 0.04])
    counts = {"tokens": 1000, "features": 96}

    def way(level: float) -> Overlap:
        found = PairSite(level - fall, PAIRS, SITES, counts=counts, ceiling=np.ones(3))
        return Overlap(found, found, found)

    return Firing(**{name: way(levels.get(name, 0.1)) for name in Firing.__dataclass_fields__})


def firing() -> FiringBySite:
    found = FiringBySite.of(COHORT, overlap(rotated=0.6, naive=0.0))
    return found.merged(FiringBySite.of_untrained(COHORT, overlap(rotated=0.5)))


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


def match_curve() -> MatchCurve:
    """A match that falls from 0.9 to 0.7 as training goes on; one of noise that stays at 0.4."""
    steps, sites = (10, 20, 30), COHORT.named_sites

    def flat(value: float, pairs: tuple[str, ...] = PAIRS) -> PairSite:
        spread = np.linspace(0, 0.02, len(pairs))[:, None]
        return PairSite(value + spread, pairs, sites, unit="fraction")

    tables = {
        step: dict.fromkeys(UNITS, flat(level))
        for step, level in zip(steps, (0.9, 0.8, 0.7), strict=True)
    }
    noise = {step: flat(0.4, ("noise",)) for step in steps}
    best = torch.zeros(len(PAIRS), len(sites), 64)
    along = AlongTraining((20, 30), tables, noise, best, best[:1])
    return MatchCurve.of(COHORT, along)


def growth(reading: str = "seeds of the pipeline") -> GrowthCurve:
    """Pointwise EV that rises from 0.6 to 0.8, variances that drift apart, all else as it is."""
    steps, rng = (1000, 2000, 4000), numpy_generator(3, "growth")

    def tables(name: str, levels: tuple[float, float, float]) -> tuple[PairSite, ...]:
        spread = rng.uniform(-0.02, 0.02, (len(PAIRS), len(COHORT.internal)))
        return tuple(
            PairSite(level + spread, PAIRS, COHORT.internal, unit=OF_STEP[name]) for level in levels
        )

    found = Growth(
        steps,
        tables("pointwise_ev", (0.6, 0.7, 0.8)),
        tables("rotated_ev", (0.9, 0.9, 0.9)),
        tables("variances", (1.0, 1.5, 3.0)),
        tables("recovered", (0.9, 0.8, 0.9)),
        np.array([[0.8, 0.9, 0.85], [0.95, 0.99, 0.99], [0.99, 1.0, 0.995]]),
        reading,
    )
    return GrowthCurve.of("toy_a", found)


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


def arms() -> ArmsByDirection:
    """What knows the tokens does 0.9 of what the direction does in the anchor, the rest little."""
    known, seeds = {"own": 1.0, "rotated": 0.9, "scaled": 0.92, "affine": 0.95}, (0, 1, 2)

    def found(pairs: tuple[str, ...], noise: float) -> Arms:
        spread = noise * np.linspace(-1, 1, len(pairs))
        gain = {arm: np.tile(known.get(arm, 0.05) + spread, (2, 1)) for arm in ARMS}
        within: np.ndarray = np.ones(2)
        none = dict.fromkeys(DRAWN, 0 * gain["own"])
        names = "depth", "closer"
        return Arms(names, pairs, seeds, (256, 300), 64, within, within, gain, gain, none)

    return ArmsByDirection.of("toy_a", SteeringArms(found(PAIRS, 0.1), found(("copy 0",), 0.0)))


def stitching(rotated: float = 0.9, pairs: tuple[str, ...] = PAIRS) -> Stitching:
    """Through R and whatever fits as closely `rotated`, else nothing; the ceiling is 1."""
    sites = SITES[1:]
    spread = np.add.outer(np.linspace(-0.02, 0.02, len(pairs)), [0.0, 0.05])
    counts, known = {"tokens": 1000, "sequences": 40}, ("rotated", "scaled", "affine")

    def found(level: float) -> PairSite:
        ceiling = np.ones(len(sites))
        return PairSite(level + spread, pairs, sites, counts=counts, ceiling=ceiling)

    by_arm = {arm: found(rotated if arm in known else -0.5) for arm in STITCHED}
    return Stitching(by_arm, by_arm, by_arm, dict.fromkeys(sites, 2.0), 0.1)


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
        np.stack([-measured, measured], 1)[:, None].repeat(8, 1),
        gradients,
    )


def causal() -> Causal:
    """The sibling's components in another order, so that only the alignment finds the match."""
    effects = torch.tensor([[1.0, 2.0, 4.0], [4.0, 1.0, 2.0], [2.0, 4.0, 1.0]], dtype=torch.float64)
    order = torch.tensor([[0, 1, 2], [1, 2, 0], [2, 0, 1]])
    zeros = torch.zeros(3, 3, dtype=torch.float64)
    return Causal(effects, effects, zeros, zeros, zeros, torch.zeros(4), order)


def along_run() -> PatchingAlongRun:
    """What converges is predicted worse."""
    r = np.array([0.9, 0.6, 0.5, 0.1, -0.3])
    ends = (tuple((r + side).clip(-1, 1).tolist()) for side in (-0.2, 0.2))
    steps = (1.0, 10.0, 100.0, 1000.0, 10000.0)
    return PatchingAlongRun(
        "toy_a", 10, 256, steps, tuple(r.tolist()), *ends, -1.0, (-0.6, 0.6), "us"
    )


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
        glance(), cosine(), ev_by_site(), firing(), rotation(), power(),
        DoseCurves.of("toy_a", steering()), arms(), effects(), along_run(), tradeoff(),
        StitchedLoss.of("toy_a", stitching()),
        match_curve(),
        growth(),
        DictionaryOnB.of("pair", frontier(self_ev=0.9, rotated_ev=0.8, naive_ev=-34.0)),
    )  # fmt: skip
