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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import count

import torch
from torch import Tensor

from polyrot.measured import Interval, Unit, interval_about
from polyrot.runtime.progress import Progress, silent
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Artifact, Checkpoint
from polyrot.store.resuming import resume
from polyrot.toy import task, transformer
from polyrot.toy.folding import Folded
from polyrot.toy.run import cropped
from polyrot.toy.transformer import N_LAYERS, Params

SMOOTHING = 1e-6
SHARES = {"train": 0.6, "compositional": 0.2, "long": 0.2}
INPUTS = 3200  # drawn at once; the stack machine costs the same for many as for few
ROWS = 64  # run at once: more fall out of a CPU's cache
SAVE_EVERY = 5  # draws, of some 140,000 positions each
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
    where it was not kept. Heads as `task.HEADS`, distributions as `task.DISTRIBUTIONS` or as asked.
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

    def select(self, models: Sequence[int] | slice) -> Behaviour:
        """Of some of the models."""
        by_head = None if self.draws_by_head is None else self.draws_by_head[:, models]
        return Behaviour(self.kl[models], self.positions, self.draws[:, models], by_head)

    @property
    def intervals(self) -> tuple[Interval | None, ...]:
        """Of `mean`, one a model."""
        each = zip(self.mean.tolist(), self.standard_error.tolist(), strict=True)
        return tuple(of_draws(value, error, len(self.draws)) for value, error in each)

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


def of_draws(value: float, error: float, draws: int, unit: Unit = "positive") -> Interval | None:
    """The interval of a mean over so many draws of sequences, its sample; None with one draw."""
    if draws < 2:
        return None
    return interval_about(value, error, "sequences", unit, freedom=draws - 1)


@dataclass(frozen=True)
class Batch:
    """Some rows of one distribution; positions and segments only where rows are packed."""

    distribution: str
    tokens: Tensor
    labels: dict[str, Tensor]
    positions: Tensor | None = None
    segments: Tensor | None = None


def drawn(
    name: task.Distribution,
    draw: int,
    seed: int,
    device: torch.device | str = "cpu",
    content: Content = CONTENTS[0],
) -> list[Batch]:
    """One distribution's part of a draw of `INPUTS` inputs, in batches of `ROWS` rows; content: the
    lengths of the train part."""
    generator = torch_generator(seed, "bar B", name, draw, device=device)
    n = round(SHARES[name] * INPUTS)
    if name == "train" and content == task.CONTENT_RANGE["train"]:
        packed = task.packed_batch(n, generator)
        whole = Batch(name, packed.tokens, {}, packed.positions, packed.segments)
        labels = packed.labels
    else:
        lengths = content if name == "train" else None
        tokens = task.sequences(n, generator, name, lengths)
        # By length, so that a few at a time hold little padding.
        tokens = tokens[(tokens != task.PAD).sum(1).argsort(stable=True)]
        whole, labels = Batch(name, tokens, {}), task.label(tokens)
    return [_rows(whole, labels, rows) for rows in torch.arange(len(whole.tokens)).split(ROWS)]


def _rows(whole: Batch, labels: task.Labels, rows: Tensor) -> Batch:
    """Some rows, without the positions at the end that are padding in all of them."""
    tokens = cropped(whole.tokens[rows])
    length = tokens.shape[1]
    return Batch(
        whole.distribution,
        tokens,
        {h: labels.head(h)[rows, :length] for h in task.HEADS},
        None if whole.positions is None else whole.positions[rows],
        None if whole.segments is None else whole.segments[rows],
    )


def batches(
    seed: int, device: torch.device | str = "cpu", content: Content = CONTENTS[0]
) -> Iterator[list[Batch]]:
    """Draws of `INPUTS` inputs each, without end, in batches of `ROWS` rows; content: the lengths
    of the train part."""
    for draw in count():
        parts = [drawn(name, draw, seed, device, content) for name in task.DISTRIBUTIONS]
        yield [batch for part in parts for batch in part]


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


Runner = Callable[[Batch], Mapping[str, Tensor]]
"""From a batch to the logits of some models, by head."""


@torch.no_grad()
def measure_behaviour(
    models: Params | Folded,
    positions: int,
    *,
    specification: Folded | None = None,
    seed: int = DATA_SEED,
    content: Content = CONTENTS[0],
    distributions: Sequence[task.Distribution] = task.DISTRIBUTIONS,
    checkpoint: Checkpoint | None = None,
    progress: Progress = silent,
) -> Behaviour:
    """Bar B of every model of the batch, over at least `positions` positions, the same for all.

    specification: one folded model to diverge from; default the exact labels. content: lengths of
    the train part. distributions: the parts of the mixture that count, all or some.
    Inputs come in whole draws, so that a longer run contains a shorter one.
    checkpoint: where what is done is kept every few draws, and gone on from.
    Raises ValueError: no positions asked for, or not exactly one specification.
    """
    if positions < 1:
        raise ValueError(f"Bar B is a mean over positions: {positions} is none")
    if specification is not None and len(specification) != 1:
        raise ValueError(f"one specification, not {len(specification)}")
    device = models.position.device if isinstance(models, Folded) else models["embed"].device
    run, judge = _runner(models), None if specification is None else _runner(specification)
    sums: list[Tensor] = []  # of each draw: [models, heads, distributions]
    counts: list[Tensor] = []  # of each draw: [distributions]
    saved = resume(checkpoint, device=device.type)  # inputs are drawn there, not alike elsewhere
    if saved is not None:
        sums, counts = list(saved.tensors["sums"]), list(saved.tensors["counts"])
    done = int(sum(int(n.sum()) for n in counts))
    while done < positions:
        found = [
            _of_part(run, judge, drawn(name, len(sums), seed, device, content))
            for name in distributions
        ]
        sums.append(torch.stack([total for total, _ in found], 2).cpu())
        counts.append(torch.tensor([n for _, n in found]))
        done += int(counts[-1].sum())
        progress("bar B", min(done, positions), positions)
        if checkpoint is not None and len(sums) % SAVE_EVERY == 0:
            state = {"sums": torch.stack(sums), "counts": torch.stack(counts)}
            checkpoint.save(Artifact(state, {"device": device.type}))
    total, counted = torch.stack(sums), torch.stack(counts)
    by_head = total.sum(3) / counted.sum(1)[:, None, None]
    whole = counted.sum(0)
    return Behaviour(total.sum(0) / whole, whole, by_head.mean(2), by_head)


def _of_part(run: Runner, judge: Runner | None, part: list[Batch]) -> tuple[Tensor, int]:
    """Sum of the divergences, float64 [models, heads], over the kept positions of some batches,
    and how many these are."""
    total: list[Tensor] = []
    counted = 0
    for batch in part:
        logits = run(batch)
        expected = None if judge is None else judge(batch)
        keep = batch.tokens != task.PAD
        each = [
            from_labels(logits[head], batch.labels[head])
            if expected is None
            else from_model(logits[head], expected[head])
            for head in task.HEADS
        ]
        total.append(torch.stack([kl[:, keep].double().sum(1) for kl in each], 1))
        counted += int(keep.sum())
    return torch.stack(total).sum(0), counted


def _runner(models: Params | Folded) -> Runner:
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
