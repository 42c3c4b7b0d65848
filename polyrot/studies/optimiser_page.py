"""The page of the study of the optimiser, and its figures: all from the record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from polyrot.studies.figure import Line, intervals
from polyrot.studies.optimiser_arms import ADAM, ARMS, HALF_WAY, SEEDS, SHIPPED
from polyrot.studies.optimiser_predictions import (
    MEASURES,
    OBJECTION,
    PAPER,
    PREDICTIONS,
    Prediction,
    judged,
)
from polyrot.studies.record import Row, rows_of

TAILS, SHARED = "study-optimiser-kurtosis.svg", "study-optimiser-entries.svg"
COMMAND = "polyrot study optimiser --artifacts DIR"
_MEASURED = ("mean_kurtosis", "largest_kurtosis", "battery", "S4", "MX")
_NONE = {"mean_kurtosis": 1.0, "largest_kurtosis": 1.0, "S4": 0.0, "MX": 0.0}
"""What a basis without privilege gives."""
_FRAMES = {
    ("adam", "axes"): "privileged",
    ("rot", "own"): "privileged",
    ("rot", "axes"): "even",
    ("sgd", "axes"): "even",
    ("adam", "random"): "even",
    ("sgd", "random"): "even",
}
"""Every arm and frame; "privileged" where the objection sees a privileged basis."""


def found(record: Mapping[str, Any]) -> dict[tuple[str, str, str], Row]:
    """The rows of a record by measure, arm and where."""
    return {(row.what, row.arm, row.where): row for row in rows_of(record)}


def outcome(prediction: Prediction, record: Mapping[str, Any]) -> str:
    """How a prediction came out, in words; out of reach where its value was not measured or where
    R says nothing."""
    row = found(record).get((prediction.measure, prediction.arm, prediction.frame))
    of_rotation = prediction.measure in ("battery", "S4", "MX")
    why = record["unmet"].get(f"{prediction.arm}/{prediction.frame}", "") if of_rotation else ""
    if row is None or row.low is None or row.high is None or why:
        return "out of reach"
    return judged(prediction, row.low, row.high)


def page(record: Mapping[str, Any] | None) -> str:
    """The page, Markdown; without a record, what is asked and predicted."""
    parts = [_HEAD, _found(record), _predictions(record)]
    if record is not None:
        parts += [_FIGURES, _arms(record), _controls(record), _shipped(record)]
    return "\n".join([*parts, _LIMITS.format(command=COMMAND)])


_HEAD = f"""# Optimiser and basis

