"""Training GPT-NeoX language models from scratch, one after another, resumable."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyrot.cohorts import departures
from polyrot.language.architecture import neox_config
from polyrot.language.eight_bit import pack, unpack
from polyrot.runtime.device import BF16, Stretches, begin_stretch, precision_of
from polyrot.runtime.progress import Progress, silent
from polyrot.runtime.seeding import derive, torch_generator
from polyrot.store import Artifact, Checkpoint
from polyrot.store.resuming import resume

if TYPE_CHECKING:
    from transformers import GPTNeoXForCausalLM

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast; the betas, the warm-up share and the decay are Pythia's (Biderman et
    al. 2023, arXiv 2304.01373, table 6). batch: sequences of one context each."""

    steps: int
    batch: int = 32
    peak_rate: float = 3e-3
    warmup_share: float = 0.01
    final_share: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0
    precision: str = BF16
    evaluate_every: int = 250

    def recipe(self) -> dict[str, Any]:
        """What a fingerprint needs to know."""
        return {**asdict(self), "betas": list(self.betas)}

    def departures(self, width: int, seeds: int, text: str, bits: int) -> tuple[str, ...]:
        """How models of that width, so many, trained on it on that text and kept in so many bits a
        weight depart from the paper's, in sentences."""
        made = {"width": width, "seeds": seeds, "steps": self.steps, "text": text, "bits": bits}
        return departures.departures("language models", departures.LANGUAGE_MODELS, made)

    def rate(self, step: int) -> float:
        """Learning rate of the 0-based `step`: linear warm-up, cosine to `final_share`."""
        warmup = max(1, round(self.warmup_share * self.steps))
        if step < warmup:
            return self.peak_rate * (step + 1) / warmup
        done = (step - warmup) / max(1, self.steps - warmup)
        floor = self.final_share
        return self.peak_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))


SNAPSHOT_SHARES = (0.02, 0.06, 0.16, 0.4, 0.7, 1.0)
"""Of the training, at which the first seed is kept."""


def snapshot_steps(steps: int) -> list[int]:
    """Steps at which the first seed is kept, the last included."""
    return sorted({max(1, round(share * steps)) for share in SNAPSHOT_SHARES})


@dataclass(frozen=True)
class Trained:
    """One trained model, rounded to what is stored (see `polyrot.language.eight_bit`).

    snapshots: step -> weights. history: {"step", "loss"} on held-out text, nats a token.
    loss: of the stored weights; loss_before: of the same before rounding. text: sha256 of the
    tokens that it was trained on, empty where that was not kept.
    """

    seed: int
    weights: Weights
    snapshots: dict[int, Weights]
    early_losses: list[float]
    history: list[dict[str, float]]
    loss: float
    loss_before: float
    seconds: float
    device: str
    precision: Stretches = field(default_factory=list)
    text: str = ""

    def to_artifact(self) -> Artifact:
        """Plain tensors and values, for the store."""
        tensors = {f"weights.{n}": w for n, w in pack(self.weights).items()}
        for step, weights in self.snapshots.items():
            tensors |= {f"snapshot.{step}.{n}": w for n, w in pack(weights).items()}
        meta = asdict(self)
        del meta["weights"], meta["snapshots"]
        return Artifact(tensors, meta)

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Trained:
        """What `to_artifact` wrote, then or before the text was kept; what shipping says of the
        file itself is left out."""
        packed: dict[int | None, Weights] = {}
        for name, tensor in artifact.tensors.items():
            kind, _, rest = name.partition(".")
            step = None
            if kind == "snapshot":
                number, _, rest = rest.partition(".")
                step = int(number)
            packed.setdefault(step, {})[rest] = tensor
        weights = unpack(packed.pop(None))
        snapshots = {s: unpack(w) for s, w in sorted(packed.items()) if s is not None}
        known = {each.name for each in fields(cls)} & artifact.meta.keys()
        meta = {name: artifact.meta[name] for name in known}
        return cls(weights=weights, snapshots=snapshots, **meta)


def model_of(
    width: int,
    vocabulary: int,
    context: int,
    weights: Weights | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> GPTNeoXForCausalLM:
    """A model with the given weights, or as `seed` starts it (transformers' own initialisation)."""
    from transformers import GPTNeoXForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "language start") % 2**63)
        model = GPTNeoXForCausalLM(neox_config(width, vocabulary, context))
    if weights is not None:
        model.load_state_dict(weights)
    nn.Module.to(model, device)
    return model.eval().requires_grad_(False)


