"""Quantity by quantity: what the paper's pipeline makes of our toys, and what this suite does.

Where the paper's text and its pipeline differ, ours is here the suite's function of the pipeline's
reading: explained variance around one scalar mean, R fitted and scored on one batch, integrated
gradients at k/32. Each side takes its own activations of the same tokens; R, the reference phases
and the components' means are one for both, so that steps of a statistic are not taken for a
difference. Effects of components are computed in float64, where a converged model's are above
rounding; all else is in float32, as published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from polyrot.dictionaries.sae import Dictionary
from polyrot.haar.permutations import nearest_signed_permutation
from polyrot.haar.published import ks_of_phases, reference_phases
from polyrot.haar.spectrum import eigenphases
from polyrot.maps.explained_variance import explained_variance_grand
from polyrot.maps.matching import matched_fraction, max_cosine
from polyrot.maps.procrustes import fit_rotation
from polyrot.measures.bars.alignment import tensor_mse
from polyrot.measures.component_effects import (
    STEPS,
    attribution_patching,
    integrated_gradients,
)
from polyrot.measures.differential.pipeline import (
    HEADS,
    Missing,
    Pipeline,
    component,
    sae_state,
    tensors,
)
from polyrot.measures.fits import NULL_DRAWS_SEED
from polyrot.runtime.seeding import numpy_generator, torch_generator
from polyrot.toy import evaluation, task, transformer
from polyrot.toy.cohort import ToyCohort

SEQUENCES = 1024
"""Of the score split, and of each distribution that accuracies are taken on: the paper's batch."""
ATTRIBUTED = 16
"""Of them, at most, for effects of components, which cost hundreds of runs a model."""
AT_ONCE = 128
"""Sequences that the pipeline's model runs at once."""
TOLERANCE = 1e-4
PURPOSE = "differential test"
"""Of the held-out sequences that accuracies are taken on."""


@dataclass(frozen=True)
class Row:
    """One quantity: its entries as the pipeline and as this suite compute them.

    theirs, ours: float64 of one shape; None where there is nothing to compare, and `reason` says
    why. failed: the pipeline's function was there, and raised.
    """

    name: str
    theirs: np.ndarray | None = None
    ours: np.ndarray | None = None
    reason: str = ""
    failed: bool = False

    @property
    def compared(self) -> bool:
        """Whether both sides gave figures."""
        return self.theirs is not None and self.ours is not None

    @property
    def difference(self) -> float:
        """The largest |pipeline's - ours| over entries; infinite where shapes differ, NaN where an
        entry is."""
        if self.theirs is None or self.ours is None or self.theirs.shape != self.ours.shape:
            return float("inf")
        return float(np.abs(self.theirs - self.ours).max())

    def agrees(self, tolerance: float) -> bool:
        """Whether the difference is at most `tolerance` times the largest |entry| of ours."""
        if self.ours is None or not self.compared:
            return False
        return self.difference <= tolerance * float(np.abs(self.ours).max())

    def status(self, tolerance: float) -> str:
        """One of: agrees, differs, not offered, failed."""
        if self.compared:
            return "agrees" if self.agrees(tolerance) else "differs"
        return "failed" if self.failed else "not offered"


