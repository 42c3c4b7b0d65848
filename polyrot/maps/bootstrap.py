"""Explained variance on sequences drawn with replacement: how much of a score is the batch's luck.

Tokens of one sequence hang together, so the sequence is what is drawn (a cluster bootstrap: Efron
and Tibshirani 1993, chapter 8). Sums are kept by sequence once; a draw is then a weighting of them,
and weights of 1 are the batch itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polyrot.maps.checks import BadActivations, check_pair


def sequence_weights(sequences: int, draws: int, generator: torch.Generator) -> Tensor:
    """How often each sequence is drawn: float64 [draws, sequences], each row sums to `sequences`.

    Raises ValueError for fewer than two sequences or draws.

    >>> sequence_weights(4, 3, torch.Generator().manual_seed(0)).sum(1)
    tensor([4., 4., 4.], dtype=torch.float64)
    """
    if sequences < 2 or draws < 2:
        raise ValueError(
            f"a bootstrap of {sequences} sequences in {draws} draws: two of each, or more"
        )
    device = generator.device
    drawn = torch.randint(sequences, (draws, sequences), generator=generator, device=device)
    weights = torch.zeros(draws, sequences, dtype=torch.float64, device=device)
    return weights.scatter_add_(1, drawn, torch.ones_like(weights))


@dataclass(frozen=True)
class SequenceSums:
    """What explained variance needs of each sequence of a batch, in float64.

    tokens: [sequences]. total: [sequences, d], sum of x - centre. square: [sequences], sum of
    ||x - centre||^2. error: [sequences], sum of ||x - x_hat||^2. centre: [d], the mean of x, about
    which sums lose no digits.

    >>> x = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    >>> sums = SequenceSums.of(x, x + 1, torch.tensor([0, 0, 1]))
    >>> sums.scores(torch.tensor([[1.0, 1.0], [0.0, 2.0]]).double())
    tensor([0.6250,   -inf], dtype=torch.float64)
    """

    tokens: Tensor
    total: Tensor
    square: Tensor
    error: Tensor
    centre: Tensor

    @classmethod
    def of(cls, x: Tensor, x_hat: Tensor, sequence: Tensor) -> SequenceSums:
        """x, x_hat: [tokens, d]; sequence: int64 [tokens], which sequence each token is of, 0 on.

        Raises BadActivations: shapes, tokens of no sequence.
        """
        where = "explained variance by sequence, of x (first) by x_hat (second)"
        check_pair(x, x_hat, where)
        if sequence.shape != x.shape[:1] or int(sequence.min()) < 0:
            raise BadActivations(f"{where}: one sequence number, 0 or more, for each token")
        n, wide = int(sequence.max()) + 1, x.double()
        centre = wide.mean(0)
        about = wide - centre

        def by_sequence(values: Tensor) -> Tensor:
            out = torch.zeros(n, *values.shape[1:], dtype=torch.float64, device=x.device)
            return out.index_add_(0, sequence, values)

        return cls(
            by_sequence(torch.ones(len(x), dtype=torch.float64, device=x.device)),
            by_sequence(about),
            by_sequence(about.square().sum(1)),
            by_sequence((wide - x_hat).square_().sum(1)),
            centre,
        )

    def scores(self, weights: Tensor) -> Tensor:
        """Explained variance of each draw, float64 [draws]; weights: see `sequence_weights`."""
        return 1 - weights @ self.error / self._spread(weights)

    def grand_scores(self, weights: Tensor) -> Tensor:
        """The pipeline's score of each draw, around one scalar mean of all entries."""
        tokens = weights @ self.tokens
        mean = weights @ self.total / tokens[:, None] + self.centre
        around = (mean - mean.mean(1, keepdim=True)).square().sum(1) * tokens
        return 1 - weights @ self.error / (self._spread(weights) + around)

    def _spread(self, weights: Tensor) -> Tensor:
        tokens = weights @ self.tokens
        return weights @ self.square - (weights @ self.total).square().sum(1) / tokens
