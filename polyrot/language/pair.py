"""Any two causal language models of one architecture and tokenizer, as a cohort and a frontier.

A is the anchor, B its sibling. The models may be of any architecture of `transformers`; their
activations are the checkpoints' own. (A dictionary that was trained on activations of another
library, which may centre a model's weights, has a low EV on A itself: `self_ev` tells.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from polyrot.cohorts.cohort import (
    Split,
    agreement_by_pair,
    error_over_sequences,
    pair_labels,
    weights_differ,
)
from polyrot.dictionaries.loading import BadDictionary, Saved
from polyrot.language import checks, identity, loading, text
from polyrot.language.activations import TextCohort
from polyrot.language.run import AnyModelRun
from polyrot.language.sites import blocks, site_names, width_of
from polyrot.measured import Measured
from polyrot.runtime.progress import Progress, silent
from polyrot.store import digest, fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LOGITS = 2**27  # held at once
LETTERS = ("A", "B")


def parted(name: str) -> tuple[str, str | None]:
    """A hub name and its revision, from "owner/name@revision"; a directory is taken as it is."""
    if Path(name).expanduser().is_dir():
        return name, None
    base, _, revision = name.partition("@")
    return base, revision or None


@dataclass(frozen=True)
class Loaded:
    """Two models on the CPU that belong together. names: as they were given, A first. made_by:
    fingerprints of their functions, and of what makes the tokens of a text. notes: what is to be
    said of the text."""

    names: tuple[str, str]
    models: tuple[nn.Module, nn.Module]
    made_by: tuple[str, ...]
    tokens: Mapping[Split, Tensor]
    notes: tuple[str, ...] = ()

    def cohort(self, device: torch.device | str = "cpu") -> PairCohort:
        """The cohort on a device."""
        moved = [
            loading.on_device(model, device, name)
            for name, model in zip(self.names, self.models, strict=True)
        ]
        made = PairCohort(self.names, moved, self.tokens, self.made_by)
        made.notes = self.notes
        return made


def load(
    a: str,
    b: str,
    tokens_of: Callable[[PreTrainedTokenizerBase], Mapping[Split, Tensor]],
    sae: Saved | None = None,
    progress: Progress = silent,
    skip: int = 0,
) -> Loaded:
    """Both checkpoints, with every check of what may be wrong with them.

    a, b: hub names, with "@revision" if need be, or directories. tokens_of: makes the splits with
    the tokenizer of A. sae: a dictionary of A, to be checked against it. skip: the first positions
    of each sequence, which are left out of what is measured.
    Raises Unusable (missing or damaged weights, no causal model, two families, one model twice,
    sequences too long, too few tokens), BadDictionary (another width, a site that A does not have),
    BadActivations.
    """
    given = [parted(a), parted(b)]
    for name, revision in given:
        loading.locate(name, revision=revision)  # both, before either is loaded
    tokenizers = [loading.load_tokenizer(name, revision=r) for name, r in given]
    models = []
    for done, (name, revision) in enumerate(given):
        progress("checkpoints", done, 2)
        models.append(loading.load_causal_lm(name, revision=revision))
    progress("checkpoints", 2, 2)
    loading.check_one_family((a, b), models, tokenizers)
    if sae is not None:
        check_dictionary(sae, a, models[0])
    tokens = tokens_of(tokenizers[0])
    for name, model in zip((a, b), models, strict=True):
        checks.check_runs(name, model, tokens, skip)
    identity.check_different((a, b), models, tokens["score"])
    functions = [identity.function_fingerprint(model) for model in models]
    made_by = (*functions, text.fingerprint(tokenizers[0]))
    notes = text.notes_on(tokenizers[0], tokens)
    return Loaded((a, b), (models[0], models[1]), made_by, tokens, notes)


def check_dictionary(sae: Saved, name: str, model: nn.Module) -> None:
    """Whether a dictionary can be this model's. Raises BadDictionary naming both."""
    width, sites = width_of(model), site_names(len(blocks(model)))
    if sae.dictionary.d_in != width:
        raise BadDictionary(
            f"the dictionary reads width {sae.dictionary.d_in}, but {name} is {width} wide: it "
            "belongs to another model"
        )
    if sae.site not in sites:
        raise BadDictionary(
            f"the dictionary is for {sae.site}, but {name} has {sites[0]} to {sites[-1]}"
        )


class PairCohort(TextCohort):
    """See `polyrot.cohorts.cohort.Cohort`: two models, the anchor A first.

    tokens: int64 [sequences, position] of each split. made_by: see `Loaded`. keep: the dtype in
    which activations are kept; they are handed out as float32.
    """

    scale = "pair"
    trained = True
    seeds: tuple[int, ...] = (0, 1)

    def __init__(
        self,
        names: Sequence[str],
        models: Sequence[nn.Module],
        tokens: Mapping[Split, Tensor],
        made_by: Sequence[str],
        keep: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(models, tokens, keep, "lower --tokens")
        self.names = tuple(names)
        self.fingerprint = fingerprint(
            "pair-cohort",
            {
                "made_by": list(made_by),
                "tokens": {split: digest(ids) for split, ids in tokens.items()},
                "keep": str(keep),
            },
        )

    @torch.no_grad()
    def agreement_with_anchor(self) -> Measured:
        """Top-1 agreement of B with A on the score split."""
        a, b = self.models
        tokens, same = self._tokens["score"], []
        vocabulary = len(a.get_input_embeddings().weight)  # type: ignore[operator]
        for part in tokens.split(max(1, LOGITS // (tokens.shape[1] * vocabulary))):
            top = [m(input_ids=part, use_cache=False).logits.argmax(-1) for m in (a, b)]
            same.append((top[0] == top[1])[:, self.skip :].sum(1).cpu().numpy())
        kept = tokens.shape[1] - self.skip
        hits, each = np.concatenate(same)[None], np.full(len(tokens), float(kept))
        error = error_over_sequences(hits, each)
        n = len(tokens) * kept
        share = hits.sum(1) / n
        return agreement_by_pair(share, error, pair_labels(self), len(tokens), n)

    def clean_run(
        self, model: int, tokens: Tensor, dtype: torch.dtype = torch.float32
    ) -> AnyModelRun:
        """See `OpenCohort`, of A (0) or B (1). Raises ValueError for another dtype than that of
        the weights."""
        chosen = self.models[model]
        if dtype != (own := next(chosen.parameters()).dtype):
            raise ValueError(f"{self._called(model)} is run in {own}, not in {dtype}")
        return AnyModelRun(chosen, tokens, self.skip)

    def distinct_fraction(self) -> float:
        """1.0 where the weights of the two differ by more than 1 % in norm, else 0.0."""
        return float(self.differ_by(0.01))

    def differ_by(self, share: float) -> bool:
        """Whether the weights of the two differ by more than `share` of A's in norm."""
        a, b = (model.state_dict() for model in self.models)
        return weights_differ(a, b, share)

    def _called(self, number: int) -> str:
        return f"{LETTERS[number]} ({self.names[number]})"
