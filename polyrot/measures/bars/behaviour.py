"""Bar B: the KL divergence from what ought to come out to what a model puts out, streamed.

Two readings. The pipeline's: from the task's exact labels. A label y of C classes becomes the
distribution (1 - e) onehot(y) + e / C with e = 1e-6. The post's: from the constructive
specification, which is a trained model with its gains folded. Either way the divergence is taken
per output head and position, averaged over positions (PAD left out, all inputs pooled) and then
over the three heads. Of the inputs, which are sequences, 60 % are drawn as in training, 20 % are
compositional and 20 % long. The paper's text trains on contents of length 2 to 62, which run
packed, two to a row, since half of a padded batch would be PAD; its pipeline draws the train part
of Bar B from lengths 2 to 48 (`CONTENTS`). (arXiv 2605.24577, Methods.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from polyrot.runtime.progress import Progress, silent
from polyrot.runtime.seeding import torch_generator
from polyrot.toy import task, transformer
from polyrot.toy.folding import Folded
from polyrot.toy.run import cropped
from polyrot.toy.transformer import N_LAYERS, Params

SMOOTHING = 1e-6
SHARES = {"train": 0.6, "compositional": 0.2, "long": 0.2}
INPUTS = 3200  # drawn at once; the stack machine costs the same for many as for few
ROWS = 64  # run at once: more fall out of a CPU's cache
DATA_SEED = 20260607
Content = tuple[int, int]
CONTENTS: tuple[Content, ...] = (task.CONTENT_RANGE["train"], (2, 48))
"""Lengths of the train part: as the text has them, and as the pipeline draws them."""


@dataclass(frozen=True)
class Behaviour:
    """Divergences of some models, in nats.

    kl: float64 [models, heads, distributions], mean over the distribution's positions. positions:
    int64 [distributions], how many. draws: float64 [draws, models], mean over heads and positions
    of each draw of `INPUTS` inputs. draws_by_head: [draws, models, heads], the same by head; None
    where it was not kept. Heads as `task.HEADS`, distributions as `task.DISTRIBUTIONS`.
    """

    kl: Tensor
    positions: Tensor
    draws: Tensor
    draws_by_head: Tensor | None = None

    @property
    def by_head(self) -> Tensor:
        """[models, heads], mean over all positions."""
        share = self.positions.double() / self.positions.sum()
        return self.kl @ share

    @property
    def mean(self) -> Tensor:
        """[models], mean over heads and positions: the figure of Bar B."""
        return self.by_head.mean(1)

    @property
    def standard_error(self) -> Tensor:
        """[models], of `mean`, from the draws; 0 where there was one. The tail is heavy: a single
        sequence whose depth is misjudged early can weigh as much as all others of its draw."""
        n = len(self.draws)
        return self.draws.std(0) / n**0.5 if n > 1 else torch.zeros_like(self.draws[0])

    def share(self, head: str) -> Tensor:
        """[models], a head's share of the sum over heads."""
        return self.by_head[:, task.HEADS.index(head)] / self.by_head.sum(1)

    def share_error(self, head: str) -> Tensor | None:
        """[models], standard error of `share` (a ratio of means, linearised), from the draws; None
        where there was one or they were not kept by head."""
        if self.draws_by_head is None or len(self.draws) < 2:
            return None
        total = self.draws_by_head.sum(2)
        own = self.draws_by_head[:, :, task.HEADS.index(head)]
        residual = (own - self.share(head) * total) / self.by_head.sum(1)
        return residual.std(0) / len(self.draws) ** 0.5

    def of(self, distribution: str) -> Tensor:
        """[models], mean over heads of one distribution."""
        return self.kl[:, :, task.DISTRIBUTIONS.index(distribution)].mean(1)

    def to_tensors(self) -> dict[str, Tensor]:
        """For the store."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: tensor for name, tensor in found.items() if tensor is not None}


@dataclass(frozen=True)
class Batch:
    """Some rows of one distribution; positions and segments only where rows are packed."""

    distribution: str
    tokens: Tensor
    labels: dict[str, Tensor]
    positions: Tensor | None = None
    segments: Tensor | None = None


def batches(
    seed: int, device: torch.device | str = "cpu", content: Content = CONTENTS[0]
) -> Iterator[list[Batch]]:
    """Draws of `INPUTS` inputs each, without end, in batches of `ROWS` rows; content: the lengths
    of the train part."""
    draw = 0
    while True:
        out: list[Batch] = []
        for name in task.DISTRIBUTIONS:
            generator = torch_generator(seed, "bar B", name, draw, device=device)
            n = round(SHARES[name] * INPUTS)
            if name == "train" and content == task.CONTENT_RANGE["train"]:
                packed = task.packed_batch(n, generator)
                whole = Batch(name, packed.tokens, {}, packed.positions, packed.segments)
                labels = packed.labels
            else:
                lengths = content if name == "train" else None
                tokens = cropped(task.sequences(n, generator, name, lengths))
                whole, labels = Batch(name, tokens, {}), task.label(tokens)
            for rows in torch.arange(len(whole.tokens), device=device).split(ROWS):
                out.append(
                    Batch(
                        name,
                        whole.tokens[rows],
                        {h: labels.head(h)[rows] for h in task.HEADS},
                        None if whole.positions is None else whole.positions[rows],
                        None if whole.segments is None else whole.segments[rows],
                    )
                )
        yield out
        draw += 1


def from_labels(logits: Tensor, label: Tensor) -> Tensor:
    """KL(smoothed label || model) [model, batch, position]; logits [.., classes], label [batch,
    position]."""
    classes = logits.shape[-1]
    spread = SMOOTHING / classes
    top = 1 - SMOOTHING + spread
    entropy = -(top * math.log(top) + (classes - 1) * spread * math.log(spread))
    z = logits.logsumexp(-1)
    at_label = logits.gather(-1, label.expand(len(logits), -1, -1)[..., None])[..., 0] - z
    total = logits.sum(-1) - classes * z
    return -(1 - SMOOTHING) * at_label - spread * total - entropy


def from_model(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(reference || model) [model, batch, position] of logits; reference [1, ..].

    In float64: in single precision the rounding of a softmax alone is of the size of the bar.
    """
    p = reference.double().log_softmax(-1)
    q = logits.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


