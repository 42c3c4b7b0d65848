"""What the suite concludes, in three sentences that rules make from the verdicts.

The first counts the paper's core claims, the second the controls, the third takes the claim of
the title. What a sentence counts it also counts by scale: what holds at one is never said of
another, and what did not run is named. A fourth sentence, where there is something to say, names
the stricter forms that were refuted beside a core claim that met its bar.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from polyrot.defaults import LEAST_EV
from polyrot.judge.registration import SCALES, Claim, Registration
from polyrot.judge.verdicts import Conclusion, Verdict
from polyrot.measured import Figure
from polyrot.report.said import listed
from polyrot.report.states import CONCLUDED

_ANY_L0 = {"least": 0.0, "largest": math.inf}
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


@dataclass(frozen=True)
class Beside:
    """Stricter forms that were refuted at a scale where a core claim of their family met its bar:
    there the sentence that the paper prints is true, and what it must mean is not."""

    family: str
    scale: str
    met: tuple[str, ...]
    refuted: tuple[str, ...]


def stricter_beside(
    conclusions: Sequence[Conclusion], registration: Registration
) -> tuple[Beside, ...]:
    """Every family and scale with both, in the registration's order; ids of claims."""
    met: dict[tuple[str, str], list[str]] = {}
    refuted: dict[tuple[str, str], list[str]] = {}
    for c in conclusions:
        claim, scale = _claim(c, registration), c.finding.scale
        if claim.status == "core" and c.finding.outcome is Verdict.HELD:
            met.setdefault((claim.family, scale), []).append(claim.id)
        elif claim.status == "sharp" and c.verdict is Verdict.REFUTED:
            refuted.setdefault((claim.family, scale), []).append(claim.id)
    return tuple(
        Beside(family, scale, tuple(met[family, scale]), tuple(refuted[family, scale]))
        for family, scale in met
        if (family, scale) in refuted
    )


def answer(conclusions: Sequence[Conclusion], registration: Registration) -> tuple[str, ...]:
    """The three sentences, and a fourth where stricter forms were refuted beside core claims that
    met their bar."""
    beside = stricter_beside(conclusions, registration)
    stricter = (_beside(beside, conclusions),) if beside else ()
    return (*three_sentences(conclusions, registration), *stricter)


def _beside(found: Sequence[Beside], conclusions: Sequence[Conclusion]) -> str:
    ids: dict[str, list[str]] = {}
    for one in found:
        for id in one.refuted:
            ids.setdefault(id, []).append(one.scale)
    named = listed([f"{id} ({', '.join(scales)})" for id, scales in ids.items()])
    n, met = sum(len(one.refuted) for one in found), sum(len(one.met) for one in found)
    core = "a core claim that met its" if met == 1 else f"{met} core claims that met their"
    forms = f"{n} stricter form{'' if n == 1 else 's'} {_was(n)}"
    pairs = {(id, one.scale) for one in found for id in one.met}
    empty = sum(
        (c.finding.claim, c.finding.scale) in pairs and c.verdict is Verdict.NOT_DIAGNOSTIC
        for c in conclusions
    )
    which = "" if met == 1 else "all " if empty == met else f"{empty} of them "
    but = f" ({which}not diagnostic)" if empty else ""
    return f"Beside {core} bar{but}, {forms} refuted in the same family: {named}."


def _claim(conclusion: Conclusion, registration: Registration) -> Claim:
    return registration.claim(conclusion.finding.claim)


def _by_scale(conclusions: Iterable[Conclusion]) -> dict[str, list[Conclusion]]:
    """Judged ones, in the suite's order of scales."""
    found: dict[str, list[Conclusion]] = {}
    for scale in SCALES:
        here = [c for c in conclusions if c.finding.scale == scale and c.verdict in CONCLUDED]
        if here:
            found[scale] = here
    return found


def _counted(members: Mapping[str, Sequence[Conclusion]], verdict: Verdict, word: str) -> str:
    """ "4 of 48 held (toy_a 4 of 24, neox 0 of 24)"; of one scale "4 of 24 held at toy_a"."""
    counts = {scale: sum(c.verdict is verdict for c in here) for scale, here in members.items()}
    total = sum(map(len, members.values()))
    text = f"{sum(counts.values())} of {total} {word}"
    if len(members) == 1:
        return f"{text} {_at(next(iter(members)))}"
    each = [f"{_of(scale)} {counts[scale]} of {len(members[scale])}" for scale in members]
    return f"{text} ({', '.join(each)})"


def _core(conclusions: Sequence[Conclusion], registration: Registration) -> str:
    core = [c for c in conclusions if _claim(c, registration).status == "core"]
    members = _by_scale(core)
    if not members:
        return f"None of the paper's core claims was judged{_unjudged(core)}."
    judged = [c for here in members.values() for c in here]
    counts = Counter(c.verdict for c in judged)
    conceded = sum(
        c.verdict is Verdict.REFUTED and bool(CONCEDED.search(_claim(c, registration).paper))
        for c in judged
    )
    refuted = f"{counts[Verdict.REFUTED]} {_was(counts[Verdict.REFUTED])} refuted"
    refuted += f" ({conceded} as the paper itself reports)" if conceded else ""
    words = [_counted(members, Verdict.HELD, "held"), refuted]
    if n := counts[Verdict.NOT_DIAGNOSTIC]:
        words.append(
            f"{n} met {'its' if n == 1 else 'their'} bar but {'proves' if n == 1 else 'prove'} "
            "nothing (a control fails or is out of reach)"
        )
    words += [
        f"{counts[verdict]} {_is(counts[verdict])} {verdict.value}"
        for verdict in (Verdict.UNDECIDED, Verdict.OUT_OF_REACH)
        if counts[verdict]
    ]
    return f"Of the paper's core claims {listed(words)}{_unjudged(core)}."


