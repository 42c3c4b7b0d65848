"""Cohorts of activations with a planted truth: what relates the siblings to the anchor is known.

At every site the anchor's tokens are sparse codes, of graded size, on orthonormal features: codes
s_k z_k with z_k >= 0 exponential in a quarter of the tokens, else 0, and s_k large on the first
half of the features (the major ones), tiny on the rest. A world says what a sibling makes of the
same tokens.

The planted dictionary knows the major features and reconstructs the anchor almost exactly. Off
them, where it never saw anything, it answers with whatever it was born with, as trained ones do:
that is why it fails on a turned sibling. `two_sided` dictionaries read every axis in both
directions and see second moments alone; `one_sided` ones read features, whose sign matters;
`random` ones know nothing of the anchor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from polyrot.cohorts.cohort import CohortDefaults, Split
from polyrot.dictionaries.sae import Dictionary
from polyrot.runtime.seeding import torch_generator

D = 64  # bars of the toy's ||R - I||_F are in units of this width
SITES = ("resid_pre_0", "resid_mid_0", "resid_post_0")
TOKENS: dict[str, int] = {"dictionary": 1024, "fit": 6000, "score": 2000}
SEQUENCE = 20  # tokens
OVERSHOOT = 0.5
ACTIVE = 0.25
"""Share of the tokens on which a feature is active."""

Kind = Literal["one_sided", "two_sided", "random"]


@dataclass(frozen=True)
class Law:
    """The anchor's tokens at one site: codes on orthonormal `features` [d, d] (columns), of size
    `scales` [d], around `origin` [d]; the first `major` features hold nearly all variance."""

    features: Tensor
    scales: Tensor
    origin: Tensor
    major: int

    def draw(self, n: int, *purpose: str) -> Tensor:
        """`n` tokens [n, d]."""
        generator = torch_generator(0, "planted tokens", *purpose)
        shape = (n, len(self.scales))
        codes = -torch.rand(shape, generator=generator).clamp_min(1e-6).log()
        codes *= torch.rand(shape, generator=generator) < ACTIVE
        return (codes * self.scales) @ self.features.T + self.origin


def law(site: str, d: int = D, rank: int | None = None, minor: float = 0.01) -> Law:
    """A law of its own at each site. `rank`: features beyond it do not occur at all."""
    major = d // 2
    scales = torch.cat([torch.linspace(1.0, 0.5, major), torch.full((d - major,), minor)])
    if rank is not None:
        scales[rank:] = 0.0
    origin = torch.randn(d, generator=torch_generator(0, "origin", site)) / d**0.5
    return Law(haar(d, "features", site), scales, origin, major)


def haar(d: int, *purpose: str | int, special: bool = False) -> Tensor:
    """A Haar orthogonal matrix [d, d], float32; `special`: of determinant +1."""
    drawn = torch.randn(d, d, generator=torch_generator(0, "planted Haar", *purpose)).double()
    q, r = torch.linalg.qr(drawn)
    q = q * r.diagonal().sign()
    if special and torch.linalg.det(q) < 0:
        q[:, 0] *= -1
    return q.float()


def dictionary(at: Law, kind: Kind = "one_sided", overshoot: float = OVERSHOOT) -> Dictionary:
    """Knows the major features of a law; see the head of this file."""
    if kind == "random":
        drawn = torch.randn(2, *at.features.shape, generator=torch_generator(0, "random weights"))
        return Dictionary(drawn[0], torch.zeros(len(at.scales)), drawn[1], at.origin, at.origin)
    known, rest = at.features[:, : at.major], at.features[:, at.major :]
    if kind == "two_sided":
        known = torch.cat([known, -known], 1)
        start = at.draw(20_000, "centre").mean(0)
    else:
        start = at.origin
    born = torch.randn(
        rest.shape[1], known.shape[1], generator=torch_generator(0, "born with", kind)
    )
    w_enc = known + overshoot * rest @ born
    return Dictionary(w_enc, torch.zeros(known.shape[1]), known.T, start, start)


Sibling = Callable[["World", int, str, Split, Tensor], Tensor]
"""Activations of sibling i (1, 2, ..) at a site of a split, given the anchor's there."""


