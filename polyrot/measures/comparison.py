"""Two activation matrices compared: the paper's triplet, and what must stand beside it.

`compare` is the suite in one call, for anyone's activations. The maps are fitted on some rows and
scored on others; see `polyrot.measures.transfer` for the same figures of a whole cohort.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from functools import reduce
from operator import add
from typing import Any, Generic

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from polyrot.dictionaries.sae import Dictionary
from polyrot.maps.arrays import Array, read
from polyrot.maps.checks import BadActivations, check_enough_tokens, check_pair
from polyrot.maps.cka import linear_cka
from polyrot.maps.explained_variance import EVSums
from polyrot.maps.matching import max_cosine
from polyrot.maps.moments import check_fit
from polyrot.maps.procrustes import (
    A,
    ActivationMap,
    Rotation,
    Shift,
    affine_from_moments,
    as_given,
    fit_from_moments,
    pair_moments,
    principal_axes_from_moments,
    scaled_from_moments,
    split_half_share,
)
from polyrot.runtime.seeding import numpy_generator, torch_generator

#: Rows at a time: as many as a dictionary reads at once.
CHUNK = 2048
#: A quarter of the rows for each half of the fit, half of them to score.
PARTS = 4

#: A dictionary: polyrot's own, or anything that reconstructs activations [tokens, d].
Reconstructs = Dictionary | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class MapScores:
    """Explained variances on the score rows, one for each way of carrying a to b.

    naive: a as it is. shifted: with b's mean in place of its own. rotated: centred, rotated, with
    b's mean. scaled: rotated, with the one scale that fits best. covariance_only: principal axes
    onto principal axes by rank, which knows means and covariances and no pairing of tokens.
    shuffled: rotated by a fit to shuffled tokens, the null of `rotated`. affine: the unconstrained
    least-squares map, the most that any of these can reach.
    """

    naive: float
    shifted: float
    rotated: float
    scaled: float
    covariance_only: float
    shuffled: float
    affine: float


@dataclass(frozen=True)
class Comparison(Generic[A]):
    """What `compare` found. Explained variances and CKA have no unit; 1 is perfect.

    pointwise: how well the mapped a predicts b. through_sae: how well the anchor's dictionary
    reconstructs the mapped a, where one was given; self_ev: the same of b itself, the ceiling.
    decoder_cosine: mean over the sibling's features of the best cosine with any of the anchor's,
    where both dictionaries were given. split_half_share: tr(r_1^T r_2) / d of rotations fitted on
    two halves of the fit rows, 1 where r is determined and 0 where it is noise. rotation: a @ r ~
    b, fitted on the fit rows; its `rank` is that of the cross-covariance. linear_cka: debiased, on
    the score rows.
    """

    d: int
    tokens: int
    fit_tokens: int
    score_tokens: int
    groups: int | None
    """How many groups kept their rows together; None where rows were drawn one by one."""
    seed: int
    pointwise: MapScores
    through_sae: MapScores | None
    self_ev: float | None
    decoder_cosine: float | None
    split_half_share: float
    linear_cka: float
    rotation: Rotation[A]

    @property
    def rank(self) -> int:
        """Rank of the cross-covariance; below it r is determined by nothing."""
        return self.rotation.rank

    @property
    def naive_ev(self) -> float:
        """Of the triplet: through the dictionary where one was given, else pointwise."""
        return (self.through_sae or self.pointwise).naive

    @property
    def rotated_ev(self) -> float:
        """Of the triplet: through the dictionary where one was given, else pointwise."""
        return (self.through_sae or self.pointwise).rotated

    def to_dict(self) -> dict[str, Any]:
        """All figures by name, ready for JSON; the rotation by its rank and determinant."""
        plain = {
            field.name: asdict(value) if isinstance(value, MapScores) else value
            for field in fields(self)
            if not isinstance(value := getattr(self, field.name), Rotation)
        }
        triplet = {"naive_ev": self.naive_ev, "rotated_ev": self.rotated_ev}
        return {**plain, **triplet, "rank": self.rank, "det": self.rotation.det}

    def __str__(self) -> str:
        """A table for a terminal."""
        drawn = "rows" if self.groups is None else f"whole groups, {self.groups} in all,"
        lines = [
            f"a (sibling) carried to b (anchor): d = {self.d}, {self.fit_tokens} tokens to fit, "
            f"{self.score_tokens} to score ({drawn} drawn, seed {self.seed})",
            "",
        ]
        columns = {"predicts b": self.pointwise}
        if self.through_sae is not None:
            columns["through the SAE"] = self.through_sae
        lines.append(_row("explained variance", columns))
        for name, text in _ROWS.items():
            lines.append(_row(text, (_figure(getattr(s, name)) for s in columns.values())))
        if self.self_ev is not None:
            lines.append(_row("b itself (ceiling)", ("", _figure(self.self_ev))))
        lines += [
            "  1 is perfect, 0 is no better than predicting the mean",
            "",
            _row("linear CKA, debiased", (_figure(self.linear_cka),)),
            _row("rank of the cross-covariance", (f"{self.rank} of {self.d}",)),
            _row("split-half share of R", (_figure(self.split_half_share),)),
            _row("determinant of R", (f"{self.rotation.det:+.0f}",)),
        ]
        if self.decoder_cosine is not None:
            lines.append(_row("decoder cosine, mean of best", (_figure(self.decoder_cosine),)))
        return "\n".join(lines)


_ROWS = {
    "naive": "naive (a as it is)",
    "shifted": "mean shifted",
    "rotated": "rotated",
    "scaled": "rotated and scaled",
    "affine": "affine (least squares)",
    "covariance_only": "covariances alone (no pairing)",
    "shuffled": "rotated, shuffled tokens (null)",
}


def _row(text: str, cells: Iterable[str]) -> str:
    return f"  {text:<32}" + "".join(f"{cell:>17}" for cell in cells).rstrip()


def _figure(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.3g}"


class _Naive:
    """The map that changes nothing."""

    def apply(self, x: Tensor, /) -> Tensor:
        return x


@torch.no_grad()
def compare(
    a: Array,
    b: Array,
    sae: Reconstructs | None = None,
    *,
    sae_of_a: Dictionary | None = None,
    groups: ArrayLike | Tensor | None = None,
    seed: int = 0,
    allow_reflection: bool = True,
) -> Comparison[Any]:
    """Compare two models' activations on the same tokens: `a`, the sibling, is carried to `b`.

    a, b: [tokens, d], row i of both the same token; NumPy, torch or lists, of a floating dtype.
    The `rotation` in the result is NumPy or torch accordingly, on b's device, with a @ r ~ b.
    sae: the anchor's dictionary, a `Dictionary` (as `polyrot.dictionaries.loading.load_sae` reads
        one) or any function that reconstructs torch activations [tokens, d]. Without it, only the
        EVs of predicting b from the mapped a are given.
    sae_of_a: the sibling's dictionary, for the decoder cosine with `sae`.
    groups: [tokens], which sequence each row belongs to. Half of the rows are drawn to fit and the
        rest to score; rows of a group stay together. Without groups rows are drawn one by one, and
        neighbours of one sequence on both sides make held-out scores look better than they are.
    seed: of the draws, the shuffled tokens, and the signs of the principal axes.
    allow_reflection: whether r may have determinant -1.
    Maps are fitted on the fit rows in float64 and scored on the score rows; see `MapScores` and
    `Comparison` for what is reported. Source: arXiv 2605.24577.
    Raises BadActivations (shapes, dtypes, token counts, values that are not finite, a constant
    dimension, fewer than 4 d tokens or 4 groups) and ValueError (dictionaries of another width).

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> b = rng.standard_normal((4000, 8)) * np.arange(1, 9)
    >>> turn = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    >>> found = compare(b @ turn.T + 3, b)
    >>> round(found.rotated_ev, 6), round(found.split_half_share, 6), found.rank
    (1.0, 1.0, 8)
    >>> np.allclose(found.rotation.r, turn), found.naive_ev < 0, found.pointwise.shuffled < 0.1
    (True, True, True)
    """
    given = read(a, b, where=("compare, a", "compare, b"))
    siblings, anchor = given.tensors
    check_pair(siblings, anchor, "compare, a (first) and b (second)")
    first, second, score = _split(len(anchor), groups, seed, anchor.shape[1], anchor.device)
    siblings = siblings.to(anchor.device)
    fit = torch.cat([first, second])
    x, y = siblings[fit], anchor[fit]
    held_x, held_y = siblings[score], anchor[score]

    def fitted(p: Tensor, q: Tensor, where: str) -> Rotation:
        moments = pair_moments([p], q, where=f"compare, {where}")[0]
        check_fit(moments, f"compare, {where}", ("a", "b"))
        return fit_from_moments([moments], allow_reflection)[0]

    moments = pair_moments([x], y, auto=True, where="compare, fit rows")[0]
    check_fit(moments, "compare, fit rows", ("a", "b"))
    rotation = fit_from_moments([moments], allow_reflection)[0]
    halves = [
        fitted(siblings[rows], anchor[rows], f"{which} half of the fit rows")
        for which, rows in (("first", first), ("second", second))
    ]
    order = torch.randperm(len(x), generator=torch_generator(seed, "shuffled tokens"))
    maps: dict[str, ActivationMap] = {
        "naive": _Naive(),
        "shifted": Shift(moments.mean_a, moments.mean_b),
        "rotated": rotation,
        "scaled": scaled_from_moments(rotation, moments),
        "covariance_only": principal_axes_from_moments(
            moments, torch_generator(seed, "signs of axes")
        ),
        "shuffled": fitted(x[order.to(x.device)], y, "shuffled fit rows"),
        "affine": affine_from_moments(moments),
    }
    pointwise = {name: _ev(held_y, held_x, each) for name, each in maps.items()}
    through = None
    if sae is not None:
        through = {name: _ev(None, held_x, each, sae) for name, each in maps.items()}
    return Comparison(
        d=anchor.shape[1],
        tokens=len(anchor),
        fit_tokens=len(fit),
        score_tokens=len(score),
        groups=None if groups is None else len(np.unique(_labels(groups))),
        seed=seed,
        pointwise=MapScores(**pointwise),
        through_sae=None if through is None else MapScores(**through),
        self_ev=None if sae is None else _ev(None, held_y, _Naive(), sae),
        decoder_cosine=_decoder_cosine(sae_of_a, sae),
        split_half_share=split_half_share(halves[0].r, halves[1].r),
        linear_cka=linear_cka(held_x, held_y),
        rotation=as_given(rotation, given),
    )


def _labels(groups: ArrayLike | Tensor) -> np.ndarray:
    return np.asarray(groups.detach().cpu() if isinstance(groups, Tensor) else groups)


def _split(
    tokens: int, groups: ArrayLike | Tensor | None, seed: int, d: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the two halves of the fit, and those to score: disjoint, no group in two of them.

    Raises BadActivations: groups of another length, fewer than four, too few rows for d dimensions.
    """
    labels = np.arange(tokens) if groups is None else _labels(groups)
    if labels.shape != (tokens,):
        raise BadActivations(
            f"compare: groups of shape {list(labels.shape)} where [{tokens}] is expected, one "
            "label for each token"
        )
    group = np.unique(labels, return_inverse=True)[1]
    sizes = np.bincount(group)
    if groups is not None and len(sizes) < PARTS:
        raise BadActivations(
            f"compare: {len(sizes)} groups; at least {PARTS} are needed, two to fit on halves of "
            "and two to score"
        )
    drawn = numpy_generator(seed, "rows to fit and to score").permutation(len(sizes))
    # Groups in the order drawn fill the two halves of the fit, then what is scored, by their size.
    middle = sizes[drawn].cumsum() - sizes[drawn] / 2
    part = np.empty(len(sizes), dtype=np.int64)
    part[drawn] = np.minimum(PARTS * middle / tokens, PARTS - 1).astype(np.int64)
    first, second, *held = (np.flatnonzero(part[group] == i) for i in range(PARTS))
    score = np.sort(np.concatenate(held))
    whole = "" if groups is None else f" (whole groups, the largest of {sizes.max()} tokens)"
    for rows, where in (
        (first, "first half of the fit rows"),
        (second, "second half of the fit rows"),
        (score, "score rows"),
    ):
        check_enough_tokens(len(rows), d, f"compare, {where}{whole}", PARTS)
    parts = [torch.from_numpy(rows).to(device) for rows in (first, second, score)]
    return parts[0], parts[1], parts[2]


