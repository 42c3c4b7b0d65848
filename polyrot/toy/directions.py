"""The toy's contrasts: which positions a difference of means is taken over, and what it aims at.

A direction is the mean over strata of the difference between two populations' mean activations, so
that both sides are matched in whatever the strata hold fixed. The three of the paper (section 6,
protocol section 7) have a target; the further ones serve the claim that needs many directions.
Those as published are the same three on the populations of the paper's pipeline, which are matched
in nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from polyrot.cohorts.interventions import Target
from polyrot.toy import task
from polyrot.toy.run import cropped

STEERING_SITE = "resid_mid_1"
DEPTH = 4
MIN_ROWS = 8  # of each side, for a stratum to count


@dataclass(frozen=True)
class Features:
    """What is known of every position of a batch, each [batch, position]."""

    token: Tensor
    depth: Tensor
    invalid: Tensor
    kept: Tensor
    opener: Tensor
    closer: Tensor
    family: Tensor
    """Of the bracket here; -1 elsewhere."""
    top: Tensor
    """Family of the innermost unmatched opener while valid; -1 where there is none."""
    after_opener: Tensor
    position: Tensor

    @classmethod
    def of(cls, tokens: Tensor) -> Features:
        """Features of tokens int64 [batch, position]."""
        labels = task.label(tokens)
        bracket = tokens >= task.OPENERS[0]
        opener = bracket & (tokens % 2 == 1)
        family = torch.where(bracket, (tokens - task.OPENERS[0]) // 2, -1)
        invalid = labels.validity == 1
        previous = torch.zeros_like(opener)
        previous[:, 1:] = opener[:, :-1]
        position = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        return cls(
            tokens,
            labels.depth,
            invalid,
            tokens != task.PAD,
            opener,
            bracket & ~opener,
            family,
            _top(labels.depth, opener, family, invalid, position),
            previous,
            position,
        )


def _top(depth: Tensor, opener: Tensor, family: Tensor, invalid: Tensor, where: Tensor) -> Tensor:
    top = torch.full_like(depth, -1)
    for level in range(1, task.MAX_DEPTH + 1):
        # While valid, the innermost open bracket is the last opener that led to this depth.
        last = torch.where(opener & ~invalid & (depth == level), where, -1).cummax(1).values
        found = family.gather(1, last.clamp_min(0))
        top = torch.where((depth == level) & ~invalid & (last >= 0), found, top)
    return top


Mask = Callable[[Features], Tensor]


@dataclass(frozen=True)
class Contrast:
    """plus minus minus, by strata, times sign. Positions outside both populations are left out."""

    plus: Mask
    minus: Mask
    strata: Mask | None = None
    sign: float = 1.0

    def row_weights(self, features: Features) -> Tensor:
        """[kept positions]: the direction is their sum with the activations.

        Raises ValueError where no stratum holds enough of both populations.
        """
        kept = features.kept
        plus, minus = self.plus(features)[kept], self.minus(features)[kept]
        strata = (features.depth * 0 if self.strata is None else self.strata(features))[kept]
        out = torch.zeros(len(plus), dtype=torch.float64, device=kept.device)
        used = 0
        for stratum in strata[plus | minus].unique():
            a, b = plus & (strata == stratum), minus & (strata == stratum)
            if min(int(a.sum()), int(b.sum())) >= MIN_ROWS:
                out += a.double() / a.sum() - b.double() / b.sum()
                used += 1
        if not used:
            raise ValueError(
                f"no stratum holds {MIN_ROWS} positions of both populations: use more sequences"
            )
        return self.sign * out / used


def _valid(f: Features) -> Tensor:
    return f.kept & ~f.invalid


def _at_depth(depth: int) -> Mask:
    return lambda f: _valid(f) & (f.depth == depth)


def _invalid_at(depth: int, invalid: bool) -> Mask:
    return lambda f: f.kept & (f.depth == depth) & (f.invalid == invalid)


def _kind(f: Features) -> Tensor:
    return f.opener.long()


def _depth_step(depth: int) -> Contrast:
    """One deeper, valid, matched in opening or closing."""
    return Contrast(_at_depth(depth + 1), _at_depth(depth), _kind)


def _of_family(kind: str, family: int) -> Mask:
    return lambda f: _valid(f) & getattr(f, kind) & (f.family == family)


def _top_is(family: int) -> Mask:
    # After a closer the innermost open family says nothing about the token here.
    return lambda f: _valid(f) & f.closer & (f.top == family)


PAPER = {
    "sticky_invalid": Contrast(_invalid_at(DEPTH, True), _invalid_at(DEPTH, False), sign=-1.0),
    "depth": _depth_step(DEPTH),
    "closer": Contrast(
        lambda f: _valid(f) & f.closer, lambda f: _valid(f) & f.opener, lambda f: f.depth
    ),
}
"""The paper's three, with the sign in which each is added."""