@dataclass(frozen=True)
class World(CohortDefaults):
    """A cohort (see `polyrot.cohorts.cohort.Cohort`) in which what siblings are is known.

    weak: the site at which the dictionary overshoots `poor` times as far.
    rank: of the activations, where not full; at the site `low` alone where that is given.
    """

    name: str
    sibling: Sibling
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    kind: Kind = "one_sided"
    width: int = D
    weak: str = SITES[0]
    poor: float = 4.0
    rank: int | None = None
    low: str = ""
    scale: str = "toy_b"
    trained: bool = True

    sites = SITES
    named_sites = SITES[-1:]
    from_second_block = SITES[-1:]

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        return f"planted {self.name}"

    @cached_property
    def _laws(self) -> dict[str, Law]:
        full = [site for site in self.sites if self.low and site != self.low]
        return {
            site: law(site, self.width, None if site in full else self.rank) for site in self.sites
        }

    def law(self, site: str) -> Law:
        return self._laws[site]

    def activations(self, split: Split, site: str) -> Tensor:
        x = self.anchor(split, site)
        others = [self.sibling(self, i, site, split, x) for i in range(1, len(self.seeds))]
        return torch.stack([x, *others])

    def sequences(self, split: Split) -> Tensor:
        return torch.arange(TOKENS[split]) // SEQUENCE

    def anchor(self, split: Split, site: str) -> Tensor:
        return self.law(site).draw(TOKENS[split], split, site)

    def saes(self, overshoot: float = OVERSHOOT) -> dict[str, Dictionary]:
        """The anchor's, by site."""
        return {
            site: dictionary(
                self.law(site), self.kind, overshoot * (self.poor if site == self.weak else 1)
            )
            for site in self.sites
        }


# --------------------------------------------------------------------------- what siblings are


def mapped(matrix: Callable[[World, int, str], Tensor]) -> Sibling:
    """The anchor's tokens times a matrix of the sibling's and the site's own."""
    return lambda world, i, site, split, x: x @ matrix(world, i, site)


def rotated(world: World, i: int, site: str) -> Tensor:
    return haar(world.width, "sibling", i, site, special=True)


def reflected(world: World, i: int, site: str) -> Tensor:
    r = rotated(world, i, site).clone()
    r[:, 0] *= -1
    return r


def permuted(world: World, i: int, site: str) -> Tensor:
    order = torch.randperm(world.width, generator=torch_generator(0, "order", i, site))
    return torch.eye(world.width)[order]


def turned_subspace(world: World, i: int, site: str) -> Tensor:
    """Haar on a quarter of the directions, the identity on the rest."""
    d = world.width
    axes, k = haar(d, "subspace", i, site), d // 4
    inner = torch.eye(d)
    inner[:k, :k] = haar(k, "inside", i, site, special=True)
    return axes @ inner @ axes.T


