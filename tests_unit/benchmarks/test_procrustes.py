"""What the fits of section 5 cost: several pairs at several sites, spectra and permutations.

The design asks for 8 x 7 fits at d = 512 and 65,536 tokens, in a fifth of the plain path's time
(copies in double precision, SVD, general eigensolver). By default one site and 8,192 tokens are
taken, so that the benchmark ends soon; the environment variable POLYROT_BENCHMARK_FULL=1 takes all.
Beside both stands what nothing in single precision can do without: the bare products and the SVDs.
The ratio goes to `extra_info` of the benchmark's JSON; nothing is asserted of time.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from polyrot.maps.procrustes import fit_from_moments, pair_moments

PAIRS = 8


@dataclass(frozen=True)
class Result:
    """What section 5 wants of one rotation."""

    r: Tensor
    cosines: np.ndarray
    permutation: np.ndarray


def plain(siblings: list[Tensor], anchor: Tensor) -> list[Result]:
    """As one would write it: copies in double, centred, SVD, general eigensolver, per pair."""
    results = []
    for sibling in siblings:
        a, b = sibling.double(), anchor.double()
        a, b = a - a.mean(0), b - b.mean(0)
        u, _, vh = torch.linalg.svd(a.T @ b)
        r = u @ vh
        cosines = np.sort(np.cos(np.angle(np.linalg.eigvals(r.numpy()))))
        results.append(Result(r, cosines, linear_sum_assignment(-np.abs(r.numpy()))[1]))
    return results


def fast(siblings: list[Tensor], anchor: Tensor) -> list[Result]:
    """The library's: moments in one pass, batched SVD, eigenvalues of the symmetric part."""
    moments = pair_moments(siblings, anchor, precision=torch.float32)
    results = []
    for fit in fit_from_moments(moments):
        r = fit.r
        cosines = np.linalg.eigvalsh((r + r.T).numpy() / 2).clip(-1, 1)
        results.append(Result(r, cosines, linear_sum_assignment(-np.abs(r.numpy()))[1]))
    return results


def bare(siblings: list[Tensor], anchor: Tensor) -> list[Tensor]:
    """Products in float32 and decompositions in float64 alone, of rows as they are."""
    crosses = torch.stack([sibling.T @ anchor for sibling in siblings]).double()
    torch.linalg.svd(crosses)
    return list(crosses)


def make(tokens: int, d: int, seed: int) -> tuple[list[Tensor], Tensor]:
    """An anchor and siblings that are rotations of it through noise, float32 [tokens, d]."""
    generator = torch.Generator().manual_seed(seed)
    anchor = torch.randn(tokens, d, generator=generator) + 0.5
    siblings = []
    for _ in range(PAIRS):
        q = torch.linalg.qr(torch.randn(d, d, generator=generator))[0]
        siblings.append(anchor @ q + 0.3 * torch.randn(tokens, d, generator=generator))
    return siblings, anchor


def test_fits_spectra_and_permutations(benchmark: Any) -> None:
    full = bool(os.environ.get("POLYROT_BENCHMARK_FULL"))
    sites, tokens, d = (7, 65_536, 512) if full else (1, 8_192, 512)
    if benchmark.disabled:
        tokens, d = 1024, 64
    fast(*make(1024, d, seed=99))  # first calls set the libraries up
    seconds = {"plain": 0.0, "fast": 0.0, "bare": 0.0}

    def side_by_side() -> None:
        # Site by site, so that both paths meet the same load, and one site's data is held at once.
        for site in range(sites):
            siblings, anchor = make(tokens, d, seed=site)
            found = {}
            start = time.perf_counter()
            bare(siblings, anchor)
            seconds["bare"] += time.perf_counter() - start
            for path in (fast, plain):
                start = time.perf_counter()
                found[path.__name__] = path(siblings, anchor)
                seconds[path.__name__] += time.perf_counter() - start
            for one, other in zip(found["fast"], found["plain"], strict=True):
                assert float((one.r - other.r).abs().max()) < 1e-5
                np.testing.assert_allclose(one.cosines, other.cosines, atol=1e-5)
                np.testing.assert_array_equal(one.permutation, other.permutation)

    benchmark.pedantic(side_by_side, rounds=1, iterations=1)
    benchmark.extra_info.update(
        pairs=PAIRS,
        sites=sites,
        tokens=tokens,
        d=d,
        threads=torch.get_num_threads(),
        seconds_fast=seconds["fast"],
        seconds_plain=seconds["plain"],
        seconds_bare=seconds["bare"],
        fast_over_plain=seconds["fast"] / seconds["plain"],
        bare_over_plain=seconds["bare"] / seconds["plain"],
    )