def crops(tokens: Tensor, seed: int, batch: int, context: int, first: int) -> Iterator[Tensor]:
    """Batches int64 [batch, context] from step `first` on: windows at uniform places of `tokens`,
    by each seed's own draws."""
    step = first
    while True:
        generator = torch_generator(seed, "language data", step)
        start = torch.randint(len(tokens) - context, (batch, 1), generator=generator)
        yield tokens[start + torch.arange(context)].long()
        step += 1


def _loss(model: nn.Module, tokens: Tensor, bf16: bool = True) -> Tensor:
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=bf16):
        logits = model(input_ids=tokens, use_cache=False).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten())


def trial_step(
    width: int, vocabulary: int, context: int, schedule: Schedule, device: torch.device | str
) -> Callable[[], object]:
    """Forward and backward of one language model on one batch, in the precision it trains in."""
    model = model_of(width, vocabulary, context, device=device)
    model.train().requires_grad_(True)
    tokens = torch.zeros(schedule.batch, context, dtype=torch.int64, device=device)

    def step(precision: str) -> None:
        _loss(model, tokens, precision == BF16).backward()

    return partial(step, precision_of(schedule.precision, torch.device(device), step))


@torch.no_grad()
def held_out_loss(model: nn.Module, tokens: Tensor, chunk: int = 64) -> float:
    """Mean next-token cross-entropy in nats over tokens int64 [sequences, position], fp32."""
    total = 0.0
    for part in tokens.split(chunk):
        logits = model(input_ids=part, use_cache=False).logits
        flat = F.cross_entropy(logits[:, :-1].flatten(0, 1), part[:, 1:].flatten(), reduction="sum")
        total += float(flat)
    return total / (tokens.shape[0] * (tokens.shape[1] - 1))


def train(
    seed: int,
    schedule: Schedule,
    tokens: Tensor,
    held_out: Tensor,
    *,
    width: int,
    vocabulary: int,
    snapshot_at: Sequence[int] = (),
    device: torch.device | str = "cpu",
    checkpoint: Checkpoint | None = None,
    checkpoint_every: int = 250,
    progress: Progress = silent,
    compiled: bool = False,
    stop_after: int | None = None,
) -> Trained:
    """Train one model from its own start on its own order of the data.

    tokens: the corpus, int [tokens]. held_out: int64 [sequences, context], which the loss is
    measured on. stop_after: end after this many steps of the same schedule. A checkpoint of another
    corpus or kind of device is not resumed, which a StoreWarning says.
    Raises FloatingPointError where the loss is not finite.
    """
    device, context = torch.device(device), held_out.shape[1]
    model = model_of(width, vocabulary, context, seed=seed, device=device)
    model.train().requires_grad_(True)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(
        groups,
        betas=schedule.betas,
        weight_decay=schedule.weight_decay,
        fused=True,
    )
    state = _State(model, optimiser)
    text = hashlib.sha256(tokens.contiguous().numpy().data).hexdigest()
    made_with = {"text": text, "device": device.type}
    saved = resume(checkpoint, **made_with)
    if saved is not None:
        state.restore(saved)
    held_out = held_out.to(device)
    end = min(schedule.steps, stop_after or schedule.steps)
    loss_of: Callable[..., Tensor] = torch.compile(_loss) if compiled else _loss
    first = next(crops(tokens, seed, schedule.batch, context, state.step)).to(device)

    def trial(precision: str) -> None:
        _loss(model, first, precision == BF16).backward()
        optimiser.zero_grad()

    precision = precision_of(schedule.precision, device, trial)
    begin_stretch(state.precision, state.step, precision)
    stream = crops(tokens, seed, schedule.batch, context, state.step)
    while state.step < end:
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(state.step)
        loss = loss_of(model, next(stream).to(device), precision == BF16)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
        optimiser.step()
        optimiser.zero_grad()
        state.after_step(loss.detach(), snapshot_at)
        if state.step % schedule.evaluate_every == 0 or state.step == schedule.steps:
            state.evaluate(held_out)
        if checkpoint is not None and state.step % checkpoint_every == 0 and state.step < end:
            checkpoint.save(state.to_artifact(made_with))
        if state.step % 10 == 0 or state.step == end:
            progress(f"language model, seed {seed}", state.step, end, state.note())
    return state.finish(seed, held_out, text)


