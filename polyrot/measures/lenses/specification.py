"""The constructive specification: a folded model whose parts are annotated with roles.

Roles come from regression (which task feature a linear readout finds in a site or in a component's
write, on tokens it was not fitted on) and from ablation (which output head suffers when the
component writes its mean). (arXiv 2605.24577, Methods.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyrot.maps.explained_variance import explained_variance
from polyrot.toy import task
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.folding import Folded
from polyrot.toy.transformer import COMPONENTS, SITES

FEATURES = ("depth", "validity", "family", "token")
CHUNK = 256


@dataclass(frozen=True)
class Readouts:
    """How well linear readouts find the task's features, on held-out tokens.

    sites: [5, 4], by `SITES` and `FEATURES`; components: [10, 4], from each component's write.
    R^2 for depth, accuracy for the others (family: over brackets). chance: [4], what a constant
    guess scores.
    """

    sites: Tensor
    components: Tensor
    chance: Tensor

    def last(self) -> dict[str, float]:
        """By feature, at the last residual site."""
        return dict(zip(FEATURES, self.sites[-1].tolist(), strict=True))


def roles(readouts: Readouts, ablation: Tensor) -> tuple[str, ...]:
    """One line per component. ablation: [10, 3], loss rise by output head, nats.

    The regression names the feature whose readout from the write most exceeds a constant guess, as
    a share of what there was to gain; the ablation names the output head that loses most.
    """
    gained = (readouts.components - readouts.chance) / (1 - readouts.chance)
    lines = []
    for i in range(len(COMPONENTS)):
        worst, feature = int(ablation[i].argmax()), int(gained[i].argmax())
        total = float(ablation[i].sum())
        if total < 1e-3:
            lines.append(f"idle: ablation costs {total:.1e} nats")
            continue
        lines.append(
            f"writes {FEATURES[feature]} ({float(readouts.components[i, feature]):.3f}); "
            f"the {task.HEADS[worst]} head needs it ({float(ablation[i, worst]):.2f} nats)"
        )
    return tuple(lines)


@dataclass(frozen=True)
class LabelledActivations:
    """Activations of one folded model on one split, padding left out: name -> [tokens, d]; labels
    likewise."""

    x: dict[str, Tensor]
    token: Tensor
    depth: Tensor
    validity: Tensor


@torch.no_grad()
def capture(folded: Folded, tokens: Tensor, names: Sequence[str]) -> LabelledActivations:
    """Run one model and keep what is at `names`."""
    if len(folded) != 1:
        raise ValueError(f"one model at a time, not {len(folded)}: select one")
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for chunk in tokens.split(CHUNK):
        keep = chunk != task.PAD
        for name, x in folded.run(chunk, capture=names).captured.items():
            parts[name].append(x[0, keep])
    keep, labels = tokens != task.PAD, task.label(tokens)
    return LabelledActivations(
        {name: torch.cat(x) for name, x in parts.items()},
        tokens[keep],
        labels.depth[keep],
        labels.validity[keep],
    )


def measure_readouts(cohort: ToyCohort, model: int) -> Readouts:
    """Fit on the fit split, score on the score split, at every site and component of one model."""
    folded = cohort.folded(model)
    names = (*SITES, *COMPONENTS)
    fit = capture(folded, cohort.tokens("fit"), names)
    score = capture(folded, cohort.tokens("score"), names)
    table = torch.tensor([_readouts(fit, score, name) for name in names], dtype=torch.float64)
    # A constant guess: R^2 of 0, or the commonest class.
    chance = [0.0] + [
        float(classes[rows].bincount().max() / rows.sum())
        for classes, rows in (_classes(score, feature) for feature in FEATURES[1:])
    ]
    n = len(SITES)
    return Readouts(table[:n], table[n:], torch.tensor(chance, dtype=torch.float64))


def _classes(data: LabelledActivations, feature: str) -> tuple[Tensor, Tensor]:
    """Class of each token, and which tokens have one."""
    bracket = data.token >= task.OPENERS[0]
    if feature == "family":
        family = (data.token - task.OPENERS[0]).clamp(min=0) // 2
        return family, bracket
    everywhere = torch.ones_like(bracket)
    return (data.validity if feature == "validity" else data.token), everywhere


def _readouts(fit: LabelledActivations, score: LabelledActivations, name: str) -> list[float]:
    x, y = fit.x[name].double(), score.x[name].double()
    truth = score.depth.double()[:, None]
    out = [explained_variance(truth, _predict(x, fit.depth.double()[:, None], y))]
    for feature in FEATURES[1:]:
        (classes, rows), (wanted, kept) = _classes(fit, feature), _classes(score, feature)
        onehot = torch.nn.functional.one_hot(classes[rows]).double()
        guess = _predict(x[rows], onehot, y[kept]).argmax(1)
        out.append(float((guess == wanted[kept]).double().mean()))
    return out


def _predict(x: Tensor, target: Tensor, new: Tensor) -> Tensor:
    """Least squares with an intercept; a little ridge, since writes of heads have rank 16."""
    mean, aim = x.mean(0), target.mean(0)
    gram = (x - mean).T @ (x - mean)
    ridge = 1e-8 * gram.diagonal().mean().clamp(min=1e-30) * torch.eye(len(gram)).to(gram)
    w = torch.linalg.solve(gram + ridge, (x - mean).T @ (target - aim))
    return (new - mean) @ w + aim
