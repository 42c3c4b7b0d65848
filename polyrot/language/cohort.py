"""A cohort of GPT-NeoX language models as the claims see them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from polyrot.cohorts.cohort import (
    Cohort,
    ScaleFacts,
    Split,
    agreement_by_pair,
    check_seeds,
    error_over_sequences,
    pair_labels,
    share_of_distinct,
)
from polyrot.cohorts.interventions import Target
from polyrot.language.activations import TextCohort
from polyrot.language.directions import Tokenised, difference_of_means, known
from polyrot.language.run import HEAD, LOGITS, LanguageRun
from polyrot.language.sites import blocks, capture, width_of
from polyrot.maps.checks import check_matrix
from polyrot.measured import Measured
from polyrot.store import digest, fingerprint

if TYPE_CHECKING:
    from transformers import GPTNeoXForCausalLM

KEPT = (torch.float16, torch.float32)
POSITIONS_PER_SEQUENCE = 32
"""Positions of an intervention, for each sequence that is asked for: about those of a sequence of
the toy, for which the numbers of sequences in steering, editing and attribution were chosen. Every
direction, dose and model costs a run over all of them, with logits over the whole vocabulary."""


class LanguageCohort(TextCohort):
    """See `polyrot.cohorts.cohort.Cohort` and `polyrot.cohorts.interventions.InterventionCohort`.

    models: one for each of `seeds`, the anchor first, all on one device; they are put into
    evaluation mode and their weights frozen. tokens: the sequences of each split, int64 [sequences,
    position], without padding; activations follow sequence by sequence. made_by: fingerprints,
    names or revisions of what made the models. phrases: the contrasts that may be steered by; with
    None there are none. keep: the dtype in which activations are kept (they are handed out as
    float32): nine Pythias at 65,536 tokens take 4 GB in float16, which the paper used, and twice
    that in float32. positions_per_sequence: see POSITIONS_PER_SEQUENCE. lower: what decides how
    much memory the activations take. facts: see `polyrot.cohorts.cohort.ScaleFacts`; of the paper's
    own models the middle site is the paper's layer, one further. start: makes the cohort of the
    same seeds before their first step, where that is known.

    The components are the residual stream at each block's output; `named_sites` are the
    "intermediate layers" at which the paper reports decoder cosines on Pythia: the blocks' outputs
    but for the first and the last.

    Raises ValueError: a seed given twice, models that are not of one width, depth and vocabulary,
    tokens that do not fit them; BadActivations, naming model and site, where activations are not
    finite.
    """

    positions_at_once = 8192

    def __init__(
        self,
        scale: str,
        seeds: tuple[int, ...],
        models: Sequence[GPTNeoXForCausalLM],
        tokens: Mapping[Split, Tensor],
        made_by: list[str],
        phrases: Mapping[str, Tokenised] | None,
        *,
        trained: bool = True,
        keep: torch.dtype = torch.float32,
        positions_per_sequence: int = POSITIONS_PER_SEQUENCE,
        lower: str = "the number of tokens",
        facts: ScaleFacts | None = None,
        start: Callable[[], LanguageCohort] | None = None,
    ) -> None:
        self.scale = scale
        self.seeds = tuple(seeds)
        self.trained = trained
        self.facts, self._start = facts or ScaleFacts(), start
        check_seeds(scale, self.seeds)
        _check_models(scale, self.seeds, models)
        if keep not in KEPT:
            raise ValueError(
                f"{scale}: activations are kept as {' or '.join(map(str, KEPT))}, not {keep}"
            )
        frozen = tuple(model.eval().requires_grad_(False) for model in models)
        super().__init__(frozen, tokens, keep, f"lower {lower}, or use --device cpu")
        self.models: tuple[GPTNeoXForCausalLM, ...] = frozen
        anchor, n_layers = frozen[0], len(self.sites) - 1
        self.vocabulary = anchor.lm_head.weight.shape[0]
        if self.facts.from_paper:  # the output of block 3 of Pythia-70m's six
            self.middle = self.sites[min(len(self.sites) // 2 + 1, n_layers)]
        self.components = tuple(f"block_{i}" for i in range(n_layers))
        # Beside attention or after it, an MLP writes last of all into its block's output.
        self.mlps: Mapping[str, str] = {f"mlp_{i}": f"resid_post_{i}" for i in range(n_layers)}
        self.steering_site = f"resid_post_{n_layers // 2}"
        self._phrases = dict(phrases or {})
        self.contrasts = tuple(self._phrases)
        self.further_contrasts: tuple[str, ...] = ()
        self.published_contrasts: tuple[str, ...] = ()
        self._positions = positions_per_sequence
        longest = int(anchor.config.max_position_embeddings)
        for split, ids in tokens.items():
            _check_tokens(ids, f"{scale}, {split} split", self.vocabulary, longest)
        for contrast in self._phrases.values():
            where = f"{scale}, contrast {contrast.name}"
            _check_ids(torch.tensor(contrast.ids), where, self.vocabulary)
            _check_length(max(map(len, contrast.phrases)), where, longest)
        self.fingerprint = fingerprint(
            "language-cohort",
            {
                "made_by": made_by,
                "seeds": list(self.seeds),
                "trained": trained,
                "tokens": {split: digest(ids) for split, ids in tokens.items()},
                "phrases": digest(repr([astuple(c) for c in self._phrases.values()])),
                "keep": str(keep),
                "positions_per_sequence": positions_per_sequence,
            },
        )
        self._means: Tensor | None = None
        self._directions: dict[str, dict[str, Tensor]] = {}
        self._wide: tuple[int, torch.dtype, GPTNeoXForCausalLM] | None = None

    def skipping(self, skip: int) -> Self:
        """See `TextCohort.skipping`."""
        made = super().skipping(skip)
        if made is not self:
            made._means = None  # noqa: SLF001  # they are over other positions
        return made

    def fixed_directions(self, site: str) -> Tensor:  # noqa: ARG002  # the same at all
        """All-ones, at every site: every reader of the stream takes it through a LayerNorm, which
        is blind to it. What the stream has along it (its mean over dimensions is not taken off)
        stays what the start put there, and a rotation that moves it makes another function."""
        return torch.ones(1, self.width)

    @torch.no_grad()
    def agreement_with_anchor(self) -> Measured:
        """Over the score split, wherever there is a next token. Beside it each model's loss (nats a
        token) and top-1 accuracy."""
        n, skip = len(self.models), self.skip
        loss, hits = np.zeros(n), np.zeros(n)
        tokens, positions, done = self.tokens("score"), 0, 0
        same = np.zeros((n, len(tokens)))
        for part in tokens.split(max(1, LOGITS // (tokens.shape[1] * self.vocabulary))):
            labels, first = part[:, 1 + skip :], None
            positions += labels.numel()
            for m in range(n):
                run = self._model(m, torch.float32)(input_ids=part, use_cache=False)
                logits = run.logits[:, skip:-1]
                top = logits.argmax(-1)
                first = top if first is None else first
                picked = logits.gather(-1, labels[..., None])[..., 0]
                loss[m] += float((logits.logsumexp(-1) - picked).double().sum())
                hits[m] += int((top == labels).sum())
                rows = slice(done, done + len(part))
                same[m, rows] = (top == first).sum(1).cpu().numpy()
            done += len(part)
        beside = {
            f"{name}_{seed}": float(x)
            for name, total in (("loss", loss), ("accuracy", hits))
            for seed, x in zip(self.seeds, total / positions, strict=True)
        }
        each = np.full(len(tokens), positions / len(tokens))
        return agreement_by_pair(
            same[1:].sum(1) / positions,
            error_over_sequences(same[1:], each),
            pair_labels(self),
            len(tokens),
            positions,
            beside,
            {"models": list(self.seeds)},
        )

    def untrained(self) -> Cohort:
        """See `polyrot.cohorts.cohort.Cohort`."""
        return super().untrained() if self._start is None else self._start().skipping(self.skip)

    def distinct_fraction(self) -> float:
        """See `polyrot.cohorts.cohort.Cohort`."""
        return share_of_distinct([model.state_dict() for model in self.models])

    # ----------------------------------------- see polyrot.cohorts.interventions.InterventionCohort

    def clean_run(
        self, model: int, tokens: Tensor, dtype: torch.dtype = torch.float32
    ) -> LanguageRun:
        """See `InterventionCohort`."""
        return LanguageRun(self._model(model, dtype), tokens, self.skip)

    def mean_writes(self, model: int) -> Tensor:
        """[components, width]: the mean over every token of the fit split. (The paper took the mean
        over the batch that it then ablated.)"""
        if self._means is None:
            means = [
                self.activations("fit", site).mean(1, dtype=torch.float64) for site in self.internal
            ]
            self._means = torch.stack(means, dim=1).float()
        return self._means[model].clone()

    def intervention_tokens(self, n: int) -> Tensor:
        """The first sequences of the score split: as many as hold `n` times the cohort's
        `positions_per_sequence`, rounded up, which are fewer than `n` where they are longer."""
        tokens = self.tokens("score")
        return tokens[: -(-n * self._positions // tokens.shape[1])]

    def direction(self, contrast: str, site: str | None = None) -> Tensor:
        """See `InterventionCohort.direction`; the phrases are of no split."""
        wanted = known(self._phrases, contrast)
        if contrast not in self._directions:
            self._directions[contrast] = self._difference(wanted)
        found = self._directions[contrast]
        site = self.steering_site if site is None else site
        if site not in found:
            raise KeyError(f"no such site: {site}; have {', '.join(found)}")
        return found[site].clone()

    def target(self, contrast: str, tokens: Tensor) -> Target:
        """Judged where the next token is of either class: there the contrast is at stake, in every
        model alike, and elsewhere is left to show what an intervention damages."""
        wanted = known(self._phrases, contrast)
        labels = tokens.roll(-1, dims=1)
        where = wanted.targets(labels)
        where[:, -1] = False  # nothing follows
        where[:, : self.skip] = False
        return Target(HEAD, wanted.weights(self.vocabulary).to(tokens.device), where, labels)

    def readers(self) -> Tensor:
        """[width, vocabulary]: what each logit reads from the last site, with the final LayerNorm's
        gain and centring folded in, around the mean over logits: what all of them share changes no
        probability."""
        anchor = self._model(0, torch.float32)
        read = (anchor.lm_head.weight * anchor.gpt_neox.final_layer_norm.weight).T
        read = read - read.mean(0)
        return read - read.mean(1, keepdim=True)

    # ----------------------------------------------------------------------------------- inside

    def _model(self, number: int, dtype: torch.dtype) -> GPTNeoXForCausalLM:
        """A model in `dtype`; of copies in another than its own only the last is held."""
        model = self.models[number]
        if model.dtype == dtype:
            return model
        if self._wide is None or self._wide[:2] != (number, dtype):
            self._wide = None  # before the next is made
            made: GPTNeoXForCausalLM = nn.Module.to(copy.deepcopy(model), dtype)
            # Eager attention takes its softmax in float32 whatever the dtype.
            made.set_attn_implementation("sdpa")
            self._wide = (number, dtype, made)
        return self._wide[2]

    def _body(self, number: int) -> nn.Module:
        return self._model(number, torch.float32).gpt_neox

    @torch.no_grad()
    def _difference(self, contrast: Tokenised) -> dict[str, Tensor]:
        """The contrast's direction at every site, [models, width]."""
        phrases = [torch.tensor(ids) for ids in contrast.phrases]
        # Padding comes after everything that is read: a causal model does not see it.
        padded = pad_sequence(phrases, batch_first=True).to(self.device)
        lengths = torch.tensor([len(ids) for ids in phrases], device=self.device)
        inside = torch.arange(padded.shape[1], device=self.device) < lengths[:, None]
        runs = [
            capture(self._model(m, torch.float32).gpt_neox, padded, self.sites)
            for m in range(len(self.models))
        ]
        found = {}
        for site in self.sites:
            x = torch.stack([run[site] for run in runs])
            found[site] = difference_of_means(x, inside, contrast)
            check_matrix(found[site], f"{self.scale}, direction {contrast.name}, {site}")
        return found