@dataclass(frozen=True)
class Sides:
    """What both sides are asked about.

    models: numbers of the cohort's models, the anchor (0) first. anchors: its dictionaries by
    site. others: the siblings' by model and site, for the decoder match, or none. sequences: of the
    score split.
    """

    cohort: ToyCohort
    models: tuple[int, ...]
    anchors: Mapping[str, Dictionary]
    others: Mapping[tuple[int, str], Dictionary]
    pipeline: Pipeline
    sequences: int = SEQUENCES
    _activations: dict[int, dict[str, Tensor]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.models[:1] != (0,) or len(self.models) < 2:
            raise ValueError(f"the anchor (0) and a sibling at least, not models {self.models}")

    @property
    def siblings(self) -> tuple[int, ...]:
        """Their numbers."""
        return self.models[1:]

    @cached_property
    def tokens(self) -> Tensor:
        """[sequences, 64]"""
        return self.cohort.tokens("score")[: self.sequences].cpu()

    @cached_property
    def attributed(self) -> Tensor:
        """The sequences that effects of components are taken on."""
        return self.cohort.intervention_tokens(min(self.sequences, ATTRIBUTED)).cpu()

    def model(self, model: int) -> torch.nn.Module:
        """The pipeline's, with the weights of this model; a fresh one."""
        return self.pipeline.model(self.cohort.params, model)

    def batch(self, tokens: Tensor) -> dict[str, Tensor]:
        """A batch as the pipeline's functions take it, labelled by the pipeline."""
        return dict(self.pipeline["labels"](tokens))

    def activations(self, model: int) -> dict[str, Tensor]:
        """The pipeline's, site -> [tokens, d], padding left out."""
        if model not in self._activations:
            collect, network = self.pipeline["activations"], self.model(model)
            parts = [
                collect(network, list(transformer.SITES), self.batch(part), device="cpu")
                for part in self.tokens.split(AT_ONCE)
            ]
            self._activations[model] = {
                site: torch.cat([part[site] for part in parts]) for site in transformer.SITES
            }
        return self._activations[model]

    def own_activations(self, model: int, site: str) -> Tensor:
        """This suite's, of the same tokens."""
        rows = self.cohort.sequences("score") < self.sequences
        return self.cohort.activations("score", site)[model][rows].cpu()

    @cached_property
    def rotations(self) -> list[Tensor]:
        """The pipeline's R of every sibling and site, in float64: given to both sides."""
        fit = self.pipeline["rotation"]
        return [
            fit(self.activations(m)[site].double(), self.activations(0)[site].double())
            for m in self.siblings
            for site in transformer.SITES
        ]


Entries = Iterator[tuple[str, object, object]]
"""Name of a row, the pipeline's entries, ours."""


def _logits(sides: Sides) -> Entries:
    keep = sides.tokens != task.PAD
    ours: dict[str, list[Tensor]] = {head: [] for head in HEADS}
    theirs: dict[str, list[Tensor]] = {head: [] for head in HEADS}
    networks = [sides.model(m) for m in sides.models]
    params = transformer.select(sides.cohort.params, sides.models)
    for part, kept in zip(sides.tokens.split(AT_ONCE), keep.split(AT_ONCE), strict=True):
        logits = transformer.forward(params, part.to(params["embed"].device)).logits
        found = [network(part) for network in networks]
        for head, name in HEADS.items():
            ours[head].append(logits[head][:, kept].cpu())
            theirs[head].append(torch.stack([x[name][kept] for x in found]))
    for head in HEADS:
        yield f"logits, {head}", torch.cat(theirs[head], 1), torch.cat(ours[head], 1)


def _held_out(sides: Sides, name: task.Distribution) -> Tensor:
    """The very sequences that `polyrot.toy.evaluation.evaluate` draws."""
    return task.sequences(sides.sequences, torch_generator(0, PURPOSE, name), name)


def _labels(sides: Sides) -> Entries:
    every = [sides.tokens, *(_held_out(sides, name) for name in task.DISTRIBUTIONS)]
    tokens = torch.cat(every)
    theirs, ours = sides.batch(tokens), task.label(tokens)
    keep = tokens != task.PAD
    yield "labels, kept positions", theirs["mask"], keep
    for head, name in HEADS.items():
        yield f"labels, {head}", theirs[name][keep], ours.head(head)[keep]


def _accuracies(sides: Sides) -> Entries:
    evaluate = sides.pipeline["accuracy"]
    networks = [sides.model(m) for m in sides.models]
    params = transformer.select(sides.cohort.params, sides.models)
    cpu = {name: p.cpu() for name, p in params.items()}
    ours, _ = evaluation.evaluate(cpu, sides.sequences, purpose=PURPOSE)
    for distribution in task.DISTRIBUTIONS:
        batch = sides.batch(_held_out(sides, distribution))
        found = [evaluate(network, batch, device="cpu") for network in networks]
        for head, name in HEADS.items():
            theirs = [each[f"acc_{name}"] for each in found]
            yield f"accuracy, {distribution}, {head}", theirs, ours[distribution][head]


def _naive(sides: Sides) -> Entries:
    score = sides.pipeline["ev"]
    for site, dictionary in sides.anchors.items():
        sae = sides.pipeline.sae(dictionary)
        theirs = [score(sae, sides.activations(m)[site])["explained_var"] for m in sides.siblings]
        inputs = [sides.own_activations(m, site) for m in sides.siblings]
        yield (
            f"EV naive, {site}",
            theirs,
            [explained_variance_grand(x, dictionary(x)) for x in inputs],
        )


def _rotated(sides: Sides) -> Entries:
    score, fit = sides.pipeline["ev"], sides.pipeline["rotation"]
    for site, dictionary in sides.anchors.items():
        sae, theirs, ours = sides.pipeline.sae(dictionary), [], []
        anchor, own_anchor = sides.activations(0)[site], sides.own_activations(0, site)
        for m in sides.siblings:
            x = sides.activations(m)[site]
            r = fit(x, anchor)
            theirs.append(score(sae, (x - x.mean(0)) @ r + anchor.mean(0))["explained_var"])
            own = sides.own_activations(m, site)
            turned = fit_rotation(own, own_anchor).apply(own)
            ours.append(explained_variance_grand(turned, dictionary(turned)))
        yield f"EV rotated, {site}", theirs, ours


def _match(sides: Sides) -> Entries:
    compare = sides.pipeline["match"]
    for site in dict.fromkeys(site for _, site in sides.others):
        a = sides.anchors[site]
        others = [sides.others[m, site] for m in sides.siblings]
        theirs = [compare(sae_state(a), sae_state(b)) for b in others]
        ours = [max_cosine(a.decoder, b.decoder, features="columns") for b in others]
        yield (
            f"decoder match, {site}, fraction",
            [each["fraction_stable"] for each in theirs],
            [matched_fraction(each) for each in ours],
        )
        yield (
            f"decoder match, {site}, mean cosine",
            [each["mean_max_cos"] for each in theirs],
            [float(each.mean()) for each in ours],
        )


def _spectrum(sides: Sides) -> Entries:
    theirs = [sides.pipeline["phases"](r) for r in sides.rotations]
    ours = eigenphases(torch.stack(sides.rotations))
    yield "eigenphases", [np.sort(each) for each in theirs], ours


def _ks(sides: Sides) -> Entries:
    test, phases = sides.pipeline["ks"], sides.pipeline["phases"]
    rng = numpy_generator(NULL_DRAWS_SEED, PURPOSE)
    reference = reference_phases(sides.cohort.width, rng)
    own = [phases(r) for r in sides.rotations]
    theirs = [test(each, reference) for each in [*own, np.concatenate(own)]]
    ours = ks_of_phases(eigenphases(torch.stack(sides.rotations)), reference)
    for name, key, each, pooled in (
        ("KS statistic", "ks_stat", ours.statistics, ours.pooled_statistic),
        ("KS p-value", "ks_pvalue", ours.p_values, ours.pooled_p_value),
    ):
        yield name, [found[key] for found in theirs], [*each, pooled]


def _permutation(sides: Sides) -> Entries:
    distance = sides.pipeline["permutation"]
    yield (
        "nearest permutation",
        [distance(r) for r in sides.rotations],
        [nearest_signed_permutation(r).distance for r in sides.rotations],
    )


def _effects(sides: Sides, key: str, name: str) -> Entries:
    predict, theirs, ours = sides.pipeline[key], [], []
    components = sides.cohort.components
    for m in sides.models:
        means = sides.cohort.mean_writes(m).double()
        given = {component(c): mean.cpu() for c, mean in zip(components, means, strict=True)}
        network, batch = sides.model(m).double(), sides.batch(sides.attributed)
        own = sides.attributed.to(means.device)
        if key == "patching":
            found = predict(network, batch, given)["predicted_effects"]
            mine = attribution_patching(sides.cohort, m, own, means=means, dtype=torch.float64)
        else:
            found = predict(network, batch, given, n_steps=STEPS, per_component=True)
            mine = integrated_gradients(
                sides.cohort, m, own, STEPS, points="clean end", means=means, dtype=torch.float64
            ).effects
        theirs.append([found[component(c)] for c in components])
        ours.append(mine.cpu().numpy())
    yield name, theirs, ours


def _patching(sides: Sides) -> Entries:
    yield from _effects(sides, "patching", "attribution patching")


def _gradients(sides: Sides) -> Entries:
    yield from _effects(sides, "gradients", "integrated gradients")


def _bar_p(sides: Sides) -> Entries:
    fold, mse = sides.pipeline["fold"], sides.pipeline["mse"]
    anchor, *siblings = [tensors(fold(sides.model(m))) for m in sides.models]
    own_anchor, *own = [sides.cohort.folded(m) for m in sides.models]
    yield (
        "Bar P before alignment",
        [max(each["mse"] for each in mse(sibling, anchor).values()) for sibling in siblings],
        [float(tensor_mse(sibling, own_anchor).amax()) for sibling in own],
    )


QUANTITIES: Mapping[str, Callable[[Sides], Entries]] = {
    "logits": _logits,
    "labels": _labels,
    "accuracies": _accuracies,
    "EV naive": _naive,
    "EV rotated": _rotated,
    "decoder match": _match,
    "eigenphases": _spectrum,
    "KS of eigenphases": _ks,
    "nearest permutation": _permutation,
    "attribution patching": _patching,
    "integrated gradients": _gradients,
    "Bar P before alignment": _bar_p,
}
"""What is compared, in the order of the table."""


WITH_GRADIENTS = ("attribution patching", "integrated gradients")


def compare(sides: Sides, quantities: Sequence[str] = tuple(QUANTITIES)) -> Iterator[Row]:
    """The rows of each quantity, as they are worked out. What the pipeline does not offer, or
    where its function raises, is one row that says so."""
    for name in quantities:
        try:
            # Where no gradient is asked for, a graph of every run would be kept for nothing.
            with torch.set_grad_enabled(name in WITH_GRADIENTS):
                found = [
                    Row(row, _entries(theirs), _entries(ours))
                    for row, theirs, ours in QUANTITIES[name](sides)
                ]
        except Missing as missing:
            found = [Row(name, reason=str(missing))]
        except Exception as error:  # the pipeline's code may raise anything
            found = [Row(name, reason=f"{type(error).__name__}: {error}", failed=True)]
        yield from found


def _entries(values: object) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
    return np.asarray(values, dtype=np.float64)
