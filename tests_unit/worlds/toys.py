"""Toy transformers whose siblings are the anchor under a known element of its symmetry group."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fixtures.bars import CausalOfPipeline
from polyrot.measured import PairSite
from polyrot.measures.attribution import at_clean_end
from polyrot.measures.bars import alignment as alignments, causal as causals, joint as joints
from polyrot.measures.bars.alignment import Alignment
from polyrot.measures.bars.behaviour import Behaviour
from polyrot.measures.bars.causal import Causal
from polyrot.measures.bars.joint import Joint
from polyrot.measures.bars.kept import Decoys, siblings_and_anchor
from polyrot.measures.bars.overlap import activation_overlap
from polyrot.measures.component_effects import Attribution
from polyrot.runtime.seeding import torch_generator
from polyrot.toy import symmetry, task
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.folding import Folded, fold
from polyrot.toy.transformer import Params
from tests_unit.maps.rotated_pair import strong_params

SEQUENCES = 96
FEW = 2
"""Sequences that effects are measured on: integrated gradients run hundreds of times on each."""
INSIDE = ("heads", "qk", "vo", "neurons", "scales")


def joined(*models: Params) -> Params:
    return {name: torch.cat([m[name] for m in models]) for name in models[0]}


def moved_inside(params: Params) -> Params:
    """Heads, their bases and neurons in another order and scale; the stream as it was."""
    element = symmetry.random(1, torch_generator(7, "planted inside"), INSIDE)
    return dict(symmetry.act_inside(element, fold(params)).params)


class Toys(ToyCohort):
    """Two models. seen: what `folded` gives in place of the parameters' own, if anything."""

    def __init__(self, name: str, sibling: Params, seen: Params | None = None) -> None:
        super().__init__("toy_a", (0, 1), joined(strong_params(), sibling), [f"planted {name}"])
        self._tokens = {split: x[:SEQUENCES] for split, x in self._tokens.items()}
        self.seen = seen

    def intervention_tokens(self, n: int) -> Tensor:
        return super().intervention_tokens(min(n, FEW))

    def folded(self, model: int) -> Folded:
        if model and self.seen is not None:
            return fold(self.seen)
        return super().folded(model)


class Bars:
    """What the fixtures of the four bars are for a trained cohort, at a fraction of the cost."""

    def __init__(self, cohort: Toys) -> None:
        self.cohort = self.toy_cohort = cohort

    @cached_property
    def alignment(self) -> Alignment:
        siblings, anchor = siblings_and_anchor(self.cohort)
        drawn = torch_generator(3, "starts")
        return alignments.align(siblings, anchor, drawn, starts=2, steps=20)

    @cached_property
    def self_alignment(self) -> float:
        anchor = siblings_and_anchor(self.cohort)[1]
        element = symmetry.random(1, torch_generator(8, "the anchor turned"))
        drawn = torch_generator(3, "starts")
        found = alignments.align(symmetry.act(element, anchor), anchor, drawn, starts=2, steps=20)
        return float(found.largest.max())

    @cached_property
    def joint(self) -> Joint:
        siblings, anchor = siblings_and_anchor(self.cohort)
        at = [self.cohort.activations("fit", site) for site in self.cohort.internal]
        return joints.align_jointly(
            siblings,
            anchor.select([0] * len(siblings)),
            self.alignment.element,
            activation_overlap(self.cohort.internal, at),
            [float(x[0].double().var(0, correction=0).mean()) for x in at],
            steps=20,
        )

    @cached_property
    def causal(self) -> Causal:
        return causals.measure_causal(self.cohort, self.alignment.element, sequences=12)

    @property
    def causal_of_pipeline(self) -> CausalOfPipeline:
        return CausalOfPipeline()

    @cached_property
    def gradients_at_clean_end(self) -> tuple[Attribution, ...]:
        return at_clean_end(self.cohort)