def _check_models(scale: str, seeds: tuple[int, ...], models: Sequence[GPTNeoXForCausalLM]) -> None:
    from transformers import GPTNeoXForCausalLM

    if not models or len(models) != len(seeds):
        raise ValueError(f"{scale}: {len(models)} models for {len(seeds)} seeds: one for each")
    for model in models:
        if not isinstance(model, GPTNeoXForCausalLM):
            raise ValueError(
                f"{scale}: a {type(model).__name__} where GPT-NeoX models are expected"
            )
    for what, of in {
        "width": width_of,
        "depth": lambda model: len(blocks(model)),
        "vocabulary": lambda model: model.lm_head.weight.shape[0],
        "device": lambda model: next(model.parameters()).device,
    }.items():
        first, *others = (of(model) for model in models)
        for seed, other in zip(seeds[1:], others, strict=True):
            if other != first:
                raise ValueError(
                    f"{scale}: seeds {seeds[0]} and {seed} differ in {what}, {first} against "
                    f"{other}: a cohort is of one architecture, on one device"
                )


def _check_tokens(ids: Tensor, where: str, vocabulary: int, longest: int) -> None:
    if ids.ndim != 2 or ids.dtype != torch.int64 or not len(ids) or ids.shape[1] < 2:
        raise ValueError(
            f"{where}: expected int64 [sequences, position] with two positions or more, got "
            f"{ids.dtype} {list(ids.shape)}"
        )
    _check_length(ids.shape[1], where, longest)
    _check_ids(ids, where, vocabulary)


def _check_length(length: int, where: str, longest: int) -> None:
    if length > longest:
        raise ValueError(
            f"{where}: {length} tokens in a sequence, but the models know {longest} positions "
            "(max_position_embeddings): cut the sequences shorter"
        )


def _check_ids(ids: Tensor, where: str, vocabulary: int) -> None:
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocabulary:
        raise ValueError(
            f"{where}: token {low if low < 0 else high}, but the models' vocabulary is 0 to "
            f"{vocabulary - 1}: was it made by another tokenizer?"
        )
