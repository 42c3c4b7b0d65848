"""Causal language models on given sequences: their activations, a split at a time."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from polyrot.cohorts.cohort import CohortDefaults, Split
from polyrot.language.sites import blocks, capture, site_names, width_of
from polyrot.maps.checks import check_matrix
from polyrot.runtime.device import memory_for
from polyrot.store import fingerprint


class TextCohort(CohortDefaults):
    """The base of cohorts of language models: sites, tokens, and activations in chunks.

    models: the anchor first, all on one device. tokens: the sequences of each split, int64
    [sequences, position], without padding. keep: the dtype in which activations are kept.
    memory_remedy: what to do where they do not fit ("lower --tokens"). positions_at_once: that are
    run at once, in whole sequences.
    """

    positions_at_once = 4096
    skip: int = 0
    """The first positions of every sequence, which are left out: see `skipping`."""
    notes: tuple[str, ...] = ()
    """What is to be said of the sequences: special tokens in them and before them."""
    _whole = ""  # the fingerprint of the cohort that leaves none out

    def __init__(
        self,
        models: Sequence[nn.Module],
        tokens: Mapping[Split, Tensor],
        keep: torch.dtype,
        memory_remedy: str,
    ) -> None:
        self.models: tuple[nn.Module, ...] = tuple(models)
        self.device = next(models[0].parameters()).device
        self.width = width_of(models[0])
        self.sites = site_names(len(blocks(models[0])))
        self._keep, self._memory_remedy = keep, memory_remedy
        self._tokens = {split: ids.to(self.device) for split, ids in tokens.items()}
        self._activations: dict[Split, dict[str, Tensor]] = {}

    def tokens(self, split: Split) -> Tensor:
        """The split's sequences, int64 [sequences, position]. Raises KeyError: not given."""
        if split not in self._tokens:
            have = ", ".join(self._tokens)
            raise KeyError(f"no {split} split in the cohort of scale {self.scale}; have {have}")
        return self._tokens[split]

    def skipping(self, skip: int) -> Self:
        """The same models on the same sequences, the first `skip` positions of each left out of
        everything that is measured. The models read them still; of an intervention there is none
        at them. Activations are shared with this cohort.

        Raises ValueError where fewer than two positions of a sequence would be left.
        """
        shortest = min(ids.shape[1] for ids in self._tokens.values())
        if not 0 <= skip < shortest - 1:
            raise ValueError(
                f"{skip} positions to be left out of sequences of {shortest}: 0 to {shortest - 2} "
                "may be"
            )
        if skip == self.skip:
            return self
        made = copy.copy(self)
        made.skip = skip
        whole = self._whole or self.fingerprint
        made._whole = made.fingerprint = whole  # noqa: SLF001  # of its own class
        if skip:
            made.fingerprint = fingerprint("skipping", {"cohort": whole, "positions": skip})
        return made

    def activations(self, split: Split, site: str) -> Tensor:
        """[models, tokens, width], float32: every position of every sequence, in order, but for
        those skipped.

        Of the split that was asked for last, as more would not fit: one of scale neox takes a
        gigabyte, GPT-2 small's 30 GB at 400,000 tokens.
        Raises KeyError for an unknown site, BadActivations naming the model and site where a value
        is not finite, torch.OutOfMemoryError saying what to lower.
        """
        if site not in self.sites:
            raise KeyError(f"no such site: {site}; have {', '.join(self.sites)}")
        if split not in self._activations:
            tokens = self.tokens(split)
            self._activations.clear()
            what = (
                f"keeping the activations of {tokens.numel()} tokens at {len(self.sites)} sites of "
                f"{len(self.models)} models"
            )
            with memory_for(what, self.device, self._memory_remedy):
                self._activations[split] = self._run(tokens)
        found = self._activations[split][site]
        if self.skip:
            rows = found.unflatten(1, self._tokens[split].shape)
            found = rows[:, :, self.skip :].flatten(1, 2)
        return found.float()

    @torch.no_grad()
    def norms(self, split: Split, sequences: int) -> dict[str, Tensor]:
        """By site, [models, sequences, position]: the norms at every position of the first so many
        sequences of a split, also at those that are skipped."""
        few = self.tokens(split)[:sequences]
        each: dict[str, list[Tensor]] = {site: [] for site in self.sites}
        for m in range(len(self.models)):
            for site, x in capture(self._body(m), few, self.sites).items():
                each[site].append(x.float().norm(dim=-1))
        return {site: torch.stack(found) for site, found in each.items()}

    def sequences(self, split: Split) -> Tensor:
        """See `polyrot.cohorts.cohort.Cohort`."""
        n, length = self.tokens(split).shape
        return torch.arange(n, device=self.device).repeat_interleave(length - self.skip)

    def forget(self, split: Split) -> None:
        """Free the activations of a split; they are computed anew when asked for."""
        self._activations.pop(split, None)

    def _body(self, number: int) -> nn.Module:
        """What of a model is run for its activations: no logits are needed."""
        model = self.models[number]
        body: nn.Module = getattr(model, "base_model", model)
        return body

    def _called(self, number: int) -> str:
        """What a model is called where its activations are not finite."""
        return f"{self.scale} seed {self.seeds[number]}"

    @torch.no_grad()
    def _run(self, tokens: Tensor) -> dict[str, Tensor]:
        """Every site of every model, [models, tokens, width], in the dtype they are kept in."""
        shape = (len(self.models), tokens.numel(), self.width)
        out = {
            site: torch.empty(shape, dtype=self._keep, device=self.device) for site in self.sites
        }
        rounded = "" if self._keep == torch.float32 else f", kept as {self._keep}"
        rounded = rounded.replace("torch.", "")
        for m in range(len(self.models)):
            body, done = self._body(m), 0
            for part in tokens.split(max(1, self.positions_at_once // tokens.shape[1])):
                for site, x in capture(body, part, self.sites).items():
                    out[site][m, done : done + part.numel()] = x.flatten(0, 1)
                done += part.numel()
            for site in self.sites:
                check_matrix(out[site][m], f"{self._called(m)}, {site}{rounded}")
        return out
