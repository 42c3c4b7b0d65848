"""Any two causal language models of one architecture and tokenizer, as a cohort and a frontier.

A is the anchor, B its sibling. The models may be of any architecture of `transformers`; their
activations are the checkpoints' own. (A dictionary that was trained on activations of another
library, which may centre a model's weights, has a low EV on A itself: `self_ev` tells.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from polyrot.checks import check_matrix
from polyrot.cohort import Cohort, Split, pair_labels, weights_differ
from polyrot.device import memory_for
from polyrot.dictionaries.collection import EXPANSION, Group, Spec, own_start, published_l1
from polyrot.dictionaries.loading import BadDictionary, Saved
from polyrot.dictionaries.sae import Dictionary
from polyrot.dictionaries.training import Schedule
from polyrot.haar import cohort as haar
from polyrot.haar.orthogonal import determinant_sign
from polyrot.haar.published import published_ks
from polyrot.language import loading
from polyrot.language.sites import blocks, capture, site_names, width_of
from polyrot.matching import matched_fraction, max_cosine
from polyrot.measured import Measured
from polyrot.progress import Progress, silent
from polyrot.rotations import NULL_SEED, Fits
from polyrot.seeding import numpy_generator
from polyrot.store import fingerprint
from polyrot.transfer import Transfer
from polyrot.transfer import measure as measure_transfer

POSITIONS = 4096  # run at once
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
    fingerprints of their weights."""

    names: tuple[str, str]
    models: tuple[nn.Module, nn.Module]
    made_by: tuple[str, str]
    tokens: Mapping[Split, Tensor]

    def cohort(self, device: torch.device | str = "cpu") -> PairCohort:
        """The cohort on a device."""
        moved = [
            loading.on_device(model, device, name)
            for name, model in zip(self.names, self.models, strict=True)
        ]
        return PairCohort(self.names, moved, self.tokens, self.made_by)


