"""Why do the sparse dictionaries of the language models miss what is registered of them?

Their arms are in `dictionaries_arms`, their page in `dictionaries_page`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from polyrot.defaults import LEAST_EV
from polyrot.dictionaries.groups import SECOND_START
from polyrot.dictionaries.sae import Dictionary, quality
from polyrot.dictionaries.sparsity import Choice, l0_range
from polyrot.judge.ledger import Ledger
from polyrot.judge.registration import Registration
from polyrot.maps.explained_variance import explained_variance
from polyrot.measures import cosine
from polyrot.measures.fits import Fits, fit_all
from polyrot.runtime.checkout import checkout
from polyrot.store import Runtime
from polyrot.studies import dictionaries_arms as arms
from polyrot.studies.dictionaries_arms import ARMS, L0, Few
from polyrot.studies.dictionaries_page import (
    REGISTERED,
    SUBSPACE,
    arm_at,
    page as page,
    pictures as pictures,
)
from polyrot.studies.dictionaries_predictions import as_data
from polyrot.studies.record import Row, record_of

SEPARABLE = tuple(ARMS)
"""Arms that can be trained and measured without the others."""
CLAIM = ("cosine.universal_up_to_rotation", "neox")


def registered() -> Mapping[str, float]:
    """What the ledger of the checkout has of the registered sparse dictionaries, site by site.

    Raises NotACheckout.
    """
    claims = checkout() / "claims"
    registration = Registration.load(claims / "preregistration.toml")
    entry = Ledger.load(claims / "verdicts.toml", registration).entries[CLAIM]
    return {name: float(x) for name, x in entry.beside.items() if not isinstance(x, str)}


def penalties(sites: tuple[str, ...]) -> dict[str, float]:
    """The registered l1, chosen on the anchor alone, by site."""
    known = registered()
    return {site: known[f"l1_{site}"] for site in sites}


def train(runtime: Runtime, only: Sequence[str] = ()) -> None:
    """Every dictionary of every arm, or of some."""
    cohort = Few(runtime)
    arms.all_trained(runtime, cohort, penalties(cohort.sites), only)


def measure(runtime: Runtime, only: Sequence[str] = ()) -> dict[str, Any]:
    """The record of the study: every row, or those of some arms, and what was trained."""
    cohort = Few(runtime)
    l1 = penalties(cohort.sites)
    trained = arms.all_trained(runtime, cohort, l1, only)
    rows = registered_rows(cohort) + subspace_rows(cohort)
    fits = fit_all(cohort)
    for i, (name, found) in enumerate(trained.items()):
        runtime.progress("study, dictionaries", i, len(trained), name)
        for step in ARMS[name].steps:
            here = {spec: each.states[step] for spec, each in found.items()}
            rows += quality_rows(cohort, arm_at(name, step), here)
            if ARMS[name].siblings:
                rows += sibling_rows(cohort, arm_at(name, step), here, fits)
    runtime.progress("study, dictionaries", len(trained), len(trained))
    seconds = {
        name: round(sum(each.seconds for each in found.values())) for name, found in trained.items()
    }
    return record_of(
        "dictionaries",
        device=runtime.device,
        seconds=sum(seconds.values()),
        arm_seconds=seconds,
        predictions=as_data(),
        rows=rows,
        models=[int(seed) for seed in cohort.seeds],
        schedules={name: arm.schedule.recipe() for name, arm in ARMS.items()},
        l1=l1,
        least_ev=LEAST_EV,
        most_l0=l0_range(cohort)[1],
    )


def registered_rows(cohort: Few) -> list[Row]:
    """The registered dictionaries, as the ledger has them."""
    known = registered()
    names = {"ev": "ev", "l0": "l0", "through_R": "through_R", "haar": "haar"}
    names["two_starts"] = "two_starts"
    return [
        Row(what, REGISTERED, known[f"{name}_{site}"], where=site)
        for what, name in names.items()
        for site in cohort.sites
    ]


def subspace_rows(cohort: Few) -> list[Row]:
    """EV of the anchor's first L0 principal directions, the best subspace of as many dimensions as
    a dictionary has features active: fitted on the fit split."""
    rows = []
    for site in cohort.sites:
        fit, score = (cohort.activations(split, site)[0].double() for split in ("fit", "score"))
        mean = fit.mean(0)
        basis = torch.linalg.eigh((fit - mean).T @ (fit - mean))[1][:, -L0:]
        ev = explained_variance(score, (score - mean) @ basis @ basis.T + mean)
        rows.append(Row("ev", SUBSPACE, ev, n=len(score), where=site))
    return rows


def quality_rows(cohort: Few, arm: str, found: Mapping[arms.Spec, Dictionary]) -> list[Row]:
    """Of the anchor's dictionaries on the anchor's score split; and the EV of the tokens that they
    were trained on, which is higher where these were too few."""
    rows = []
    for spec, dictionary in found.items():
        if spec.model == 0 and spec.start != SECOND_START:
            x = cohort.activations("score", spec.site)[0]
            seen = quality(dictionary, x)
            rows += [
                Row(what, arm, float(getattr(seen, what)), n=len(x), where=spec.site)
                for what in ("ev", "l0", "dead")
            ]
            trained = cohort.activations("dictionary", spec.site)[0]
            ev = quality(dictionary, trained).ev
            rows.append(Row("ev_trained", arm, ev, n=len(trained), where=spec.site))
    return rows


def sibling_rows(
    cohort: Few, arm: str, found: Mapping[arms.Spec, Dictionary], fits: Fits
) -> list[Row]:
    """Siblings' activations through the anchor's dictionary as they are, through R, and through
    their own; and which columns match, as the claims of the title have it: `cosine.universality`.
    """
    own = {(s.model, s.site): d for s, d in found.items() if s.start != SECOND_START}
    again = {s.site: d for s, d in found.items() if s.start == SECOND_START}
    rows = []
    for site in cohort.sites:
        x, dictionary = cohort.activations("score", site), own[0, site]
        for m in range(1, len(cohort.seeds)):
            rotated = fits.matched[site][m - 1].apply(x[m])
            pair = f"{cohort.seeds[0]}-{cohort.seeds[m]}"
            for what, seen, by in (
                ("self", x[m], own[m, site]),
                ("naive", x[m], dictionary),
                ("rotated", rotated, dictionary),
            ):
                value = explained_variance(seen, by(seen))
                rows.append(Row(what, arm, value, n=x.shape[1], where=f"{pair} {site}"))
    choices = {}
    for site in cohort.sites:
        found_there = quality(own[0, site], cohort.activations("score", site)[0])
        admissible = found_there.ev >= LEAST_EV and found_there.l0 <= L0
        choices[site] = Choice(0.0, found_there.l0, found_there.ev, admissible)
    table = cosine.universality(cohort, own, again, fits, choices)
    for what in ("through_R", "haar", "two_starts"):
        for site in cohort.sites:
            rows.append(
                Row(
                    what,
                    arm,
                    float(table.beside[f"{what}_{site}"]),
                    n=len(table.pairs),
                    where=site,
                )
            )
    return rows
