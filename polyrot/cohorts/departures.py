"""How what is trained here departs from the paper's protocol: one table, sentences made from it.

Departures follow from what decides an artifact (its schedule, its sparsity), so that old artifacts
know theirs too. Where the paper's text and its public pipeline differ, either is the protocol. On
what device something was made is said where that is recorded and changed on the way; the paper
names none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from polyrot.runtime.device import BF16, FLOAT32


@dataclass(frozen=True)
class Rule:
    """What the paper does in one respect.

    what: how ours is said, with {} for the value. follows: the values that follow the paper, of its
    text, then of its pipeline where that differs. paper: how the paper's is said, if not by its
    values.
    """

    what: str
    follows: tuple[object, ...]
    paper: str = ""


TOYS = {
    "steps": Rule("at most {} steps", (60_000, 30_000)),
    "batch": Rule("batches of {} sequences", (512,)),
    "warmup": Rule("{} warm-up steps", (500,)),
    "peak_rate": Rule("a peak rate of {}", (3e-3,)),
    "final_share": Rule("a last rate of {} times the peak", (0.02,)),
    "betas": Rule("AdamW's betas {}", ((0.9, 0.95),)),
    "weight_decay": Rule("a weight decay of {}", (1e-4,)),
    "optimiser": Rule("{} as optimiser", ("adamw",), "AdamW"),
    "optimiser_basis": Rule("an optimiser in a {} basis", ("standard",), "the standard one"),
    "clip": Rule("gradients clipped at {}", (1.0,)),
    "precision": Rule("{}", (BF16,)),
    "patience": Rule("an end {} steps after the goal is first met", (10_000, 3_000)),
    "evaluate_every": Rule("a stop rule every {} steps", (500,)),
    "evaluation_sequences": Rule("a stop rule on {} sequences of each distribution", (2048,)),
    "choose": Rule("the {} weights of a run", ("best",), "the best of those evaluated"),
    "late_violations": Rule("a share of {} late violations in the data", (0.0,), "none"),
    "full_context": Rule("a share of {} sequences of full context", (0.0,), "none"),
    "hidden_closers": Rule("a share of {} hidden closers in the data", (0.0,), "none"),
    "shallow_walks": Rule("a share of {} shallow walks in the data", (0.0,), "none"),
    "cycle": Rule("cycles of {} further steps for seeds that miss the goal", (0,), "none"),
    "onward": Rule("fresh moments for seeds that ended before step {} and go on", (0,), "none"),
}
"""Training of the toy's transformers, by field of `polyrot.toy.schedule.Schedule`."""

LANGUAGE_MODELS = {
    "width": Rule("GPT-NeoX of width {}", (512,), "Pythia-70m's 512"),
    "seeds": Rule("{} seeds", (9,)),
    "steps": Rule("{} steps", (143_000,)),
    "text": Rule("trained on {}", ("The Pile",)),
    "bits": Rule("weights rounded to {} bits", (16, 32), "them as they were trained"),
}
"""The paper's language models are Pythia-70m's seeds (arXiv 2304.01373, 2503.09543)."""

_DICTIONARIES = {
    "batch": Rule("batches of {}", (4096,)),
    "rate": Rule("a rate of {}", (5e-4,)),
    "precision": Rule("{}", (FLOAT32,)),
}
TOY_DICTIONARIES = {
    **_DICTIONARIES,
    "steps": Rule("{} steps", (6000, 4000)),
    "l1": Rule("an l1 of {}", (1e-3,)),
}
LANGUAGE_DICTIONARIES = {
    **_DICTIONARIES,
    "steps": Rule("{} steps", (4000,)),
    "l1": Rule("an l1 of {}", (1e-5,)),
}
"""Training of SAEs and transcoders, of the toy and of language models."""
TOY_CHECKPOINTS = {"steps": Rule("{} steps", (3000,))}
LANGUAGE_CHECKPOINTS = {"l1": Rule("an l1 of {}", (1e-3,))}
"""In what the dictionaries of one run's checkpoints are otherwise."""


def of_dictionaries(
    made: Mapping[str, object], language: bool, checkpoints: bool
) -> tuple[str, ...]:
    """Departures of the dictionaries of language models or toys, of a run's checkpoints or of
    seeds; `made` as in `departures`."""
    usual = LANGUAGE_DICTIONARIES if language else TOY_DICTIONARIES
    other = (LANGUAGE_CHECKPOINTS if language else TOY_CHECKPOINTS) if checkpoints else {}
    subject = "language models' dictionaries" if language else "toys' dictionaries"
    plain = {name: value for name, value in made.items() if name not in other}
    rest = {name: value for name, value in made.items() if name in other}
    return (
        *departures(subject, usual, plain),
        *departures(f"{subject} of checkpoints", other, rest),
    )


BAR_B = {"positions": Rule("{} positions", (10_000_000,))}
"""The sample of the behavioural bar."""


def of_bar_b(positions: int) -> tuple[str, ...]:
    """Whether Bar B over so many positions departs from the paper's, in a sentence."""
    return departures("Bar B", BAR_B, {"positions": positions})


def departures_of(value: object) -> tuple[str, ...]:
    """What is said by anything that knows its `departures`, a cohort, a shelf of dictionaries, a
    workshop; none of anything else.

    >>> departures_of(object())
    ()
    """
    found = getattr(value, "departures", ())
    return tuple(found) if isinstance(found, tuple) else ()


def departures(
    subject: str, protocol: Mapping[str, Rule], made: Mapping[str, object]
) -> tuple[str, ...]:
    """One sentence for each value of `made` that is none of the protocol's.

    subject: what was made, which the sentences begin with. made: by the protocol's names; what it
    leaves out is not compared. Raises KeyError for a name that the protocol does not have.

    >>> departures("toys", TOYS, {"batch": 128, "patience": 3000})
    ('toys: batches of 128 sequences where the paper takes 512',)
    """
    found = []
    for name, value in made.items():
        rule = protocol[name]
        if value in rule.follows:
            continue
        paper = rule.paper or " or ".join(map(_shown, rule.follows))
        found.append(f"{subject}: {rule.what.format(_shown(value))} where the paper takes {paper}")
    return tuple(found)


def _shown(value: object) -> str:
    if isinstance(value, tuple | list):
        return " and ".join(map(_shown, value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)
