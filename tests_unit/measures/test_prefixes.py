"""Which tokens of the score split were fitted on, word for word."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from polyrot.cohorts.cohort import CohortDefaults, NotOffered, Split
from polyrot.measures.prefixes import prefixes_seen, seen_share
from polyrot.runtime.seeding import torch_generator
from polyrot.toy import task
from polyrot.toy.cohort import split_tokens
from tests_unit.language.tiny_language import tiny, tiny_cohort


class Written(CohortDefaults):
    """What its sequences are is given; 0 is padding."""

    scale = "written"

    def __init__(self, skip: int = 0, **rows: Tensor) -> None:
        self.rows, self.skip = rows, skip

    def tokens(self, split: Split) -> Tensor:
        return self.rows[split]

    def sequences(self, split: Split) -> Tensor:
        return (self.rows[split][:, self.skip :] != task.PAD).nonzero()[:, 0]


SCORE = torch.tensor([[1, 2, 3, 4], [2, 2, 2, 2], [1, 5, 0, 0]])
FIT = torch.tensor([[1, 2, 9, 4], [7, 2, 2, 2], [1, 5, 0, 0], [1, 6, 6, 6]])


def test_the_share_is_of_tokens_with_their_whole_prefix() -> None:
    assert seen_share(Written(score=SCORE, fit=FIT)) == pytest.approx((2 + 0 + 2) / (4 + 4 + 2))


def test_first_positions_that_are_left_out_are_not_counted() -> None:
    assert seen_share(Written(1, score=SCORE, fit=FIT)) == pytest.approx((1 + 0 + 1) / (3 + 3 + 1))
    alike = torch.tensor([[1, 2, 3, 4, 5, 6], [1, 2, 3, 6, 6, 6]])
    other = torch.tensor([[1, 2, 3, 9, 9, 9]])
    assert seen_share(Written(score=alike, fit=other)) == 0.5
    assert seen_share(Written(3, score=alike, fit=other)) == 0
    assert seen_share(Written(3, score=alike, fit=alike)) == 1


def test_against_looking_each_prefix_up() -> None:
    g = torch_generator(0, "prefixes")
    score, fit = (torch.randint(3, (40, 6), generator=g) for _ in range(2))
    known = {tuple(row[:k]) for row in fit.tolist() for k in range(1, 7)}
    wanted = [[tuple(row[:k]) in known for k in range(1, 7)] for row in score.tolist()]
    assert prefixes_seen(score, fit).tolist() == wanted


def test_of_the_toys_a_fifth_was_seen_though_no_sequence_was() -> None:
    tokens = split_tokens()
    toy = Written(score=tokens["score"], fit=tokens["fit"])
    assert seen_share(toy) == pytest.approx(0.187, abs=0.001)


def test_of_a_language_model_and_where_there_are_no_tokens() -> None:
    cohort = tiny_cohort([tiny(0), tiny(1)])
    seen = prefixes_seen(cohort.tokens("score"), cohort.tokens("fit"))
    assert seen_share(cohort) == pytest.approx(float(seen.double().mean()))
    assert 0.3 < seen[:, 0].double().mean() < 1  # a vocabulary this small
    assert seen_share(cohort.skipping(6)) == float(seen[:, 6:].double().mean()) == 0

    class Bare(CohortDefaults):
        scale = "bare"

    with pytest.raises(NotOffered, match="bare has no tokens"):
        seen_share(Bare())

    class Unsaid(Written):
        def sequences(self, split: Split) -> Tensor:
            return torch.arange(10)

    with pytest.raises(NotOffered, match="does not say which sequence"):
        seen_share(Unsaid(score=SCORE, fit=FIT))
