"""Training many Dyck-3 transformers as one batched program, resumable at every checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from polyrot.cohorts.cohort import check_seeds
from polyrot.runtime.cuda_graph import CudaGraph
from polyrot.runtime.device import BF16, begin_stretch, precision_of
from polyrot.runtime.progress import Progress, silent
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Checkpoint
from polyrot.store.resuming import resume
from polyrot.toy import task, transformer
from polyrot.toy.optimiser import BUFFERS, Held, bases, optimiser_of
from polyrot.toy.schedule import ADAMW, STANDARD, Schedule
from polyrot.toy.trained import Trained
from polyrot.toy.training_state import TrainingState
from polyrot.toy.transformer import Params

CHUNK_SEQUENCES = {"cpu": 8192, "cuda": 262_144}
"""Drawn at once; the stack machine costs the same for many as for few."""
CPU_ROWS = 32  # forward and backward at once, over all models: more fall out of a CPU's cache


def losses(logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], keep: Tensor) -> Tensor:
    """Sum over heads of the mean cross-entropy over kept positions, per model: [model].

    logits: head -> [model, batch, position, classes]; labels: head -> [model, batch, position].
    keep: bool [model, batch, position], False at PAD.
    """
    total = torch.zeros(keep.shape[0], device=keep.device)
    weight = keep.float() / keep.float().sum((1, 2), keepdim=True)
    for head in task.HEADS:
        entropy = F.cross_entropy(
            logits[head].float().flatten(0, 2), labels[head].flatten(), reduction="none"
        )
        total = total + (entropy.reshape(keep.shape) * weight).sum((1, 2))
    return total


def batches(
    seeds: Sequence[int],
    schedule: Schedule,
    first_step: int,
    device: torch.device,
    stream: str = "toy data",
) -> Iterator[tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]]:
    """Packed batches from `first_step` on, one independent stream per model.

    stream: names the draws; cycles have their own.
    Yields tokens and positions [model, rows, width], the attention bias, and labels per head.
    """
    batch = schedule.batch
    per_chunk = max(1, CHUNK_SEQUENCES[device.type] // batch)
    step = first_step
    while True:
        chunk, offset = divmod(step, per_chunk)
        begun = chunk * per_chunk / schedule.steps
        law = schedule.law(begun)
        drawn = [
            task.packed_batch(
                per_chunk * batch,
                torch_generator(seed, stream, chunk, device=device),
                law,
            )
            for seed in seeds
        ]
        # Rows of one draw are exchangeable: any batch / 2 of them are a batch.
        tokens = torch.stack([d.tokens for d in drawn]).unflatten(1, (per_chunk, batch // 2))
        positions = torch.stack([d.positions for d in drawn]).unflatten(1, (per_chunk, -1))
        segments = torch.stack([d.segments for d in drawn]).unflatten(1, (per_chunk, -1))
        labels = {
            h: torch.stack([d.labels.head(h) for d in drawn]).unflatten(1, (per_chunk, -1))
            for h in task.HEADS
        }
        for i in range(offset, per_chunk):
            bias = transformer.attention_bias(segments[:, i], tokens.shape[-1], device)
            yield tokens[:, i], positions[:, i], bias, {h: x[:, i] for h, x in labels.items()}
        step += per_chunk - offset


def _loss(
    params: Params,
    tokens: Tensor,
    positions: Tensor,
    bias: Tensor,
    labels: dict[str, Tensor],
    bf16: bool = True,
) -> Tensor:
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=bf16):
        run = transformer.forward(params, tokens, positions=positions, bias=bias)
    return losses(run.logits, labels, torch.ones_like(tokens, dtype=torch.bool))


def backward(
    loss_of: Callable[..., Tensor],
    params: Params,
    tokens: Tensor,
    positions: Tensor,
    bias: Tensor,
    labels: dict[str, Tensor],
) -> Tensor:
    """Gradients of one packed batch, and its loss per model. On a CPU a few rows at a time: all
    rows count the same, so the mean over parts of equal size is that over the whole."""
    n_models, rows = tokens.shape[:2]
    at_once = max(1, CPU_ROWS // n_models) if tokens.device.type == "cpu" else rows
    parts = next(k for k in range(-(-rows // at_once), rows + 1) if rows % k == 0)
    total = torch.zeros(n_models, device=tokens.device)
    for part in torch.arange(rows).chunk(parts):
        here = slice(int(part[0]), int(part[-1]) + 1)
        loss = loss_of(
            params,
            tokens[:, here],
            positions[:, here],
            bias[:, here],
            {head: x[:, here] for head, x in labels.items()},
        )
        (loss.sum() / parts).backward()
        total += loss.detach() / parts
    return total


def clip_per_model(gradients: Sequence[Tensor], limit: float) -> None:
    """Clip in place each model's gradient norm, over all its tensors, at `limit`."""
    squares = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0)
    scale = (limit / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for g in gradients:
        g.mul_(scale.reshape(-1, *[1] * (g.ndim - 1)))


def trial_step(models: int, schedule: Schedule, device: torch.device) -> Callable[[], object]:
    """Forward and backward of so many models on one batch, in the precision they will train in."""
    params = {
        n: p.requires_grad_() for n, p in transformer.initialise(range(models), device).items()
    }
    tokens, positions, bias, labels = next(batches([0], schedule, 0, device))
    n = models
    wide = (tokens.expand(n, -1, -1), positions.expand(n, -1, -1), bias)
    targets = {head: label.expand(n, -1, -1) for head, label in labels.items()}

    def step(precision: str) -> Tensor:
        return backward(partial(_loss, bf16=precision == BF16), params, *wide, targets)

    return partial(step, precision_of(schedule.precision, device, step))


def can_compile() -> bool:
    """Whether torch.compile has the C++ compiler that it needs on a CPU."""
    return shutil.which("g++") is not None or shutil.which("clang++") is not None


def train(
    seeds: Sequence[int],
    schedule: Schedule,
    *,
    frozen_io: Params | None = None,
    initial: Params | None = None,
    stream: str = "toy data",
    snapshot_at: Sequence[int] = (),
    device: torch.device | str = "cpu",
    checkpoint: Checkpoint | None = None,
    checkpoint_every: int = 1000,
    progress: Progress = silent,
    compiled: bool | None = None,
    stop_after: int | None = None,
) -> Trained:
    """Train one model per seed, all as one batched program.

    frozen_io: token embedding and unembeddings of one trained model (leading dimension 1),
    copied into every seed and not trained (cohort A, seeds 1 to 4).
    initial: weights to start from, one model a seed, in place of the seeds' own starts. stream: see
    `batches`.
    stop_after: end after this many steps of the same schedule (to compare the first steps of a
    shipped run); such a run has no final accuracies.
    Each seed has its own start and its own stream of data. A seed whose heads reach 99.99 % on
    all distributions ends `patience` steps later; the others train on. What is taken of it is
    what the schedule's `choose` says.
    Raises ValueError for a seed given twice.
    """
    check_seeds("training of toys", seeds)
    device = torch.device(device)
    params = transformer.initialise(seeds, device)
    if initial is not None:
        params = {name: p.to(device).clone() for name, p in initial.items()}
    if frozen_io is not None:
        for name in transformer.IO_NAMES:
            params[name] = frozen_io[name].to(device).expand_as(params[name]).clone()
    frozen = transformer.IO_NAMES if frozen_io is not None else ()
    trained = {n: p.requires_grad_() for n, p in params.items() if n not in frozen}
    if compiled is None:
        compiled = schedule.steps >= 1000 and (device.type == "cuda" or can_compile())
    # A graph replays fixed places in memory; SGD makes its buffers anew, and a basis its gradients.
    as_usual = (schedule.optimiser, schedule.optimiser_basis) == (ADAMW, STANDARD)
    captured = compiled and device.type == "cuda" and as_usual
    held = Held(trained, bases(seeds, schedule, device))
    first_rate = schedule.rate(0)
    optimiser = optimiser_of(
        held.params.values(),
        schedule,
        torch.tensor(first_rate, device=device) if captured else first_rate,
        captured=captured,
    )
    state = TrainingState(len(seeds), BUFFERS[schedule.optimiser], schedule.begin)
    saved = resume(checkpoint, device=device.type)  # data are drawn there, and not alike elsewhere
    if saved is not None:
        state.restore(saved, params, optimiser, held)

    drawn = batches(seeds, schedule, state.step, device, stream)
    first = next(drawn)

    def trial(precision: str) -> None:
        weights = {n: p.detach().clone().requires_grad_() for n, p in params.items()}
        backward(partial(_loss, bf16=precision == BF16), weights, *first)

    precision = precision_of(schedule.precision, device, trial)
    begin_stretch(state.precision, state.step, precision)
    loss_of = partial(
        torch.compile(_loss, dynamic=False) if compiled else _loss, bf16=precision == BF16
    )

    def step(tokens: Tensor, positions: Tensor, bias: Tensor, *labels: Tensor) -> Tensor:
        optimiser.zero_grad()
        by_head = dict(zip(task.HEADS, labels, strict=True))
        loss = backward(loss_of, params, tokens, positions, bias, by_head)
        clip_per_model([p.grad for p in trained.values() if p.grad is not None], schedule.clip)
        held.take_gradients()
        optimiser.step()
        held.give_weights()
        return loss

    take = CudaGraph(step) if captured else step
    stage = f"toy seeds {', '.join(map(str, seeds))}"
    end = min(schedule.steps, stop_after or schedule.steps)
    coming = chain([first], drawn)
    while state.step < end and not state.all_stopped:
        group, rate = optimiser.param_groups[0], schedule.rate(state.step)
        group["lr"] = group["lr"].fill_(rate) if captured else rate
        tokens, positions, bias, labels = next(coming)
        loss = take(tokens, positions, bias, *(labels[head] for head in task.HEADS))
        state.after_step(loss, params, snapshot_at)
        if state.step % schedule.evaluate_every == 0 or state.step == schedule.steps:
            state.evaluate(params, schedule, keep_snapshots=bool(snapshot_at))
        if checkpoint is not None and state.step % checkpoint_every == 0:
            checkpoint.save(state.to_artifact(params, optimiser, held))
        if state.step % 20 == 0 or state.step == end:
            progress(stage, state.step, end, state.note())
    return state.finish(tuple(seeds), params, schedule)
