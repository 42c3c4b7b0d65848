"""Whether a causal language model can be measured on given sequences, before long work begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polyrot.cohorts.cohort import Split
from polyrot.language.loading import BadCheckpoint, Unusable, vocabulary_of
from polyrot.language.sites import blocks, capture, site_names, width_of
from polyrot.maps.checks import check_matrix, check_not_constant

AT_ONCE = 2048
"""Positions run at once: as a rule no more are needed to see that every dimension varies."""


@torch.no_grad()
def check_runs(name: str, model: nn.Module, tokens: Mapping[Split, Tensor], skip: int = 0) -> None:
    """The model must take sequences int64 [sequences, position], enough of them for its width, look
    at no later token, and at its every site be finite and vary in every dimension.

    skip: the first positions of every sequence, which are left out of what is measured.
    Raises Unusable for sequences too long or too few, tokens it does not know, a model that is not
    causal (BadCheckpoint); BadActivations naming site and dimension.
    """
    check_sequences(name, model, tokens, skip)
    fit = tokens["fit"]
    check_causal(name, model, fit[:1])
    _check_varied(name, model, fit, skip)


def check_sequences(
    name: str, model: nn.Module, tokens: Mapping[Split, Tensor], skip: int = 0
) -> None:
    """What can be said without running the model. Raises Unusable."""
    config: Any = model.config
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    known, width = vocabulary_of(model), width_of(model)
    for split, ids in tokens.items():
        n, length = ids.shape
        if longest is not None and length > longest:
            raise Unusable(
                f"{name} knows {longest} positions, the sequences have {length}: lower --context"
            )
        if int(ids.max()) >= known:
            raise Unusable(
                f"{name} knows {known} tokens, the {split} split holds number {int(ids.max())}: "
                "its tokenizer is another model's"
            )
        if skip >= length - 1:
            raise Unusable(
                f"--skip-positions {skip} leaves no two positions of sequences of {length}: lower "
                "it, or raise --context"
            )
        if split == "fit" and (have := n * (length - skip)) < 2 * width:
            left = f", the first {skip} positions of each sequence left out" if skip else ""
            wanted = -(-2 * width // (length - skip)) * length
            raise Unusable(
                f"{name} is {width} wide, so that {2 * width} tokens are the least that rotations "
                f"can be fitted on (on each half of them {width}), and there are {have}{left}: "
                f"give --tokens {wanted} or more, better ten times as many"
            )


@torch.no_grad()
def check_causal(name: str, model: nn.Module, tokens: Tensor) -> None:
    """No site may change at a position when later tokens, of int64 [1, position], are others.

    Raises BadCheckpoint for an encoder, which `transformers` may load as a causal model all the
    same.
    """
    device = next(model.parameters()).device
    one = tokens.to("cpu" if device.type == "meta" else device)  # as accelerate keeps them
    other, half = one.clone(), one.shape[1] // 2
    other[:, half:] = (other[:, half:] + 1) % vocabulary_of(model)
    sites = site_names(len(blocks(model)))
    runs = [capture(model, ids, sites) for ids in (one, other)]
    for site in sites:
        x, y = (run[site][0, :half].double() for run in runs)
        # Of a causal model both are the same to rounding, which is that of the whole stream.
        rounding = 8 * torch.finfo(runs[0][site].dtype).eps * float(x.abs().max())
        if float((x - y).abs().max()) > rounding:
            raise BadCheckpoint(
                f"{name} is no causal language model: its {site} changes at a position when later "
                "tokens do, as an encoder's (BERT) does; give decoder-only models (GPT, Llama)"
            )


def _check_varied(name: str, model: nn.Module, fit: Tensor, skip: int) -> None:
    """Finite on the first sequences, and each dimension must vary on some."""
    sites, device = site_names(len(blocks(model))), next(model.parameters()).device
    first: dict[str, Tensor] = {}
    sums: dict[str, Tensor] = {}
    done = 0
    left = set(sites)
    for part in fit.split(max(1, AT_ONCE // fit.shape[1])):
        found = capture(model, part.to(device), sites)
        done += part.shape[0] * (part.shape[1] - skip)
        for site in sorted(left):
            x = found[site][:, skip:].flatten(0, 1)
            check_matrix(x, f"{name}, {site}")
            wide = x.double()
            origin = first.setdefault(site, wide[0])
            moved = wide - origin
            new = torch.stack([moved.sum(0), moved.square().sum(0)])
            sums[site] = sums[site] + new if site in sums else new
            mean, square = sums[site] / done
            if bool((square - mean.square() > _bound(origin + mean, x.dtype)).all()):
                left.discard(site)
        if not left:
            return
    for site in sites:
        if site in left:
            mean, square = sums[site] / done
            eps = torch.finfo(next(model.parameters()).dtype).eps
            check_not_constant(square - mean.square(), first[site] + mean, eps, f"{name}, {site}")


def _bound(mean: Tensor, dtype: torch.dtype) -> Tensor:
    """The variance that a dimension must exceed: see `check_not_constant`."""
    return (4 * torch.finfo(dtype).eps * mean.abs()) ** 2


__all__ = ["check_causal", "check_runs", "check_sequences"]
