"""One training run of a language model seen as a cohort: its checkpoints, earliest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from polyrot.cohorts.cohort import NoCheckpoints, ScaleFacts, Split
from polyrot.language.cohort import LanguageCohort

if TYPE_CHECKING:
    from transformers import GPTNeoXForCausalLM


def checkpoints(
    scale: str,
    steps: Sequence[int],
    models: Sequence[GPTNeoXForCausalLM],
    tokens: Mapping[Split, Tensor],
    made_by: list[str],
    *,
    keep: torch.dtype = torch.float32,
    lower: str = "the number of tokens",
    facts: ScaleFacts | None = None,
) -> LanguageCohort:
    """A cohort whose seeds are the steps of one run, whatever the order in which they are given.

    steps: the step of each of `models`. The rest as `LanguageCohort`, without contrasts.
    Raises NoCheckpoints for fewer than two, ValueError for one step twice or unequal numbers of
    both.
    """
    if len(steps) != len(models):
        raise ValueError(f"{scale}: {len(models)} checkpoints for {len(steps)} steps: one for each")
    if len(steps) < 2:
        raise NoCheckpoints(f"{scale}: a run is two or more checkpoints, not {list(steps)}")
    if len(set(steps)) < len(steps):
        raise ValueError(f"{scale}: a run is different checkpoints, not {list(steps)}")
    order = sorted(range(len(steps)), key=lambda i: steps[i])
    return LanguageCohort(
        scale,
        tuple(steps[i] for i in order),
        [models[i] for i in order],
        tokens,
        made_by,
        None,
        keep=keep,
        lower=lower,
        facts=facts,
    )