def _controls(conclusions: Sequence[Conclusion], registration: Registration) -> str:
    controls = [c for c in conclusions if _claim(c, registration).is_control]
    members = _by_scale(controls)
    if not members:
        rest = _unjudged(controls)
        return f"No control was judged, so no claim that held is known to mean anything{rest}."
    words = [_counted(members, Verdict.REFUTED, "fail")]
    for verdict in (Verdict.OUT_OF_REACH, Verdict.UNDECIDED):
        n = sum(c.verdict is verdict for here in members.values() for c in here)
        words += [f"{n} {_is(n)} {verdict.value}"] if n else []
    return (
        "Of the controls, which must hold for what they control to mean anything, "
        f"{listed(words)}{_unjudged(controls)}."
    )


def _title(conclusions: Sequence[Conclusion], registration: Registration) -> str:
    title = [c for c in conclusions if "title" in _claim(c, registration).section]
    judged = [c for here in _by_scale(title).values() for c in here]
    if not judged:
        return f"The claim of the title was not judged{_unjudged(title)}."
    parts = []
    for id in dict.fromkeys(c.finding.claim for c in title):
        members = [c for c in judged if c.finding.claim == id]
        if members:
            claim = registration.claim(id)
            says = _lower(claim.says.split(":")[0].rstrip("."))
            found = [_found(claim, members, verdict) for verdict in CONCLUDED]
            text = f"that {says}, is {listed([text for text in found if text])}"
            parts.append(text + _ceiling(members, claim) + _inadmissible(members))
    return f"The claim of the title, {'. Another form of it, '.join(parts)}{_unjudged(title)}."


def _found(claim: Claim, members: Sequence[Conclusion], verdict: Verdict) -> str:
    """ "out of reach at toy_a and neox (0.116 to 0.1165, bar ≥ 0.5)"."""
    here = [c for c in members if c.verdict is verdict]
    values = sorted(c.finding.measured for c in here if c.finding.measured is not None)
    if not values:
        return ""
    shown = list(dict.fromkeys(claim.bar.show(x) for x in (values[0], values[-1])))
    scales = listed([c.finding.scale for c in here])
    return f"{verdict.value} at {scales} ({' to '.join(shown)}, bar {claim.bar.describe()})"


def _ceiling(members: Sequence[Conclusion], claim: Claim) -> str:
    """How far dictionaries of one model agree, beyond what Haar matrices give, bounds what any
    rotation between two models can show; the measure, `cosine.universality`, says so by site,
    with the share of Haar matrices. (A claim that has none beside is not about such a share.)"""
    shares: list[float] = []
    for conclusion in members:
        own = _by_site(conclusion.finding.beside, "between_starts_")
        if own.keys() == _by_site(conclusion.finding.beside, "haar_").keys():
            shares += own.values()
    if not shares:
        return ""
    out_of_reach = sum(not claim.bar.satisfied(share) for share in shares)
    ends = dict.fromkeys(f"{share:.0%}" for share in (min(shares), max(shares)))
    text = (
        ", where dictionaries of one and the same model, from other starts, share "
        f"{' to '.join(ends)} beyond chance"
    )
    if out_of_reach:
        return f"{text}, so that at {out_of_reach} of {len(shares)} sites the bar lay above it"
    return f"{text}, so that the bar lay within it"


def _inadmissible(members: Sequence[Conclusion]) -> str:
    """Where no sparsity gave the self EV and the L0 that the registration asks for, its condition
    on the dictionaries is not met, and the verdict is on others."""
    texts = []
    for conclusion in members:
        beside = conclusion.finding.beside
        ev, l0 = _by_site(beside, "ev_"), _by_site(beside, "l0_")
        if ev.keys() != l0.keys():
            continue
        low, high = (float(beside.get(f"{end}_l0", default)) for end, default in _ANY_L0.items())
        other = [s for s in ev if ev[s] < LEAST_EV or not low <= l0[s] <= high]
        if other:
            texts.append(
                f" ({_at(conclusion.finding.scale)} the dictionaries of {len(other)} of {len(ev)} "
                f"sites are not as registered: EV {_span(ev)}, L0 {_span(l0)})"
            )
    return "".join(texts)


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
    rest = [c for c in members if c.verdict not in (*CONCLUDED, Verdict.NOT_WRITTEN)]
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


def _of(scale: str) -> str:
    return "the paper's own figures" if scale == "paper" else scale


def _was(n: int) -> str:
    return "was" if n == 1 else "were"


def _is(n: int) -> str:
    return "is" if n == 1 else "are"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
