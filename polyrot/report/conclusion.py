"""What the suite concludes, in three sentences that rules make from the verdicts.

The first counts the paper's core claims, the second the controls, the third takes the claim of
the title. Every count is of one scale: what holds at one is never said of another, and what did not
run is named.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from polyrot.judge.registration import SCALES, Claim, Registration
from polyrot.judge.verdicts import Conclusion, Verdict
from polyrot.measured import Figure

JUDGED = (
    Verdict.HELD,
    Verdict.REFUTED,
    Verdict.UNDECIDED,
    Verdict.NOT_DIAGNOSTIC,
    Verdict.OUT_OF_REACH,
)
_ANY_L0 = {"least": 0.0, "largest": math.inf}
LEAST_EV = 0.9  # at which the registration asks for the title's dictionaries
CONCEDED = re.compile(r"\b(fails?|missed)\b")  # the paper's own figure says that the bar is missed


def three_sentences(
    conclusions: Sequence[Conclusion], registration: Registration
) -> tuple[str, str, str]:
    """One sentence each on core claims, on controls, and on the claim of the paper's title."""
    texts = (
        _core(conclusions, registration),
        _controls(conclusions, registration),
        _title(conclusions, registration),
    )
    if registration.as_registered:
        return texts
    return f"By bars that are not the registered ones: {texts[0]}", texts[1], texts[2]


def _claim(conclusion: Conclusion, registration: Registration) -> Claim:
    return registration.claim(conclusion.finding.claim)


def _by_scale(conclusions: Iterable[Conclusion]) -> dict[str, list[Conclusion]]:
    """Judged ones, in the suite's order of scales."""
    found: dict[str, list[Conclusion]] = {}
    for scale in SCALES:
        here = [c for c in conclusions if c.finding.scale == scale and c.verdict in JUDGED]
        if here:
            found[scale] = here
    return found


def _core(conclusions: Sequence[Conclusion], registration: Registration) -> str:
    core = [c for c in conclusions if _claim(c, registration).status == "core"]
    parts = []
    for scale, members in _by_scale(core).items():
        counts = Counter(c.verdict for c in members)
        conceded = sum(
            c.verdict is Verdict.REFUTED and bool(CONCEDED.search(_claim(c, registration).paper))
            for c in members
        )
        refuted = (
            f"{counts[Verdict.REFUTED]} {'was' if counts[Verdict.REFUTED] == 1 else 'were'} refuted"
        )
        if conceded:
            refuted += f" ({conceded} of which the paper itself reports as missed)"
        words = [f"{counts[Verdict.HELD]} held", refuted]
        if counts[Verdict.NOT_DIAGNOSTIC]:
            n = counts[Verdict.NOT_DIAGNOSTIC]
            words.append(
                f"{n} held but {'prove' if n > 1 else 'proves'} nothing, as a control fails or is "
                "out of reach"
            )
        for verdict, text in (
            (Verdict.UNDECIDED, "undecided"),
            (Verdict.OUT_OF_REACH, "out of reach"),
        ):
            if counts[verdict]:
                words.append(f"{counts[verdict]} {'is' if counts[verdict] == 1 else 'are'} {text}")
        parts.append(f"{_at(scale)}, of {len(members)} judged {_listed(words)}")
    if not parts:
        return f"None of the paper's core claims was judged{_unjudged(core)}."
    stricter = _stricter(conclusions, registration)
    return f"Core claims: {'; '.join(parts)}{_unjudged(core)}.{stricter}"


def _stricter(conclusions: Sequence[Conclusion], registration: Registration) -> str:
    """Strict claims that were refuted in a family of which a core claim held at the same scale:
    there the sentence that the paper prints is true, and what it must mean is not."""
    held = {
        (_claim(c, registration).family, c.finding.scale)
        for c in conclusions
        if _claim(c, registration).status == "core" and c.finding.outcome is Verdict.HELD
    }
    found: dict[str, list[str]] = {}
    for c in conclusions:
        claim, scale = _claim(c, registration), c.finding.scale
        refuted = claim.status == "sharp" and c.verdict is Verdict.REFUTED
        if refuted and (claim.family, scale) in held:
            found.setdefault(claim.id, []).append(scale)
    if not found:
        return ""
    named = [f"{id} ({', '.join(scales)})" for id, scales in found.items()]
    return (
        " Where a core claim held, a stricter form in the same family was refuted: "
        f"{_listed(named)}."
    )