N_EARLY = 20  # losses of the first steps, kept so that a retraining can be compared


class _State:
    """What a run knows beside weights and moments: all of it goes into the checkpoint."""

    def __init__(self, model: GPTNeoXForCausalLM, optimiser: torch.optim.Optimizer) -> None:
        self.model, self.optimiser = model, optimiser
        self.step, self.seconds = 0, 0.0
        self.loss = math.nan
        self.early: list[float] = []
        self.history: list[dict[str, float]] = []
        self.snapshots: dict[int, Weights] = {}
        self.resumed = time.monotonic()
        self.precision: Stretches = []

    def weights(self) -> Weights:
        return {n: w.detach().cpu().clone() for n, w in self.model.state_dict().items()}

    def after_step(self, loss: Tensor, snapshot_at: Sequence[int]) -> None:
        self.step += 1
        if len(self.early) < N_EARLY:
            self.early.append(float(loss))
        if self.step in snapshot_at:
            self.snapshots[self.step] = self.weights()
        if self.step % 10 == 0:
            self.loss = float(loss)
            if not math.isfinite(self.loss):
                raise FloatingPointError(
                    f"the loss is {self.loss} at step {self.step}: lower the peak rate "
                    "(pytest claims: another --schedule, or --device cpu)"
                )

    def evaluate(self, held_out: Tensor) -> None:
        self.model.eval()
        self.history.append({"step": self.step, "loss": held_out_loss(self.model, held_out)})
        self.model.train()

    def note(self) -> str:
        text = f"loss {self.loss:.3f}"
        return f"{text}, held out {self.history[-1]['loss']:.4f}" if self.history else text

    def clock(self) -> float:
        """Seconds of training so far, over all processes that shared in it."""
        now = time.monotonic()
        self.seconds += now - self.resumed
        self.resumed = now
        return self.seconds

    def _named(self) -> dict[str, Tensor]:
        return dict(self.model.named_parameters())

    def to_artifact(self, made_with: Mapping[str, str]) -> Artifact:
        """Plain tensors and values, for the store."""
        tensors = {f"weights.{n}": w for n, w in self.weights().items()}
        for name, p in self._named().items():
            tensors[f"first.{name}"] = self.optimiser.state[p]["exp_avg"]
            tensors[f"second.{name}"] = self.optimiser.state[p]["exp_avg_sq"]
        for step, weights in self.snapshots.items():
            tensors |= {f"snapshot.{step}.{n}": w for n, w in weights.items()}
        meta = {
            **made_with,
            "step": self.step,
            "early": self.early,
            "history": self.history,
            "seconds": self.clock(),
            "precision": self.precision,
        }
        return Artifact({n: t.cpu().contiguous() for n, t in tensors.items()}, meta)

    def restore(self, saved: Artifact) -> None:
        meta, tensors = saved.meta, saved.tensors
        self.step, self.early, self.history = meta["step"], meta["early"], meta["history"]
        self.seconds, self.precision = meta["seconds"], meta.get("precision", [])
        device = next(self.model.parameters()).device
        found: dict[str, Weights] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "snapshot":
                step, _, rest = rest.partition(".")
                self.snapshots.setdefault(int(step), {})[rest] = tensor
            else:
                found.setdefault(kind, {})[rest] = tensor
        self.model.load_state_dict(found["weights"])
        for name, p in self._named().items():
            self.optimiser.state[p] = {
                "step": torch.tensor(float(self.step), device=device),
                "exp_avg": found["first"][name].to(device),
                "exp_avg_sq": found["second"][name].to(device),
            }

    def finish(self, seed: int, held_out: Tensor, text: str) -> Trained:
        self.model.eval().requires_grad_(False)
        before = held_out_loss(self.model, held_out)
        rounded = unpack(pack(self.weights()))
        self.model.load_state_dict(rounded)
        return Trained(
            seed,
            rounded,
            {s: unpack(pack(w)) for s, w in self.snapshots.items()},
            self.early,
            self.history,
            held_out_loss(self.model, held_out),
            before,
            self.clock(),
            held_out.device.type,
            self.precision,
            text,
        )
