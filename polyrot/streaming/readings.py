"""What is read off the models at each site: all positions of a sequence, or all but the first.

A reading has the name of its site, where it is of the positions that were asked for; of sites whose
first position is large there is a second one beside it, called SITE[1:] without that position or,
where some are skipped anyway, SITE[0:] with all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from polyrot.language.first_position import SEQUENCES, FirstPosition, ratio
from polyrot.language.sites import capture
from polyrot.streaming.passes import Activations
from polyrot.streaming.sequences import StreamedText


@dataclass(frozen=True)
class Reading:
    """A site, and the position from which on it is read."""

    site: str
    begin: int


def readings(sites: Sequence[str], first: FirstPosition) -> dict[str, Reading]:
    """By name, in the order of `sites`."""
    found = {}
    for site in sites:
        found[site] = Reading(site, first.skip)
        if site in first.large:
            found[site + first.other] = Reading(site, 0 if first.skip else 1)
    return found


def run(
    models: Sequence[nn.Module], tokens: Tensor, sites: Sequence[str]
) -> list[dict[str, Tensor]]:
    """By model and site, [sequences, position, width] of tokens int64 [sequences, position]."""
    found = []
    for model in models:
        body: Any = model.base_model  # without the head: nobody asks for its logits
        device = next(body.parameters()).device
        where = torch.device("cpu") if device.type == "meta" else device
        found.append(capture(body, tokens.to(where), sites))
    return found


def first_position(
    models: Sequence[nn.Module],
    text: StreamedText,
    numbers: Sequence[int],
    sites: Sequence[str],
    skip: int,
) -> FirstPosition:
    """How large the first position is, over the first of these sequences."""
    each = run(models, text.sequences(numbers[:SEQUENCES]), sites)
    found = {site: [ratio(of[site].float().norm(dim=-1)) for of in each] for site in sites}
    return FirstPosition(found, skip)


def reader(
    models: Sequence[nn.Module], text: StreamedText, wanted: Mapping[str, Reading]
) -> Callable[[Sequence[int]], Activations]:
    """From sequences' numbers to the activations of all models on their tokens, by reading."""
    sites = list(dict.fromkeys(reading.site for reading in wanted.values()))

    def read(numbers: Sequence[int]) -> Activations:
        return [
            {name: of[r.site][:, r.begin :].flatten(0, 1) for name, r in wanted.items()}
            for of in run(models, text.sequences(numbers), sites)
        ]

    return read


__all__ = ["Reading", "first_position", "reader", "readings", "run"]