@torch.no_grad()
def measure_behaviour(
    models: Params | Folded,
    positions: int,
    *,
    specification: Folded | None = None,
    seed: int = DATA_SEED,
    content: Content = CONTENTS[0],
    progress: Progress = silent,
) -> Behaviour:
    """Bar B of every model of the batch, over at least `positions` positions, the same for all.

    specification: one folded model to diverge from; default the exact labels. content: lengths of
    the train part. Inputs come in whole draws, so that a longer run contains a shorter one.
    Raises ValueError: no positions asked for, or not exactly one specification.
    """
    if positions < 1:
        raise ValueError(f"Bar B is a mean over positions: {positions} is none")
    if specification is not None and len(specification) != 1:
        raise ValueError(f"one specification, not {len(specification)}")
    device = models.position.device if isinstance(models, Folded) else models["embed"].device
    n_models = len(models) if isinstance(models, Folded) else len(models["embed"])
    shape = (n_models, len(task.HEADS), len(task.DISTRIBUTIONS))
    total = torch.zeros(shape, dtype=torch.float64, device=device)
    counted = torch.zeros(len(task.DISTRIBUTIONS), dtype=torch.int64, device=device)
    run, judge = _runner(models), None if specification is None else _runner(specification)
    each: list[Tensor] = []
    for drawn in batches(seed, device, content):
        before, had = total.clone(), int(counted.sum())
        for batch in drawn:
            logits = run(batch)
            expected = None if judge is None else judge(batch)
            keep = batch.tokens != task.PAD
            column = task.DISTRIBUTIONS.index(batch.distribution)
            for row, head in enumerate(task.HEADS):
                if expected is None:
                    kl = from_labels(logits[head], batch.labels[head])
                else:
                    kl = from_model(logits[head], expected[head])
                total[:, row, column] += kl[:, keep].double().sum(1)
            counted[column] += keep.sum()
        done = int(counted.sum())
        each.append((total - before).sum(2) / (done - had))
        progress("bar B", min(done, positions), positions)
        if done >= positions:
            break
    by_head = torch.stack(each).cpu()
    return Behaviour((total / counted).cpu(), counted.cpu(), by_head.mean(2), by_head)


def _runner(models: Params | Folded) -> Callable[[Batch], Mapping[str, Tensor]]:
    def run(batch: Batch) -> Mapping[str, Tensor]:
        where, segments = batch.positions, batch.segments
        if isinstance(models, Folded):
            return models.run(batch.tokens, positions=where, segments=segments).logits
        run = transformer.forward(models, batch.tokens, positions=where, segments=segments)
        return run.logits

    return run


def averaged_depth(model: Folded) -> Folded:
    """The decoy: depths 0 and 1, 2 and 3, 4 and 5, 6 and 7 share the mean of their unembeddings."""
    w = model["unembed_depth"].clone()
    for k in range(0, task.HEAD_CLASSES["depth"] - 1, 2):
        w[..., k : k + 2] = w[..., k : k + 2].mean(-1, keepdim=True)
    return model.replace({"unembed_depth": w})


def swapped_layers(model: Folded) -> Folded:
    """The second decoy: the two blocks in the other order."""
    turned = {}
    for name, _ in model.items():
        stem, _, last = name.rpartition("_")
        if last.isdigit():
            turned[name] = model[f"{stem}_{N_LAYERS - 1 - int(last)}"]
    return model.replace(turned)
