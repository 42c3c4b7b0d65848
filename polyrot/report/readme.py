"""What the documents in the checkout say of results: made from the ledger, the registration and the
schedules of what is shipped, and from nothing else.

`python -m polyrot.report readme` writes README.md's findings, pictures, words and core results,
the departures in claims/LIMITS.md, and claims/VERDICTS.md whole; a test compares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from polyrot.cohorts.departures import of_bar_b
from polyrot.defaults import POSITIONS
from polyrot.judge.bar import Bar
from polyrot.judge.ledger import Entry, Ledger
from polyrot.judge.registration import STATUSES, Registration
from polyrot.judge.verdicts import Verdict, place
from polyrot.judge.written import claim_tests
from polyrot.report import every_claim, pictures, records
from polyrot.report.frontier import frontier
from polyrot.report.markdown import escaped, row
from polyrot.runtime.files import write_atomically
from polyrot.store import Runtime, Store
from polyrot.workshop.profiles import PROFILES
from polyrot.workshop.workshop import Workshop

FRONTIER = "docs/frontier.md"
README, LIMITS, VERDICTS = "README.md", "claims/LIMITS.md", "claims/VERDICTS.md"
RECORDS = "claims/RECORDS.md"
GRID, STITCHING = "docs/pictures/verdicts.svg", "docs/pictures/stitching.svg"
SCHEDULE = "shipped"


@dataclass(frozen=True)
class Found:
    """A finding in plain words. said: by verdict, with `{}` for the one figure; a verdict that has
    no words of its own is told in the registration's."""

    claim: str
    scale: str
    figure: str
    said: Mapping[Verdict, str]

    def text(self, ledger: Ledger, registration: Registration) -> str:
        """A line of Markdown; raises KeyError where the ledger has no such verdict."""
        entry, claim = ledger.entries[self.claim, self.scale], registration.claim(self.claim)
        link = f"[`{self.claim}`]({VERDICTS}#{every_claim.anchor(self.claim)}), {self.scale}"
        if entry.verdict in self.said and entry.measured is not None:
            return f"- {self.said[entry.verdict].format(self._figure(entry, claim.bar))} ({link})"
        shown = "" if entry.measured is None else f" ({_against(entry, claim.bar)})"
        return f"- {escaped(claim.says)} **{entry.verdict.value}**{shown} ({link})"

    def _figure(self, entry: Entry, bar: Bar) -> str:
        value = float(entry.measured or 0)
        return format(value, self.figure) if self.figure else bar.show(value)


FINDINGS = (
    Found(
        "cosine.universal_up_to_rotation",
        "neox",
        ".0%",
        {
            Verdict.OUT_OF_REACH: "**Whether features are universal up to a rotation cannot be "
            "seen this way.** Through R, {} of a dictionary's features find a partner beyond "
            "chance, and half was the bar; but two dictionaries of one and the same model miss it "
            "too."
        },
    ),
    Found(
        "cosine.noise_control",
        "neox",
        ".0%",
        {
            Verdict.REFUTED: "**Matching decoders mean nothing where the dictionaries share their "
            "start.** Trained on noise from that start, a dictionary still matches up to {} "
            "of the features."
        },
    ),
    Found(
        "stitching.covariance_only_control",
        "neox",
        ".2f",
        {
            Verdict.HELD: "**R does what second moments cannot.** A model that goes on from a "
            "sibling's stream through R recovers {} more of the lost loss, on average over pairs "
            "and at the worst site, than through axes that are matched by their variances, with "
            "signs drawn."
        },
    ),
    Found(
        "haar.battery",
        "neox",
        ".0e",
        {
            Verdict.REFUTED: "**In the language models R is not a Haar draw, mostly for one "
            "direction.** Tests that know what they reject give p = {}; LayerNorm fixes a "
            "direction, and for it they reject R of shuffled tokens as well. What is left without "
            "it: `haar.battery_on_free_directions`."
        },
    ),
)
CORE = (
    "architecture.same_function",
    "cosine.matched_fraction",
    "triplet.cosine_hides_failure",
    "naive.internal_sites_fail",
    "naive.noise_beats_sibling",
    "procrustes.recovers",
    "procrustes.recovers_language_model",
    "haar.spectrum_as_published",
    "steering.depth_transfers",
    "steering.all_ratios_above_one",
)
"""Core claims that the README shows, those that most of the others rest on; VERDICTS.md has all."""
MEANING: Mapping[Verdict, str] = {
    Verdict.HELD: "every value that the registration names meets the bar, whole 95 % interval",
    Verdict.REFUTED: "some value lies beyond the bar with its whole interval; the worst is shown",
    Verdict.UNDECIDED: "no value does, but the interval of some value contains a limit; or some "
    "does, and a reading that is admitted was not measured",
    Verdict.NOT_DIAGNOSTIC: "held, but a control that it needs fails: it proves nothing",
    Verdict.OUT_OF_REACH: "a perfect sibling would miss the bar too, or a precondition is unmet",
    Verdict.NOT_RUN: "with the reason, and the command that would run it",
}