def _ev(
    target: Tensor | None, x: Tensor, mapping: ActivationMap, sae: Reconstructs | None = None
) -> float:
    """EV of `target` by the mapped x; where there is a dictionary, of the mapped x by it."""

    def part(i: int) -> EVSums:
        mapped = mapping.apply(x[i : i + CHUNK])
        if sae is not None:
            return EVSums.of(mapped, _reconstructed(sae, mapped))
        assert target is not None
        return EVSums.of(target[i : i + CHUNK], mapped)

    return reduce(add, map(part, range(0, len(x), CHUNK))).score


def _reconstructed(sae: Reconstructs, x: Tensor) -> Tensor:
    if isinstance(sae, Dictionary):
        return sae(x.to(sae.w_enc)).to(x.device)
    found = sae(x)
    if not isinstance(found, Tensor):
        raise ValueError(
            f"compare: sae gave a {type(found).__name__}, not torch activations [tokens, d]"
        )
    return found.to(x.device)


def _decoder_cosine(sae_of_a: Dictionary | None, sae: Reconstructs | None) -> float | None:
    """Mean best cosine of the sibling's features with the anchor's; None without the sibling's.

    Features of norm zero, which someone else's dictionary may have, are left out.
    Raises ValueError where one of them has no decoder.
    """
    if sae_of_a is None:
        return None
    for each, name in ((sae_of_a, "sae_of_a"), (sae, "sae")):
        if not isinstance(each, Dictionary):
            raise ValueError(
                f"compare: the decoder cosine needs two dictionaries, and {name} is "
                f"{'not given' if each is None else f'a {type(each).__name__}'}; "
                "make a polyrot.dictionaries.sae.Dictionary of it, or leave sae_of_a out"
            )
    assert isinstance(sae, Dictionary)
    mine, theirs = sae_of_a.decoder, sae.decoder.to(sae_of_a.decoder)
    live = [decoder.norm(dim=0) > 0 for decoder in (mine, theirs)]
    return float(max_cosine(mine, theirs, *live, features="columns").double().mean())


__all__ = ["Comparison", "MapScores", "Reconstructs", "compare"]
