"""How much of what is scored was seen in fitting, word for word.

A causal model's activation at a token is decided by the tokens up to it. Where these are the
beginning of a sequence of the fit split too, the token was fitted on, whatever its sequence's name.
"""

from __future__ import annotations

import torch
from torch import Tensor

from polyrot.cohorts.cohort import Cohort, NotOffered


def prefixes_seen(tokens: Tensor, among: Tensor) -> Tensor:
    """Whether all of a sequence up to and with each position is how a sequence of `among` begins.

    tokens, among: [sequences, position] of one length. Result: bool, the shape of `tokens`.

    >>> prefixes_seen(torch.tensor([[1, 2, 3], [2, 2, 3]]), torch.tensor([[1, 2, 4], [1, 3, 3]]))
    tensor([[ True,  True, False],
            [False, False, False]])
    """
    both = torch.cat([tokens, among])
    beginning = torch.zeros(len(both), dtype=torch.int64, device=both.device)
    seen = []
    for column in both.T:
        further = beginning * (int(column.max()) + 1) + column
        beginning = torch.unique(further, return_inverse=True)[1]
        seen.append(torch.isin(beginning[: len(tokens)], beginning[len(tokens) :]))
    return torch.stack(seen, 1)


def seen_share(cohort: Cohort) -> float:
    """Share of the score split's tokens whose whole prefix begins a sequence of the fit split.

    Neither padding, which comes after a sequence's tokens, nor the first positions that the cohort
    leaves out are counted; of a prefix they are a part. Raises NotOffered where the cohort has
    activations alone.
    """
    if not hasattr(cohort, "tokens"):
        raise NotOffered(f"the cohort of scale {cohort.scale} has no tokens to compare")
    score, fit = cohort.tokens("score"), cohort.tokens("fit")
    length = torch.bincount(cohort.sequences("score"), minlength=len(score))
    if len(length) > len(score):
        raise NotOffered(
            f"the cohort of scale {cohort.scale} does not say which sequence a token is of"
        )
    position = torch.arange(score.shape[1], device=score.device) - cohort.skip
    given = (position >= 0) & (position < length[:, None])
    return float(prefixes_seen(score, fit)[given].double().mean())