def findings(ledger: Ledger, registration: Registration) -> str:
    """What was found, a line each."""
    return "\n".join(found.text(ledger, registration) for found in FINDINGS)


def shown_pictures(ledger: Ledger, registration: Registration) -> str:
    """The README's pictures with what they show in words."""
    first = pictures.in_words(ledger, registration)
    second = pictures.stitching_in_words(ledger)
    return f"![{first}]({GRID})\n\n![{second}]({STITCHING})"


def verdict_words(ledger: Ledger, registration: Registration) -> str:
    """A table of the words, each with the first claim that it was said of."""
    lines = [row(("verdict", "meaning", "example")), "|---|---|---|"]
    lines += [
        row((word.value, meaning, _example(word, ledger, registration)))
        for word, meaning in MEANING.items()
    ]
    return "\n".join(lines)


def _example(word: Verdict, ledger: Ledger, registration: Registration) -> str:
    for status in STATUSES:
        for (id, scale), entry in ledger.entries.items():
            claim = registration.claim(id)
            if entry.verdict is word and claim.status == status and not claim.is_control:
                figure = "" if entry.measured is None else f": {_against(entry, claim.bar)}"
                if entry.verdict is Verdict.NOT_RUN:
                    figure = f": {escaped(entry.why)}"
                return f"`{id}`, {scale}{figure}"
    return "none at present"


def core_results(
    ledger: Ledger, registration: Registration, kept: Sequence[records.Kept] = ()
) -> str:
    """At most twelve core claims, one row each, with verdict and figure at each scale; and a line
    on each run that was `kept` beside the ledger."""
    lines = [
        row(("the paper's claim", "bar", *pictures.SCALES)),
        "|---" * (2 + len(pictures.SCALES)) + "|",
    ]
    for id in CORE:
        claim = registration.claim(id)
        says = f"[{escaped(claim.says)}]({VERDICTS}#{every_claim.anchor(id)})"
        cells = [_cell(ledger.entries.get((id, scale)), claim.bar) for scale in pictures.SCALES]
        lines.append(row((says, escaped(claim.bar.describe()), *cells)))
    beside = [f"- [{k.name}]({RECORDS}#{k.name}): {escaped(k.account)}" for k in kept]
    return "\n".join([*lines, *([""] if beside else []), *beside])


def _cell(entry: Entry | None, bar: Bar) -> str:
    if entry is None:
        return ""
    word = entry.verdict.value
    shown = word if entry.verdict is Verdict.HELD else f"**{word}**"
    return shown if entry.measured is None else f"{shown} {bar.show(entry.measured)}"


def _against(entry: Entry, bar: Bar) -> str:
    where = f" at {place(entry.label)}" if entry.label else ""
    return escaped(f"{bar.show(float(entry.measured or 0))}{where}, bar {bar.describe()}")


def departures(shipped: Path) -> str:
    """How what lies in the directory `shipped` was made otherwise than the paper says: a Markdown
    list, by the schedules and by what the trained seeds say of their making."""
    with TemporaryDirectory() as nothing:
        store = Store(Path(nothing), shipped=shipped)
        made = Workshop(Runtime(store), PROFILES[SCHEDULE]).departures
    return "\n".join(f"- {text}" for text in (*made, *of_bar_b(POSITIONS)))


def filled(document: str, parts: Mapping[str, str]) -> str:
    """`document` with the text of each part between its two markers, ``<!-- made: NAME -->`` and
    ``<!-- end: NAME -->``. Raises ValueError where they are not there."""
    for name, text in parts.items():
        begin, end = f"<!-- made: {name} -->", f"<!-- end: {name} -->"
        head, found, rest = document.partition(begin)
        _, closed, tail = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"a document has lost a marker: {begin} ... {end}")
        document = f"{head}{begin}\n\n{text}\n\n{end}{tail}"
    return document


def documents(root: Path) -> dict[str, str]:
    """What every document of the checkout at `root` is to say, by its path from there.

    Raises ValueError for one that cannot be read or has lost a marker.
    """
    claims = root / "claims"
    registration = Registration.load(claims / "preregistration.toml")
    ledger = Ledger.load(claims / "verdicts.toml", registration)
    kept = records.kept(root)
    parts = {
        "findings": findings(ledger, registration),
        "pictures": shown_pictures(ledger, registration),
        "verdict words": verdict_words(ledger, registration),
        "core results": core_results(ledger, registration, kept),
    }
    limits = {"departures": departures(root / "fixtures" / "shipped")}
    return {
        README: filled(_read(root / README), parts),
        LIMITS: filled(_read(root / LIMITS), limits),
        FRONTIER: filled(_read(root / FRONTIER), {"frontier": frontier()}),
        RECORDS: records.markdown(kept, ledger),
        VERDICTS: every_claim.markdown(ledger, registration, claim_tests(claims)),
        GRID: pictures.grid(ledger, registration),
        STITCHING: pictures.stitching(ledger),
    }


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error


def write(root: Path) -> list[Path]:
    """Write what `documents` says of the checkout at `root`; the paths of what was written."""
    written = []
    for name, text in documents(root).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
        written.append(path)
    return written