def half_turn(world: World, i: int, site: str) -> Tensor:
    """Half of the directions reversed: eigenvalues -1 and 1, determinant +1, trace 0, so that
    ||R - I||_F is sqrt(2 d), to the digit that of Haar."""
    d = world.width
    axes = haar(d, "axes of a half turn", i, site)
    signs = torch.ones(d)
    signs[: d // 2] = -1
    return (axes * signs) @ axes.T


def same(world: World, i: int, site: str) -> Tensor:
    return torch.eye(world.width)


def louder(world: World, i: int, site: str) -> Tensor:
    """A rotation, and everything three times as large: no rotation is enough."""
    return 3 * rotated(world, i, site)


def twice(world: World, i: int, site: str) -> Tensor:
    """Siblings 2 and 3 are one model under two names."""
    return rotated(world, min(i, 2), site)


def shared_input(world: World, i: int, site: str) -> Tensor:
    """As the toy with a shared embedding: turned inside, the same at the first site."""
    return same(world, i, site) if site == world.sites[0] else rotated(world, i, site)


def noisy_inside(world: World, i: int, site: str, split: Split, x: Tensor) -> Tensor:
    """A rotation, and at one internal site noise of a third of the activations' size."""
    turned = x @ rotated(world, i, site)
    if site != SITES[1]:
        return turned
    g = torch_generator(0, "noise inside", split, i)
    return turned + 0.3 * x.std() * torch.randn(x.shape, generator=g)


def mean_shift(world: World, i: int, site: str, split: Split, x: Tensor) -> Tensor:
    step = torch.randn(world.width, generator=torch_generator(0, "shift", i, site))
    return x + 3 * step


def strangers(world: World, i: int, site: str, split: Split, x: Tensor) -> Tensor:
    """Other features, other codes: nothing is shared but the law's form."""
    own = law(f"{site} of stranger {i}", world.width)
    return own.draw(len(x), split, site, f"stranger {i}")


def far_strangers(world: World, i: int, site: str, split: Split, x: Tensor) -> Tensor:
    """The same around a mean far off, as an untrained model may have it: any map that replaces the
    mean beats none, and no pairing of tokens is needed."""
    return mean_shift(world, i, site, split, strangers(world, i, site, split, x))


def turned_features(world: World, i: int, site: str, split: Split, x: Tensor) -> Tensor:
    """A rotation, computed from the codes: the rounding of the anchor's tokens is not turned along,
    which would tell of R where the activations do not vary at all."""
    at, r = world.law(site), rotated(world, i, site)
    turned = replace(at, features=r.T @ at.features, origin=at.origin @ r)
    return turned.draw(len(x), split, site)


def second_moments(world: World, i: int, site: str, split: Split, x: Tensor) -> Tensor:
    """The anchor's very law on unrelated tokens: mean and covariance agree, no token does."""
    return world.law(site).draw(len(x), split, site, f"unrelated {i}")


def turned_moments(world: World, i: int, site: str, split: Split, x: Tensor) -> Tensor:
    """The same, turned: what matching principal axes could find."""
    return second_moments(world, i, site, split, x) @ rotated(world, i, site)


WORLDS = {
    world.name: world
    for world in (
        World("rotated", mapped(rotated)),
        World("rotated, two-sided dictionary", mapped(rotated), kind="two_sided"),
        World("rotated, weak inside", mapped(rotated), weak=SITES[1]),
        World("rotated, noisy inside", noisy_inside),
        World("very weak inside", mapped(rotated), weak=SITES[1], poor=10.0),
        World("reflected", mapped(reflected)),
        World("shared input", mapped(shared_input), scale="toy_a"),
        World("permuted", mapped(permuted)),
        World("rotated, random dictionary", mapped(rotated), kind="random"),
        World("unrelated", strangers),
        World("unrelated, mean far off", far_strangers),
        World("second moments", second_moments),
        World("second moments, turned", turned_moments),
        World("turned subspace", mapped(turned_subspace)),
        World("half a turn", mapped(half_turn)),
        World("seed twice", mapped(twice)),
        World("the anchor itself", mapped(same)),
        World("louder", mapped(louder)),
        World("mean shift", mean_shift),
        World("rank deficient", turned_features, rank=D * 3 // 4),
        World("rank deficient at one site", turned_features, rank=D // 5, low=SITES[0]),
        World("rotated, eight siblings", mapped(rotated), seeds=tuple(range(9))),
        World("rotated, twice as wide", mapped(rotated), width=2 * D),
        World("half a turn, twice as wide", mapped(half_turn), width=2 * D),
        World("permuted, twice as wide", mapped(permuted), width=2 * D),
    )
}