The paper explains its Haar rotations by the absence of a preference: nothing in training tells
one direction of the residual stream from another, so every seed's basis is a fair draw. A known
objection (Elhage et al. 2023, [Privileged Bases in the Transformer Residual
Stream](https://transformer-circuits.pub/2023/privileged-basis/index.html)) is that AdamW does
tell them apart: it divides each coordinate of a step by the root of that coordinate's own second
moment. SGD with momentum does not.

Three arms of the toy, with the seeds {SEEDS[0]} to {SEEDS[-1]} of cohort B, {ADAM.steps:,} steps of
{ADAM.batch} sequences, the same data, and no weight shared between seeds:

| arm | optimiser |
| --- | --- |
| adam | AdamW, as everywhere in this suite |
| rot | AdamW in a fixed random basis of the stream, another for each seed |
| sgd | SGD with momentum; its rate chosen on a further seed by training loss alone |

In `rot` every matrix that reads or writes the stream is stepped as it stands in the seed's own
random basis. If AdamW privileges the basis in which it steps, what is special along the
coordinate axes in `adam` is special along that basis in `rot`, and along nothing in `sgd`.

This is a study: it is not registered, has no bar there, and changes no verdict of the ledger. Its
predictions were committed before any of the three arms was trained; of what each interval is was
settled while they trained, before anything of them was measured. Known at that time was cohort B as
it is shipped (see [beside](#beside-cohort-b-as-shipped)): its largest kurtosis along the axes was
1.0 to 2.0 times that along random bases, by site, and the battery rejected none of its rotations.
"""

_FIGURES = f"""
![Mean kurtosis along each frame over that in random frames, with intervals](../pictures/{TAILS})

![S4 of the rotations between siblings, in deviations from its Haar law](../pictures/{SHARED})
"""

_LIMITS = f"""
## What this cannot show

- *The axes are privileged by more than the optimiser, in every arm.* A gain of a norm is one number
  for each coordinate, whatever steps it, and the position features lie in six coordinates. What is
  measured leaves those six out; the gains stay. The hidden coordinates of heads and neurons have
  bases of their own, which nothing here turns.
- *The arms do not learn equally well.* Accuracy and loss are given beside; a difference between
  `sgd` and the others may be one of how much was learnt, its drift above all. It was given as many
  steps as the others and no more. `rot` and `adam` are the fair comparison.
- *Five seeds* make four rotations to an anchor, which are not independent of each other across
  sites. An interval here is over models or pairs and wide; what it leaves open is *undecided*,
  which is no evidence for either side. No interval is corrected for how many predictions there are.
- *A toy*: two layers, 64 dimensions, {ADAM.steps:,} steps. The objection was raised of language
  models, whose heavy coordinates come with scale and long training.

## Again

```sh
{{command}}
```

trains what is missing (seed by seed; a killed run goes on), measures, and writes the record
`docs/studies/records/study-optimiser.json`, this page and its figures. `--page` writes page and
figures from the record alone.
"""


def _found(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return (
            "## What was found\n\nNothing yet: the arms are still being trained. The predictions "
            "below stand as they were committed.\n"
        )
    apart = [p for p in PREDICTIONS if p.tells_apart]
    checks = [p for p in PREDICTIONS if not p.tells_apart]
    return "\n".join(
        [
            "## What was found",
            "",
            f"Of the {len(apart)} predictions that tell the two explanations apart: "
            f"{_counted(apart, record)}.",
            "",
            f"Of the {len(checks)} on which both agree: {_counted(checks, record)}.",
            "",
            _in_a_word(apart, record),
            "",
            _beyond_nothing(record),
            "",
            _by_site(record),
            "",
        ]
    )


def _counted(predictions: list[Prediction], record: Mapping[str, Any]) -> str:
    counts = Counter(outcome(p, record) for p in predictions)
    return ", ".join(f"{n} {words}" for words, n in counts.most_common())


def _in_a_word(apart: list[Prediction], record: Mapping[str, Any]) -> str:
    outcomes = [outcome(p, record) for p in apart]
    paper, objection = (f"as {side} predicts" in outcomes for side in (PAPER, OBJECTION))
    if paper and objection:
        return "The evidence is divided: some measures speak for either explanation."
    if objection:
        return "What was decided speaks for the objection: the optimiser's basis is privileged."
    if paper:
        undecided = [f"{p.measure} of {p.arm}" for p in apart if outcome(p, record) == "undecided"]
        open_ones = f"; {', '.join(undecided)}: undecided" if undecided else ""
        return (
            "What was decided speaks for the paper's explanation, at this scale: no measure that "
            "was decided shows a privilege of the basis in which AdamW steps beyond its limit"
            f"{open_ones}."
        )
    return "Nothing was decided between the two."


def _beyond_nothing(record: Mapping[str, Any]) -> str:
    """A weaker question than the predictions': does anything show at all, whatever the limit?"""
    rows = found(record)
    frames = {
        **_FRAMES,
        (SHIPPED, "axes"): "privileged",
        (SHIPPED, "random"): "even",
        ("copies", "random"): "even",
    }
    said_of = {}
    for kind in ("privileged", "even"):
        each = [
            row
            for what, none in _NONE.items()
            for (arm, frame), of in frames.items()
            if of == kind and (row := rows.get((what, arm, frame))) and row.low is not None
        ]
        above = [row for row in each if (row.low or 0.0) > _NONE[row.what]]
        named = ", ".join(f"{r.what.replace('_', ' ')} of {r.arm}, {r.where}" for r in above)
        said_of[kind] = f"{len(above)} of {len(each)}" + (f" ({named})" if named else "")
    return (
        "A weaker question, asked afterwards: which intervals lie wholly above what a basis "
        "without privilege gives (a ratio of 1 for kurtosis, 0 for S4 and MX), however little? In "
        "the frames in which AdamW stepped, those of cohort B as shipped included, "
        f"{said_of['privileged']}; in frames that neither explanation calls special, "
        f"{said_of['even']}. One in forty does by chance, and those of one arm are not independent."
    )


def _by_site(record: Mapping[str, Any]) -> str:
    """The mean kurtosis of single sites, over which the predictions take the mean."""
    frames = [frame for frame, kind in _FRAMES.items() if kind == "privileged"]
    at_sites = [
        row
        for row in rows_of(record)
        if row.what == "mean_kurtosis"
        and any(row.arm == arm and row.where.startswith(f"{where}, ") for arm, where in frames)
    ]
    if not at_sites:
        return ""
    low, high = (of(at_sites, key=lambda row: row.value) for of in (min, max))
    ends = " to ".join(f"{said(row)} ({row.arm}, {row.where})" for row in (low, high))
    return (
        "Site by site, which no prediction speaks of, the mean kurtosis in the frames in which the "
        f"arms' AdamW stepped is {ends}: the extremes of {len(at_sites)}."
    )


def _predictions(record: Mapping[str, Any] | None) -> str:
    lines = [
        "## What was predicted",
        "",
        *(f"- *{name.replace('_', ' ')}*: {text}." for name, text in MEASURES.items()),
        "",
        "Frames: *axes*, the coordinates; *own*, the basis of each seed's optimiser. A value whose "
        "whole 95 % interval lies on one side of the limit is as that side predicts.",
        "",
        "| measure | arm | frame | limit | up to it | above it |"
        + (" measured | came out |" if record else ""),
        "| --- | --- | --- | --- | --- | --- |" + (" --- | --- |" if record else ""),
    ]
    for p in PREDICTIONS:
        sides = [side or "neither" for side in (p.low, p.high)]
        cells = [p.measure.replace("_", " "), p.arm, p.frame, f"{p.limit:g}", *sides]
        if record:
            row = found(record).get((p.measure, p.arm, p.frame))
            cells += [said(row), outcome(p, record)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def said(row: Row | None) -> str:
    """A value and its interval, in words."""
    if row is None:
        return "not measured"
    if row.what == "battery":
        span = "" if row.low == row.high else f" ({row.low:g} to {row.high:g})"
        return f"{row.value:g} of {row.n}{span}"
    ends = "" if row.low is None else f" ({row.low:.3g} to {row.high:.3g})"
    return f"{row.value:.3g}{ends}"


def _arms(record: Mapping[str, Any]) -> str:
    rows = found(record)
    lines = [
        "## The arms",
        "",
        "| arm | peak rate | lowest accuracy | training loss | half-way to end, share of Haar |",
        "| --- | --- | --- | --- | --- |",
    ]
    for arm in ARMS:
        cells = [
            arm,
            f"{record['schedules'][arm]['peak_rate']:g}",
            *(
                said(rows.get((what, arm, "axes")))
                for what in ("lowest_accuracy", "training_loss", "drift_share")
            ),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    trial = ", ".join(
        f"{'diverged' if loss is None else f'{loss:.3g}'} at {rate}"
        for rate, loss in record["trial"].items()
    )
    unmet = [f"- {where}: {why}." for where, why in record["unmet"].items()]
    return "\n".join(
        [
            *lines,
            "",
            f"Half-way is step {HALF_WAY:,}. The rate trial of `sgd`: loss {trial}. Trained on "
            f"{record['device']}, {record['seconds'] / 60:.0f} minutes of training all told, on "
            f"cores that had other work; {record['date']}.",
            "",
            *([*unmet, ""] if unmet else []),
        ]
    )


def _controls(record: Mapping[str, Any]) -> str:
    rows = found(record)
    lines = [
        "## Controls",
        "",
        "The same code on bases that are known: exact copies of the anchor of `adam`, each turned "
        "at random (nothing may show); a random frame in which every coordinate's tails are made "
        "heavier by a power; siblings of which some axes are the anchor's, permuted, and the "
        "rest a Haar draw, as noisy as real siblings; and the arms `adam` and `sgd` in the random "
        "frames that are `rot`'s own.",
        "",
        f"| what | {' | '.join(name.replace('_', ' ') for name in _MEASURED)} |",
        "| --- " * (1 + len(_MEASURED)) + "|",
    ]
    arms = dict.fromkeys(arm for _, arm, where in rows if where == "random")
    for arm in (arm for arm in arms if arm != SHIPPED):
        cells = [said(rows.get((name, arm, "random"))) for name in _MEASURED]
        shown = ["" if cell == "not measured" else cell for cell in cells]
        lines.append(f"| {arm} | {' | '.join(shown)} |")
    return "\n".join([*lines, ""])


def _shipped(record: Mapping[str, Any]) -> str:
    rows = found(record)
    frames = [where for where in ("axes", "random") if ("S4", SHIPPED, where) in rows]
    if not frames:
        return ""

    def line(frame: str) -> str:
        cells = [said(rows.get((name, SHIPPED, frame))) for name in _MEASURED]
        return f"| {frame} | {' | '.join(cells)} |"

    return "\n".join(
        [
            "## Beside: cohort B as shipped",
            "",
            "AdamW for up to 60,000 steps at a batch of 512, from the same seeds, seed 103 as it "
            "had ended at step 31,500, from which it was trained on since. Measured in the same "
            "way, while the arms trained; nothing was predicted of it.",
            "",
            f"| frame | {' | '.join(name.replace('_', ' ') for name in _MEASURED)} |",
            "| --- " * (1 + len(_MEASURED)) + "|",
            *map(line, frames),
            "",
        ]
    )


def _lines(record: Mapping[str, Any], measure: str) -> Iterator[Line]:
    rows = found(record)
    for (arm, frame), colour in _FRAMES.items():
        row = rows.get((measure, arm, frame))
        if row is not None:
            yield Line(f"{ARMS[arm]}; {frame}", row, colour)
    for (what, arm, where), row in rows.items():
        if what == measure and where == "random" and arm not in (*ARMS, SHIPPED):
            yield Line(f"planted: {arm}", row, "planted")


def pictures(record: Mapping[str, Any]) -> dict[str, str]:
    """The two figures by file name."""
    tails = intervals(
        "Mean kurtosis along a frame, over that in random frames",
        list(_lines(record, "mean_kurtosis")),
        1.1,
        (0.8, 1, 1.25, 1.6, 2),
        log=True,
    )
    entries = intervals(
        "S4 of R between siblings, standard deviations from Haar",
        list(_lines(record, "S4")),
        1.0,
        (-2, 0, 2, 4, 6),
    )
    return {TAILS: tails, SHARED: entries}