PUBLISHED = {
    "sticky_invalid_as_published": PAPER["sticky_invalid"],
    "depth_as_published": Contrast(
        lambda f: f.kept & (f.depth == DEPTH + 1), lambda f: f.kept & (f.depth == DEPTH)
    ),
    "closer_as_published": Contrast(lambda f: f.kept & f.closer, lambda f: f.kept & f.opener),
}
"""The same by plain masks, valid and invalid positions alike, as in the paper's pipeline."""

_PAIRS = ((0, 1), (0, 2), (1, 2))
FURTHER = {
    **{f"depth_{d + 1}_{d}": _depth_step(d) for d in range(task.MAX_DEPTH) if d != DEPTH},
    **{
        f"sticky_at_{d}": Contrast(_invalid_at(d, True), _invalid_at(d, False), sign=-1.0)
        for d in range(4)
    },
    **{
        f"closer_{i}": Contrast(_of_family("closer", i), _of_family("opener", i), lambda f: f.depth)
        for i in range(3)
    },
    **{
        f"{kind}_{i}_{j}": Contrast(_of_family(kind, i), _of_family(kind, j), lambda f: f.depth)
        for kind in ("opener", "closer")
        for i, j in _PAIRS
    },
    **{f"top_{i}_{j}": Contrast(_top_is(i), _top_is(j), lambda f: f.depth) for i, j in _PAIRS},
    "after_opener": Contrast(
        lambda f: _valid(f) & (f.opener | f.closer) & f.after_opener,
        lambda f: _valid(f) & (f.opener | f.closer) & ~f.after_opener,
        lambda f: 2 * f.depth + f.opener.long(),
    ),
    "late": Contrast(
        lambda f: _valid(f) & (f.position >= 24),
        lambda f: _valid(f) & (f.position < 12) & (f.position > 0),
        lambda f: 2 * f.depth + f.opener.long(),
    ),
}
"""Further directions, from the read-out's own to those only the inside of the model knows."""


_THIRD = 1.0 / task.N_FAMILIES
_AIMS: dict[str, tuple[str, dict[int, float]]] = {
    "sticky_invalid": ("validity", {0: 1.0, 1: -1.0}),
    "depth": ("depth", {DEPTH + 1: 1.0, DEPTH: -1.0}),
    "closer": (
        "token",
        dict.fromkeys(task.OPENERS, -_THIRD) | {o + 1: _THIRD for o in task.OPENERS},
    ),
}
TARGETS: dict[str, tuple[str, dict[int, float], Mask]] = {
    "sticky_invalid": (*_AIMS["sticky_invalid"], lambda f: f.kept & f.invalid),
    "depth": (*_AIMS["depth"], _at_depth(DEPTH)),
    "closer": (*_AIMS["closer"], lambda f: _valid(f) & f.opener),
    "sticky_invalid_as_published": (*_AIMS["sticky_invalid"], _invalid_at(DEPTH, True)),
    "depth_as_published": (*_AIMS["depth"], lambda f: f.kept & (f.depth == DEPTH)),
    "closer_as_published": (*_AIMS["closer"], lambda f: f.kept & f.closer),
}
"""By contrast: output head, weights of its classes, and the positions."""


def target(name: str, tokens: Tensor) -> Target:
    """What the direction `name` aims at on tokens [batch, position], cropped as a run's.

    sticky_invalid: the logit of valid over invalid wherever the sequence is invalid. depth: 5 over
    4 where the depth is 4 and the sequence valid. closer: closing over opening tokens, mean over
    families, where a token opens and the sequence is valid. Those as published: the same logits
    where the pipeline counts accuracy: at invalid positions of depth 4; where the depth is 4; at
    closing tokens. Raises KeyError for other names.
    """
    tokens = cropped(tokens)
    features = Features.of(tokens)
    labels = task.label(tokens)
    if name not in TARGETS:
        raise KeyError(f"the contrast {name!r} has no target; those that do: {', '.join(TARGETS)}")
    head, weights, where = TARGETS[name]
    vector = torch.zeros(task.HEAD_CLASSES[head], device=tokens.device)
    for label, weight in weights.items():
        vector[label] = weight
    return Target(head, vector, where(features), labels.head(head))