@dataclass(frozen=True)
class Divergences:
    """Planted divergences of two models: kl [heads], nats, of the anchor; the sibling's are twice
    that. decoy: Bar B of the anchor with its depth rows averaged. own: of the model from its own
    specification. rotated_ev, self_ev: of the two toy cohorts. pipeline: divergences on the
    pipeline's train lengths, in units of those on the text's."""

    kl: tuple[float, float, float]
    decoy: float = 0.1
    own: float = 0.0
    rotated_ev: tuple[float, float] = (0.98, 0.97)
    self_ev: tuple[float, float] = (0.99, 0.99)
    pipeline: float = 2.0

    @property
    def readings(self) -> dict[str, Behaviour]:
        by_head = torch.tensor(self.kl, dtype=torch.float64)[None, :, None]
        again = _behaviour(self.pipeline * torch.cat([by_head, 2 * by_head]))
        return {"2-62": self.behaviour, "2-48": again}

    @property
    def toy_scores(self) -> dict[str, tuple[PairSite, float]]:
        scales = zip(("toy_a", "toy_b"), self.rotated_ev, self.self_ev, strict=True)
        pairs = ("0-1", "0-2", "0-3")
        return {
            scale: (PairSite(np.array([[ev - 1e-3], [ev], [ev + 1e-3]]), pairs, ("a",)), own)
            for scale, ev, own in scales
        }

    @property
    def toy_cohort(self) -> Toys:
        return Toys("divergences", strong_params(5))

    @property
    def behaviour(self) -> Behaviour:
        by_head = torch.tensor(self.kl, dtype=torch.float64)[None, :, None]
        return _behaviour(torch.cat([by_head, 2 * by_head]))

    @property
    def decoys(self) -> Decoys:
        bars = torch.tensor([0.0, self.decoy, self.decoy], dtype=torch.float64)
        own = torch.tensor([self.own, 1.0], dtype=torch.float64)
        each = [_behaviour(x[:, None, None].expand(-1, len(task.HEADS), 1)) for x in (bars, own)]
        return Decoys(each[0], torch.ones(2), each[1])


def _behaviour(kl: Tensor) -> Behaviour:
    """kl: [models, heads, 1], the same on every distribution."""
    n = len(task.DISTRIBUTIONS)
    positions = torch.full((n,), 10)
    luck = torch.tensor([0.95, 1.0, 1.05], dtype=torch.float64)[:, None, None]
    by_head = luck * kl[None, :, :, 0]
    return Behaviour(kl.expand(-1, -1, n).clone(), positions, by_head.mean(2), by_head)


def toys(name: str) -> Bars | Divergences:
    """Evidence by the name of its world."""
    return DIVERGENCES[name] if name in DIVERGENCES else Bars(MAKERS[name]())


DIVERGENCES = {
    "divergences below the bar": Divergences((1e-5, 8e-5, 1e-5), own=1e-3),
    "divergences far above the bar": Divergences((0.5, 0.1, 0.5), decoy=0.4),
    "divergences below the bar on the pipeline's lengths alone": Divergences(
        (1e-4, 8e-4, 1e-4), pipeline=0.1
    ),
    "divergences near the bar": Divergences((3e-5, 2.3e-4, 3e-5), pipeline=1.1),
    "independent cohort is worse": Divergences((1e-5, 8e-5, 1e-5), rotated_ev=(0.98, 0.9)),
    "independent cohort is worse at home": Divergences(
        (1e-5, 8e-5, 1e-5), rotated_ev=(0.98, 0.9), self_ev=(0.99, 0.91)
    ),
}
MAKERS = {
    "toy, moved inside": lambda: Toys("moved inside", moved_inside(strong_params())),
    "toy, a stranger": lambda: Toys("stranger", strong_params(5)),
    "toy, a stranger seen through folded": lambda: Toys(
        "seen", strong_params(), seen=strong_params(5)
    ),
}
