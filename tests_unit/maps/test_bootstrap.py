"""Explained variance of sequences drawn with replacement: exact sums, and intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from polyrot.maps.bootstrap import SequenceSums, sequence_weights
from polyrot.maps.checks import BadActivations
from polyrot.maps.explained_variance import EVSums
from polyrot.measured import PairSite
from polyrot.runtime.seeding import torch_generator

D, SEQUENCES, LENGTH = 4, 60, 10


def clustered(batch: int, sequences: int = SEQUENCES) -> tuple[Tensor, Tensor, Tensor]:
    """x, its reconstruction, and the sequence of each token: how large the error is, and where x
    lies, are a sequence's own."""
    g = torch_generator(batch, "clustered")
    sequence = torch.arange(sequences).repeat_interleave(LENGTH)
    place = torch.randn(sequences, D, generator=g)[sequence]
    x = place + 0.5 * torch.randn(len(sequence), D, generator=g) + 5
    size = torch.rand(sequences, 1, generator=g).square()[sequence]
    return x, x + size * torch.randn(x.shape, generator=g), sequence


def test_a_draw_scores_as_the_sequences_that_it_repeats() -> None:
    x, x_hat, sequence = clustered(0)
    shuffled = torch.randperm(len(x), generator=torch_generator(0, "order"))
    sums = SequenceSums.of(x[shuffled], x_hat[shuffled], sequence[shuffled])
    weights = sequence_weights(SEQUENCES, 6, torch_generator(0, "draws"))
    assert (weights.sum(1) == SEQUENCES).all()
    assert not torch.equal(weights[0], weights[1])
    weights = torch.cat([torch.ones(1, SEQUENCES, dtype=torch.float64), weights])
    for times, score, grand in zip(
        weights, sums.scores(weights), sums.grand_scores(weights), strict=True
    ):
        rows = torch.repeat_interleave(torch.arange(len(x)), times[sequence].long())
        wanted = EVSums.of(x[rows], x_hat[rows])
        assert float(score) == pytest.approx(wanted.score, abs=1e-12)
        assert float(grand) == pytest.approx(wanted.grand_score, abs=1e-12)


def test_disjoint_sequences_add_up() -> None:
    x, x_hat, sequence = clustered(1)
    first = sequence < SEQUENCES // 3
    sums = SequenceSums.of(x, x_hat, sequence)
    for part in (first, ~first):
        weights = torch.bincount(sequence[part], minlength=SEQUENCES).clamp_max(1).double()[None]
        wanted = EVSums.of(x[part], x_hat[part])
        assert float(sums.scores(weights)) == pytest.approx(wanted.score, abs=1e-12)
        assert float(sums.grand_scores(weights)) == pytest.approx(wanted.grand_score, abs=1e-12)


def covered(by_sequence: bool, batches: int = 150) -> float:
    """Share of batches whose interval holds the EV of (nearly) all sequences there are."""
    x, x_hat, _ = clustered(-1, sequences=20_000)
    truth = EVSums.of(x, x_hat).score
    hits = []
    for batch in range(batches):
        x, x_hat, sequence = clustered(batch)
        of = sequence if by_sequence else torch.arange(len(x))
        sums = SequenceSums.of(x, x_hat, of)
        weights = sequence_weights(len(sums.tokens), 200, torch_generator(batch, "draws"))
        value = np.array([[EVSums.of(x, x_hat).score]])
        draws = sums.scores(weights).numpy()[:, None, None]
        table = PairSite(value, ("0-1",), ("a",), unit="ev", resamples=draws)
        interval = table.each().interval(0)
        assert interval is not None
        assert interval.of == "sequences"
        hits.append(interval.low <= truth <= interval.high)
    return float(np.mean(hits))


def test_intervals_over_sequences_cover_and_those_over_tokens_do_not() -> None:
    assert 0.89 <= covered(by_sequence=True) <= 0.99
    assert covered(by_sequence=False) < 0.8


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="1 sequences in 5 draws"):
        sequence_weights(1, 5, torch_generator(0))
    x, x_hat, sequence = clustered(2)
    for of in (sequence[1:], sequence - 1):
        with pytest.raises(BadActivations, match="one sequence number, 0 or more, for each token"):
            SequenceSums.of(x, x_hat, of)
