"""What models are, beside their activations: agreement before training, and other lengths.

- *Untrained agreement*: top-1 agreement of untrained siblings with the untrained anchor, as
  `Cohort.agreement_with_anchor` has it of trained ones.
- *Extrapolation*: accuracy of one toy, trained on contents of length 2 to 48 alone, on sequences of
  the *long* distribution (50 to 60) and on new ones of its own lengths. Positions are pooled, PAD
  left out; errors are of a ratio of means over sequences. (arXiv 2605.24577, appendix A.)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from polyrot.cohorts.cohort import Cohort, error_over_sequences
from polyrot.measured import Interval, Measured, interval_about
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Artifact, Store
from polyrot.toy import task, transformer
from polyrot.toy.run import cropped
from polyrot.toy.transformer import Params

RECIPE_VERSION = 1  # raise when a change of code changes a figure
SEQUENCES = 8192  # of either kind
DATA_SEED = 20261128
CHUNK = 64
LEARNT = 0.999
"""Accuracy of the depth head on the lengths of its training, below which nothing was learnt that
could be carried beyond them."""
DEPTH = task.HEADS.index("depth")


def trained_agreement(cohort: Cohort) -> Measured:
    """How far the seeds compute one function. Raises NotOffered where the cohort has activations
    alone."""
    return cohort.agreement_with_anchor()


def untrained_agreement(untrained: Cohort) -> Measured:
    """Agreement of models that have nothing in common but their architecture. That they do not
    agree is a statement of difference: without a ceiling.

    Raises NotOffered where the cohort has activations alone.
    """
    return replace(untrained.agreement_with_anchor(), ceilings=())


def kept_untrained_agreement(store: Store, untrained: Cohort) -> Measured:
    """`untrained_agreement` through the store. Raises NotOffered as there."""

    def build(_: object) -> Artifact:
        found = untrained_agreement(untrained)
        plain = asdict(found)
        meta = {name: plain[name] for name in ("labels", "beside", "seeds", "counts", "intervals")}
        return Artifact({"values": torch.tensor(found.values)}, meta)

    recipe = {"version": RECIPE_VERSION, "cohort": untrained.fingerprint}
    artifact = store.get_or_build("untrained-agreement", recipe, build, name=untrained.scale)
    meta = dict(artifact.meta)
    return Measured(
        artifact.tensors["values"].numpy(),
        tuple(meta["labels"]),
        beside=meta["beside"],
        seeds=meta["seeds"],
        counts=meta["counts"],
        intervals=tuple(None if ends is None else Interval(*ends) for ends in meta["intervals"]),
        unit="fraction",
    )


@dataclass(frozen=True)
class Extrapolation:
    """Accuracies of one model on sequences of its own lengths, and on long ones.

    own, long: float64 [heads], as `task.HEADS`; own_error, long_error: their standard errors.
    departures: of the training from the paper's protocol, sentences.
    """

    own: Tensor
    own_error: Tensor
    long: Tensor
    long_error: Tensor
    departures: tuple[str, ...] = ()


def measure_extrapolation(
    params: Params, lengths: tuple[int, int], sequences: int = SEQUENCES
) -> Extrapolation:
    """Accuracies of one toy (leading dimension 1), trained on contents of these lengths.

    Raises ValueError for another number of models than one.
    """
    if len(params["embed"]) != 1:
        raise ValueError(f"one model, not {len(params['embed'])}")
    device = params["embed"].device
    drawn = (
        task.sequences(sequences, torch_generator(DATA_SEED, "own"), "train", lengths),
        task.sequences(sequences, torch_generator(DATA_SEED, "long"), "long"),
    )
    found: list[Tensor] = []
    for tokens in drawn:
        hits, counts = _hits(params, tokens.to(device))
        found += [
            torch.from_numpy(hits.sum(1) / counts.sum()),
            torch.from_numpy(error_over_sequences(hits, counts)),
        ]
    own, own_error, long, long_error = found
    return Extrapolation(own, own_error, long, long_error)


@torch.no_grad()
def _hits(params: Params, tokens: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Positions at which each head is right, [heads, sequences], and all of them, [sequences]."""
    hits, counts = [], []
    for chunk in tokens.split(CHUNK):
        part = cropped(chunk)
        keep, labels = part != task.PAD, task.label(part)
        logits = transformer.forward(params, part).logits
        right = [(logits[h][0].argmax(-1) == labels.head(h)) & keep for h in task.HEADS]
        hits.append(torch.stack([x.sum(1) for x in right]))
        counts.append(keep.sum(1))
    return (
        torch.cat(hits, 1).double().cpu().numpy(),
        torch.cat(counts).double().cpu().numpy(),
    )


def kept_extrapolation(
    store: Store,
    params: Params,
    lengths: tuple[int, int],
    made_by: str,
    departures: tuple[str, ...] = (),
) -> Extrapolation:
    """`measure_extrapolation` through the store. made_by: fingerprint of the training."""

    def build(_: object) -> Artifact:
        measured = measure_extrapolation(params, lengths, SEQUENCES)
        return Artifact({name: getattr(measured, name) for name in names}, {})

    names = [f.name for f in fields(Extrapolation) if f.name != "departures"]
    recipe = {
        "version": RECIPE_VERSION,
        "made_by": made_by,
        "lengths": list(lengths),
        "sequences": SEQUENCES,
        "seed": DATA_SEED,
    }
    low, high = lengths
    artifact = store.get_or_build("extrapolation", recipe, build, name=f"lengths-{low}-{high}")
    own, own_error, long, long_error = (artifact.tensors[name] for name in names)
    return Extrapolation(own, own_error, long, long_error, departures)


def depth_beyond(found: Extrapolation) -> Measured:
    """Accuracy of the depth head on long sequences, with the interval of these; out of reach where
    it is below `LEARNT` on the lengths of the training. Every other accuracy beside."""
    own, long = float(found.own[DEPTH]), float(found.long[DEPTH])
    unmet = ""
    if own < LEARNT:
        unmet = f"depth accuracy on the lengths of its training is {own:.4f}, below {LEARNT:g}"
    beside = {
        f"{head}_{name}": float(x)
        for name, values in (("own", found.own), ("long", found.long))
        for head, x in zip(task.HEADS, values, strict=True)
    }
    return Measured(
        np.array([long]),
        ("",),
        beside={**beside, "depth_own_error": float(found.own_error[DEPTH])},
        seeds={"data": DATA_SEED},
        counts={"sequences": SEQUENCES},
        intervals=(interval_about(long, float(found.long_error[DEPTH]), "sequences", "fraction"),),
        unit="fraction",
    ).unless(unmet)
