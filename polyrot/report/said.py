"""Names as a report says them in plain words: pairs of seeds, sections, statuses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from polyrot.judge.verdicts import place

STATUS_WORDS = {
    "core": ("core claim", "core claims"),
    "sharp": ("stricter form", "stricter forms"),
    "supporting": ("supporting claim", "supporting claims"),
    "prediction": ("prediction", "predictions"),
    "control": ("control", "controls"),
}
"""Of one and of several; a stricter form says what a claim must mean to be true in substance."""

SCALE_WORDS = {
    "paper": "arithmetic on the paper's own figures",
    "toy_a": "toy transformers that share the first seed's input and output weights",
    "toy_b": "toy transformers with nothing shared",
    "neox": "GPT-NeoX language models with nothing shared",
    "pythia": "Pythia-70m, seeds 1 to 9",
    "pair": "the two checkpoints given with --pair",
}


def label_words(label: str) -> str:
    """A label of a value, with its pairs of seeds as such.

    >>> label_words("0-1 resid_post_1")
    'seeds 0 → 1, resid_post_1'
    >>> label_words("100-102 100-103 resid_mid_1")
    'seeds 100 → 102, 100 → 103, resid_mid_1'
    >>> label_words("seed 2"), label_words("resid_post_5 - resid_post_1")
    ('seed 2', 'resid_post_5 - resid_post_1')
    """
    return place(label).replace(" -> ", " → ")


def why_words(why: str, label: str) -> str:
    """A reason that names the value at `label`, with that label in words.

    >>> why_words("worst 0.9 at 0-4 (95 % 0.8 to 0.95), bar ≥ 0.99", "0-4")
    'worst 0.9 at seeds 0 → 4 (95 % 0.8 to 0.95), bar ≥ 0.99'
    """
    if not label:
        return why
    said = f" at {label_words(label)}"
    return why.replace(f" at {place(label)}", said).replace(f" at {label}", said)


def section_words(sections: Iterable[str]) -> str:
    """Registered sections, each with whose it is. Without a name they are the post's; "paper"
    speaks for what follows it.

    >>> section_words(["3", "3", "paper 8.1, 8.4"])
    'post, section 3; paper, sections 8.1 and 8.4'
    >>> section_words(["title, 9", "TL;DR", "paper 8.5, abstract"])
    'post, title, section 9 and TL;DR; paper, section 8.5 and abstract'
    """
    found: dict[str, dict[str, None]] = {}
    for text in sections:
        of = "post"
        for part in text.split(", "):
            if part.startswith("paper "):
                of, part = "paper", part.removeprefix("paper ")
            found.setdefault(of, {})[part] = None
    order = sorted(found, reverse=True)  # the post first
    return "; ".join(f"{of}, {_numbered(list(found[of]))}" for of in order)


def _numbered(parts: Sequence[str]) -> str:
    numbers = sum(part[0].isdigit() for part in parts)
    named = "sections" if numbers > 1 else "section"
    said, before = [], False
    for part in parts:
        number = part[0].isdigit()
        said.append(f"{named} {part}" if number and not before else part)
        before = before or number
    return listed(said)


def listed(parts: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
