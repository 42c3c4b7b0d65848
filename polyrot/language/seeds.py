"""The language-model cohort that is trained here, through the store: scale `neox`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from polyrot.defaults import PYTHIA_WIDTH, WIDTH
from polyrot.language import architecture, corpus, training
from polyrot.language.corpus import Evaluation
from polyrot.language.training import Schedule, Trained, Weights, model_of
from polyrot.runtime import threads
from polyrot.runtime.commands import run
from polyrot.runtime.device import BY_HARDWARE, memory_for, resolve_device
from polyrot.runtime.progress import ConsoleProgress
from polyrot.store import Artifact, Checkpoint, Runtime, Store, check_writable, fingerprint

if TYPE_CHECKING:
    from transformers import GPTNeoXForCausalLM

RECIPE_VERSION = 1  # raise when a change of code changes what a training produces
KIND = "language-seeds"

FULL = Schedule(steps=12_000, batch=64, precision=BY_HARDWARE)
"""For a GPU."""
SHIPPED = Schedule(steps=3000)
"""The schedule of the shipped seeds, for two CPU cores."""
TINY = Schedule(steps=30, batch=4, evaluate_every=15, precision=BY_HARDWARE)
"""A schedule that trains nothing worth judging, to try the machinery in a minute."""

TRAINING_MEMORY_REMEDY = (
    "lower --neox-width (--width of polyrot.language.seeds), or use --schedule shipped, which "
    "takes half as many sequences a step as full, or --device cpu"
)
"""What a training that does not fit on a GPU can do without."""


def seeds(width: int = WIDTH) -> tuple[int, ...]:
    """Five seeds; nine, as the paper's, at Pythia-70m's width."""
    return tuple(range(200, 209 if width >= PYTHIA_WIDTH else 205))


@dataclass(frozen=True)
class Training:
    """One training: which seed, how wide, how long."""

    seed: int
    width: int
    schedule: Schedule

    @property
    def keeps_snapshots(self) -> bool:
        """The first seed is kept on its way, for drift."""
        return self.seed == seeds(self.width)[0]

    def recipe(self, on: Evaluation) -> dict[str, object]:
        """What decides it, for its fingerprint."""
        return {
            "version": RECIPE_VERSION,
            "seed": self.seed,
            "schedule": self.schedule.recipe(),
            "config": architecture.recipe(
                architecture.neox_config(self.width, corpus.VOCABULARY, corpus.CONTEXT)
            ),
            "text": on.fingerprint,
            "snapshots": self.keeps_snapshots,
        }

    def fingerprint(self, on: Evaluation) -> str:
        """Of the recipe."""
        return fingerprint(KIND, self.recipe(on))


def trainings(schedule: Schedule, width: int = WIDTH) -> list[Training]:
    """Those that make the cohort."""
    return [Training(seed, width, schedule) for seed in seeds(width)]


def departures(
    schedule: Schedule, width: int = WIDTH, results: Sequence[Trained] = ()
) -> tuple[str, ...]:
    """How the cohort's models depart from the paper's, in sentences. results: its seeds, of which
    it is said where they were not trained on one text, as where Pythons of more than one release
    trained them; of seeds whose text was not kept nothing is known."""
    text = "the source of Python's standard library"
    found = schedule.departures(width, len(seeds(width)), text, bits=8)
    by_text: dict[str, list[str]] = {}
    for result in results:
        by_text.setdefault(result.text, []).append(str(result.seed))
    by_text.pop("", None)
    if len(by_text) < 2:
        return found
    groups = "; ".join(f"seeds {', '.join(each)}" for each in by_text.values())
    return (
        *found,
        f"language models: trained on {len(by_text)} texts that differ, as Pythons of more than "
        f"one release have them ({groups}), where the paper's are trained on one",
    )


def trained(
    runtime: Runtime,
    training_: Training,
    on: Evaluation,
    *,
    compiled: bool | None = None,
) -> Trained:
    """The result of one training: shipped, cached, or made now (resuming where it was left).

    Raises torch.OutOfMemoryError saying what to lower; else as `polyrot.language.training.train`.
    """
    schedule, store = training_.schedule, runtime.store

    def build(checkpoint: Checkpoint) -> Artifact:
        steps = training.snapshot_steps(schedule.steps) if training_.keeps_snapshots else []
        fast = schedule.steps >= 1000 and runtime.device == "cuda"
        what = f"training at width {training_.width} on {schedule.batch} sequences a step"
        with memory_for(what, runtime.device, TRAINING_MEMORY_REMEDY):
            return training.train(
                training_.seed,
                schedule,
                corpus.training_tokens(store, on),
                on.tokens["fit"],
                width=training_.width,
                vocabulary=corpus.VOCABULARY,
                snapshot_at=steps[:-1],
                device=runtime.device,
                checkpoint=checkpoint,
                progress=runtime.progress,
                compiled=fast if compiled is None else compiled,
            ).to_artifact()

    name = f"{training_.width}-{training_.seed}"
    return Trained.from_artifact(store.get_or_build(KIND, training_.recipe(on), build, name=name))


def model(
    width: int, weights: Weights | None = None, *, seed: int = 0, device: str = "cpu"
) -> GPTNeoXForCausalLM:
    """A model of the cohort with the given weights, or as `seed` starts it."""
    shape = (width, corpus.VOCABULARY, corpus.CONTEXT)
    return model_of(*shape, weights, seed=seed, device=device)


def main(given: Sequence[str] | None = None) -> int:
    """Command line: train or resume the cohort, or some of its seeds, into a store; the exit
    status."""
    parser = argparse.ArgumentParser(
        prog="python -m polyrot.language.seeds",
        description="Train the language models of scale neox on the standard library's source, or "
        "resume where a killed run left off.",
    )
    parser.add_argument("--artifacts", type=Path, required=True, help="the store to train into")
    parser.add_argument("--schedule", choices=["full", "shipped", "tiny"], default="shipped")
    parser.add_argument(
        "--width", type=int, default=WIDTH, help="128 (default), or 512: nine of Pythia-70m's shape"
    )
    parser.add_argument("--seeds", help="only these, as 200,202 (default: the whole cohort)")
    parser.add_argument(
        "--device", type=resolve_device, default="cpu", help="auto, cpu (default) or cuda"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    arguments = parser.parse_args(given)
    known = list(map(str, seeds(arguments.width)))
    wanted = arguments.seeds.split(",") if arguments.seeds else known
    for seed in wanted:
        if seed not in known:
            parser.error(f"--seeds: no seed {seed!r}; the cohort has {', '.join(known)}")
    return run(lambda: _train(arguments, wanted))


def _train(arguments: argparse.Namespace, wanted: Sequence[str]) -> None:
    check_writable(arguments.artifacts)
    threads.settle(arguments.threads)
    schedule = {"full": FULL, "shipped": SHIPPED, "tiny": TINY}[arguments.schedule]
    runtime = Runtime(Store(arguments.artifacts), arguments.device, ConsoleProgress())
    on = corpus.evaluation(runtime.store)
    for each in trainings(schedule, arguments.width):
        if str(each.seed) in wanted:
            result = trained(runtime, each, on)
            print(
                f"seed {each.seed}: held-out loss {result.loss:.4f} nats a token, "
                f"{result.loss_before:.4f} before rounding, in {result.seconds:.0f} s"
            )


if __name__ == "__main__":
    sys.exit(main())
