"""Bars C and Pr: predicted against measured effects of components, within and across seeds.

Effects are those of `polyrot.measures.component_effects`: mean ablation measures, integrated
gradients predict.
Across seeds the anchor's prediction is held against the *aligned* sibling's measurement: head i of
the sibling is the one that the alignment puts in the place of the anchor's head i.

As published, Bars C (single effects) and Pr are one and the same number. Here Pr across is also
taken in a sense of its own: the components that the anchor's prediction ranks highest are ablated
together, k = 1 to 10, and the running sum of predictions is held against what that does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor

from polyrot.maps.correlation import pearson_rows
from polyrot.measures import component_effects
from polyrot.runtime.progress import Progress, silent
from polyrot.toy import task, training
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.folding import Folded
from polyrot.toy.symmetry import Element
from polyrot.toy.transformer import COMPONENTS, MLP_NAMES, N_HEADS, N_LAYERS, Edit

SEQUENCES = 64
STEPS = component_effects.STEPS
CONVERGENCE = (8, 16, 32, 64)
CONVERGENCE_SEQUENCES = 32


@dataclass(frozen=True)
class Causal:
    """Effects of the 10 components of every model, nats, in the order of `COMPONENTS`.

    predicted, measured, incomplete: [models, 10]; integrated gradients, mean ablation, and the gap
    between the two. cumulative: [models, 10], the rise when the top k of the *anchor's* prediction
    are ablated together, a sibling's heads in the order of the alignment. own_cumulative: the same
    with each model's own prediction. convergence: [len(CONVERGENCE)], the anchor's largest relative
    gap by number of steps. components: int64 [models, 10], which of the model's components
    stands in the place of the anchor's.
    """

    predicted: Tensor
    measured: Tensor
    incomplete: Tensor
    cumulative: Tensor
    own_cumulative: Tensor
    convergence: Tensor
    components: Tensor

    def within(self) -> Tensor:
        """[models]: Pearson r of a model's prediction with its own measurement."""
        return correlation(self.predicted, self.measured)

    def across(self) -> Tensor:
        """[siblings]: r of the anchor's prediction with the aligned sibling's measurement."""
        aligned = self.measured.gather(1, self.components)[1:]
        return correlation(self.predicted[:1].expand_as(aligned), aligned)

    def measured_across(self) -> Tensor:
        """[siblings]: r of the anchor's measurement with the aligned sibling's."""
        aligned = self.measured.gather(1, self.components)[1:]
        return correlation(self.measured[:1].expand_as(aligned), aligned)

    def cumulative_across(self) -> Tensor:
        """[siblings]: r of the anchor's running sum of predictions with the sibling's joint
        ablations, k = 1 to 10."""
        expected = self.predicted[0].sort(descending=True).values.cumsum(0)
        return correlation(expected.expand_as(self.cumulative[1:]), self.cumulative[1:])

    def cumulative_within(self) -> Tensor:
        """[models]: the same within each model."""
        expected = self.predicted.sort(1, descending=True).values.cumsum(1)
        return correlation(expected, self.own_cumulative)

    def to_tensors(self) -> dict[str, Tensor]:
        """For the store."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Causal:
        """The inverse of `to_tensors`."""
        return cls(**{f.name: tensors[f.name] for f in fields(cls)})


def correlation(x: Tensor, y: Tensor) -> Tensor:
    """Pearson r of the rows of x with those of y, both [n, k]. Raises ValueError for a constant
    row: a correlation with nothing."""
    r = torch.from_numpy(pearson_rows(*(side.double().cpu().numpy() for side in (x, y))))
    if bool(r.isnan().any()):
        raise ValueError("all effects of one model are equal: there is nothing to correlate")
    return r


def aligned_components(heads: Tensor) -> Tensor:
    """int64 [pairs, 10] from an alignment's head permutations [pairs, layer, head]."""
    first = N_HEADS * torch.arange(N_LAYERS, device=heads.device)[:, None]
    mlps = torch.arange(len(COMPONENTS) - len(MLP_NAMES), len(COMPONENTS), device=heads.device)
    return torch.cat([(heads + first).flatten(1), mlps.expand(len(heads), -1)], 1)


def constant(value: Tensor, x: Tensor) -> Tensor:
    """An edit: one vector [d] in place of x [..., d], everywhere."""
    return value.to(x).expand_as(x)


@torch.no_grad()
def cumulative_ablation(folded: Folded, means: Tensor, order: Tensor, tokens: Tensor) -> Tensor:
    """[10], float64: rise of the loss when the first k components of `order` all write their mean.

    folded: one model. means: [10, 64]. order: int64 [10]. tokens: [batch, position].
    """
    keep, labels = tokens != task.PAD, task.label(tokens)
    targets = {h: labels.head(h)[None] for h in task.HEADS}

    def loss(components: Tensor) -> Tensor:
        edits: dict[str, Edit] = {}
        for c in components.tolist():
            edits[COMPONENTS[c]] = partial(constant, means[c])
        return training.losses(folded.run(tokens, edits=edits).logits, targets, keep[None])[0]

    clean = loss(order[:0])
    return torch.stack([loss(order[:k]) - clean for k in range(1, len(order) + 1)]).double()


def measure_causal(
    cohort: ToyCohort,
    element: Element,
    *,
    sequences: int = SEQUENCES,
    progress: Progress = silent,
) -> Causal:
    """All effects of a cohort; element: [siblings], the alignment with the anchor."""
    tokens = cohort.intervention_tokens(sequences)
    n = len(cohort.seeds)
    own = torch.arange(len(COMPONENTS), device=tokens.device)[None]
    components = torch.cat([own, aligned_components(element.heads.to(tokens.device))])
    found: list[component_effects.Attribution] = []
    together, own_together = [], []
    for model in range(n):
        found.append(component_effects.integrated_gradients(cohort, model, tokens, STEPS))
        folded, means = cohort.folded(model), cohort.mean_writes(model)
        mine = found[-1].effects.argsort(descending=True)
        anchors = components[model][found[0].effects.argsort(descending=True)]
        own_together.append(cumulative_ablation(folded, means, mine, tokens))
        together.append(
            own_together[-1]
            if torch.equal(mine, anchors)
            else cumulative_ablation(folded, means, anchors, tokens)
        )
        progress("bars C and Pr", model + 1, n)
    few = cohort.intervention_tokens(CONVERGENCE_SEQUENCES)
    curve = component_effects.step_convergence(cohort, 0, few, CONVERGENCE)
    return Causal(
        torch.stack([a.effects for a in found]).double().cpu(),
        torch.stack([a.measured for a in found]).double().cpu(),
        torch.stack([a.completeness_error for a in found]).double().cpu(),
        torch.stack(together).cpu(),
        torch.stack(own_together).cpu(),
        torch.tensor([curve[k] for k in CONVERGENCE], dtype=torch.float64),
        components.cpu(),
    )