def _controls(conclusions: Sequence[Conclusion], registration: Registration) -> str:
    controls = [c for c in conclusions if _claim(c, registration).is_control]
    parts = []
    for scale, members in _by_scale(controls).items():
        failing = [c for c in members if c.verdict is Verdict.REFUTED]
        text = f"{_at(scale)} {len(failing)} of {len(members)} controls fail"
        if failing:
            families = dict.fromkeys(_claim(c, registration).family for c in failing)
            text += f" (of {_listed(list(families))})"
        for verdict in (Verdict.OUT_OF_REACH, Verdict.UNDECIDED):
            n = sum(c.verdict is verdict for c in members)
            text += f", {n} {'is' if n == 1 else 'are'} {verdict.value}" if n else ""
        parts.append(text)
    if not parts:
        rest = _unjudged(controls)
        return f"No control was judged, so no claim that held is known to mean anything{rest}."
    return (
        "Controls, which must hold for what they control to mean anything: "
        f"{'; '.join(parts)}{_unjudged(controls)}."
    )


def _title(conclusions: Sequence[Conclusion], registration: Registration) -> str:
    title = [c for c in conclusions if "title" in _claim(c, registration).section]
    judged = _by_scale(title)
    if not judged:
        return f"The claim of the title was not judged{_unjudged(title)}."
    parts = []
    for scale, members in judged.items():
        for conclusion in members:
            finding, claim = conclusion.finding, _claim(conclusion, registration)
            if finding.measured is None:
                continue
            text = f"{conclusion.verdict.value} {_at(scale)}"
            text += f" ({claim.bar.show(finding.measured)}"
            text += f" at {finding.label}" if finding.label else ""
            text += f", bar {claim.bar.describe()})"
            parts.append(text + _ceiling(conclusion, claim) + _inadmissible(conclusion))
    says = _claim(title[0], registration).says.split(":")[0].rstrip(".")
    return f"The claim of the title ({_lower(says)}): {'; '.join(parts)}{_unjudged(title)}."


def _ceiling(conclusion: Conclusion, claim: Claim) -> str:
    """How far two dictionaries of one model agree bounds what any rotation between two can show;
    the measure says so by site, with what Haar matrices give (see `agreement.universality`)."""
    shares = _by_site(conclusion.finding.beside, "two_starts_")
    chance = _by_site(conclusion.finding.beside, "haar_")
    if not shares or shares.keys() != chance.keys():
        return ""
    text = (
        f", where two dictionaries of one and the same model share {min(shares.values()):.0%} to "
        f"{max(shares.values()):.0%}"
    )
    out_of_reach = [s for s in shares if not claim.bar.satisfied(shares[s] - chance[s])]
    if out_of_reach:
        return f"{text}, so that at {len(out_of_reach)} of {len(shares)} sites the bar lay above it"
    return f"{text}, so that the bar lay within it"


def _inadmissible(conclusion: Conclusion) -> str:
    """Where no sparsity gave the self EV and the L0 that the registration asks for, its condition
    on the dictionaries is not met, and the verdict is on others."""
    beside = conclusion.finding.beside
    ev, l0 = _by_site(beside, "ev_"), _by_site(beside, "l0_")
    if ev.keys() != l0.keys():
        return ""
    low, high = (float(beside.get(f"{end}_l0", default)) for end, default in _ANY_L0.items())
    other = [s for s in ev if ev[s] < LEAST_EV or not low <= l0[s] <= high]
    if not other:
        return ""
    bounds = f", L0 {low:g} to {high:g}" if math.isfinite(high) else ""
    return (
        f", with dictionaries that at {len(other)} of {len(ev)} sites are not as registered (self "
        f"EV {LEAST_EV:g} or more{bounds}): EV {_span(ev)}, L0 {_span(l0)}"
    )


def _span(values: Mapping[str, float]) -> str:
    low, high = (f"{limit(values.values()):.3g}" for limit in (min, max))
    return low if low == high else f"{low} to {high}"


def _by_site(beside: Mapping[str, Figure], prefix: str) -> dict[str, float]:
    return {
        name.removeprefix(prefix): value
        for name, value in beside.items()
        if name.startswith(prefix) and not isinstance(value, str)
    }


def _unjudged(members: Sequence[Conclusion]) -> str:
    """ "; 14 came to no verdict (neox), and nothing is said of them; 20 have no test yet"."""
    rest = [c for c in members if c.verdict not in (*JUDGED, Verdict.NOT_WRITTEN)]
    unwritten = sum(c.verdict is Verdict.NOT_WRITTEN for c in members)
    text = ""
    if rest:
        scales = ", ".join(s for s in SCALES if any(c.finding.scale == s for c in rest))
        these = "it" if len(rest) == 1 else "them"
        text = f"; {len(rest)} came to no verdict ({scales}), and nothing is said of {these}"
    if unwritten:
        text += f"; {unwritten} {'has' if unwritten == 1 else 'have'} no test yet"
    return text


def _at(scale: str) -> str:
    return "on the paper's own figures" if scale == "paper" else f"at {scale}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