def load(
    a: str,
    b: str,
    tokens_of: Callable[[PreTrainedTokenizerBase], Mapping[Split, Tensor]],
    sae: Saved | None = None,
    progress: Progress = silent,
) -> Loaded:
    """Both checkpoints, with every check of what may be wrong with them.

    a, b: hub names, with "@revision" if need be, or directories. tokens_of: makes the splits with
    the tokenizer of A. sae: a dictionary of A, to be checked against it.
    Raises Unusable (missing or damaged weights, two families, one model twice, sequences too
    long), BadDictionary (another width, a site that A does not have), BadActivations.
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
    loading.check_different((a, b), models)
    if sae is not None:
        check_dictionary(sae, a, models[0])
    tokens = tokens_of(tokenizers[0])
    for name, model in zip((a, b), models, strict=True):
        loading.check_runs(name, model, tokens)
    made_by = (loading.weights_fingerprint(models[0]), loading.weights_fingerprint(models[1]))
    return Loaded((a, b), (models[0], models[1]), made_by, tokens)


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


class PairCohort:
    """See `polyrot.cohort.Cohort`: two models, the anchor A first.

    tokens: int64 [sequences, position] of each split. keep: the dtype in which activations are
    kept; they are handed out as float32.
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
        self.names = tuple(names)
        self.models = tuple(models)
        self.device = next(models[0].parameters()).device
        self.width = width_of(models[0])
        self.sites = site_names(len(blocks(models[0])))
        self.internal = self.sites[1:]
        self.named_sites = self.internal[1:-1] or self.internal
        self.from_second_block = self.sites[2:]
        self._keep = keep
        self._tokens = {split: ids.to(self.device) for split, ids in tokens.items()}
        self.fingerprint = fingerprint(
            "pair-cohort",
            {
                "made_by": list(made_by),
                "tokens": {split: _digest(ids) for split, ids in tokens.items()},
                "keep": str(keep),
            },
        )
        self._activations: dict[Split, dict[str, Tensor]] = {}

    def activations(self, split: Split, site: str) -> Tensor:
        """[2, tokens, width], float32: every position, sequence by sequence. Of the split that was
        asked for last, as more would not fit: GPT-2 small's take 30 GB at 400,000 tokens.

        Raises KeyError for an unknown site, BadActivations naming the model and site where a value
        is not finite, torch.OutOfMemoryError saying what to lower.
        """
        if site not in self.sites:
            raise KeyError(f"no such site: {site}; have {', '.join(self.sites)}")
        if split not in self._activations:
            n = self._tokens[split].numel()
            self._activations.clear()
            what = f"keeping the activations of {n} tokens at {len(self.sites)} sites"
            with memory_for(what, self.device, "lower --tokens"):
                self._activations[split] = self._run(self._tokens[split])
        return self._activations[split][site].float()

    def forget(self, split: Split) -> None:
        """Free the activations of a split; they are computed anew when asked for."""
        self._activations.pop(split, None)

    @torch.no_grad()
    def agreement_with_anchor(self) -> Measured:
        """Top-1 agreement of B with A on the score split."""
        a, b = self.models
        tokens, same, n = self._tokens["score"], 0, 0
        vocabulary = len(a.get_input_embeddings().weight)  # type: ignore[operator]
        for part in tokens.split(max(1, LOGITS // (tokens.shape[1] * vocabulary))):
            top = [m(input_ids=part, use_cache=False).logits.argmax(-1) for m in (a, b)]
            same, n = same + int((top[0] == top[1]).sum()), n + part.numel()
        return Measured(np.array([same / n]), pair_labels(self), counts={"positions": n})

    def distinct_fraction(self) -> float:
        """1.0 where the weights of the two differ by more than 1 % in norm, else 0.0."""
        a, b = (model.state_dict() for model in self.models)
        return float(weights_differ(a, b))

    @torch.no_grad()
    def _run(self, tokens: Tensor) -> dict[str, Tensor]:
        shape = (2, tokens.numel(), self.width)
        out = {
            site: torch.empty(shape, dtype=self._keep, device=self.device) for site in self.sites
        }
        for m, model in enumerate(self.models):
            body: nn.Module = getattr(model, "base_model", model)  # no logits are needed
            done = 0
            for part in tokens.split(max(1, POSITIONS // tokens.shape[1])):
                for site, x in capture(body, part, self.sites).items():
                    out[site][m, done : done + part.numel()] = x.flatten(0, 1)
                done += part.numel()
            for site in self.sites:
                check_matrix(out[site][m], f"{LETTERS[m]} ({self.names[m]}), {site}")
        return out


def _digest(ids: Tensor) -> str:
    data = ids.cpu().contiguous().numpy().tobytes()
    return hashlib.sha256(str(list(ids.shape)).encode() + data).hexdigest()


def sibling_group(
    cohort: Cohort, schedule: Schedule, sites: Sequence[str], expansion: int = EXPANSION
) -> Group:
    """B's own dictionaries, each from its own start, to compare A's decoder with."""
    l1 = published_l1(cohort)
    specs = tuple(Spec(1, site, own_start(1), l1) for site in sites)
    return Group("own", specs, schedule, expansion)


OF_R = ("magnitude", "split_half", "det", "ks_p")


@dataclass(frozen=True)
class Frontier:
    """What is measured of one pair: figures by site and name.

    At sites where A has a dictionary: the EVs of `Transfer`, and of the decoders the mean best
    cosine with B's own dictionary and the fraction matched. At all: magnitude ||R - I||_F /
    sqrt(2 d), split_half (the same between fits on two halves of the tokens), det (its sign), ks_p
    (the published test of R's phases against Haar). notes: what may be wrong with A's dictionary.
    """

    by_site: Mapping[str, Mapping[str, float]]
    counts: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def gain(self) -> Measured:
        """Rotated EV - naive EV at every site with a dictionary of A."""
        return self._measured(
            {
                site: row["rotated_ev"] - row["naive_ev"]
                for site, row in self.by_site.items()
                if "naive_ev" in row
            },
            lambda name: name not in OF_R,
        )

    def magnitude(self) -> Measured:
        """||R - I||_F / sqrt(2 d) at every site."""
        return self._measured(
            {site: row["magnitude"] for site, row in self.by_site.items()},
            lambda name: name in OF_R[1:],
        )

    def lines(self, at_once: int = 7) -> list[str]:
        """A table of everything: a line for each figure, a column for each site, `at_once` sites
        beside each other."""
        names, sites = max(map(list, self.by_site.values()), key=len), list(self.by_site)
        lines = []
        for start in range(0, len(sites), at_once):
            part = sites[start : start + at_once]
            lines.append(" " * 18 + "".join(f"{site:>14}" for site in part))
            for name in names:
                found = (self.by_site[site].get(name) for site in part)
                cells = ("-" if value is None else f"{value:.3f}" for value in found)
                lines.append(f"{name:<18}" + "".join(f"{cell:>14}" for cell in cells))
        return [*lines, *self.notes]

    def _measured(self, values: Mapping[str, float], recorded: Callable[[str], bool]) -> Measured:
        beside: dict[str, float | str] = {
            f"{name}_{site}": value
            for site, row in self.by_site.items()
            for name, value in row.items()
            if recorded(name)
        }
        return Measured(
            np.array(list(values.values())),
            tuple(values),
            None,
            {**beside, **({"notes": "; ".join(self.notes)} if self.notes else {})},
            {"null draws": NULL_SEED},
            {**self.counts, "sites": len(values)},
        )


EVS = {
    "self_ev": "self_ev",
    "naive_ev": "naive_ev",
    "shifted_ev": "mean_shift_ev",
    "rotated_ev": "rotated_ev",
    "shuffled_ev": "shuffled_ev",
    "principal_ev": "principal_axes_ev",
    "noise_ev": "noise_ev",
    "pointwise_ev": "pointwise_ev",
    "affine_ev": "affine_ev",
}
"""Tables of `Transfer`, and what they are called in the record."""


def notes_on(sae: Saved, name: str) -> tuple[str, ...]:
    """What a dictionary's file says that does not go with model A, called `name`, or with how its
    activations are taken here."""
    short = PurePath(parted(name)[0]).name.lower()
    told = sae.model.rpartition("/")[2].lower()
    other = [f"note: the dictionary names {sae.model} as its model, not {name}"]
    return (
        *(other if told and told != short else ()),
        *(f"note: the dictionary was trained on {text}" for text in sae.otherwise),
    )


def measure(
    cohort: Cohort,
    fits: Fits,
    saes: Mapping[str, Dictionary],
    others: Mapping[str, Dictionary],
    notes: Sequence[str] = (),
) -> Frontier:
    """Everything of one pair.

    fits: every map from B to A, at every site. saes: A's dictionaries by site, at one site or more.
    others: B's own at the same sites. notes: see `notes_on`; one is added for every site at which
    A's dictionary suits B better.
    """
    at = [site for site in fits.sites if site in saes]
    transfer: Transfer = measure_transfer(cohort, fits.at(at), saes)
    rows: dict[str, dict[str, float]] = {site: {} for site in fits.sites}
    for j, site in enumerate(at):
        for name, called in EVS.items():
            rows[site][called] = float(getattr(transfer, name).values[0, j])
        mine, theirs = saes[site].decoder, others[site].decoder
        given = mine.norm(dim=0).cpu() > 0  # someone else's may have columns of zeros
        cosines = max_cosine(mine, theirs, given)
        rows[site]["mean_cosine"] = float(cosines.mean())
        rows[site]["matched"] = matched_fraction(cosines)
    rs = haar.rotation_stack(fits)
    found = {
        "magnitude": haar.distances(fits).values[0] / (2 * cohort.width) ** 0.5,
        "split_half": haar.half_gap(fits).values[0],
        "det": determinant_sign(rs),
        "ks_p": published_ks(rs, numpy_generator(NULL_SEED, "published reference")).p_values,
    }
    for name, values in found.items():
        for site, value in zip(fits.sites, values, strict=True):
            rows[site][name] = float(value)
    counts = {"pairs": 1, "tokens": int(transfer.self_ev.counts["tokens"])}
    swapped = [
        f"note: at {site} the dictionary of A reconstructs B better than A: is it B's?"
        for site in at
        if rows[site]["naive_ev"] > rows[site]["self_ev"]
    ]
    return Frontier(rows, counts, (*notes, *swapped))
