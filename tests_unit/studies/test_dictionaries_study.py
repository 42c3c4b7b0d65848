"""The study of dictionaries: planted worlds come out as they were planted, and the page says so."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from polyrot.cohorts.cohort import CohortDefaults
from polyrot.dictionaries.activations import TopK
from polyrot.dictionaries.groups import SECOND_START, SHARED_START
from polyrot.judge.ledger import Ledger
from polyrot.judge.registration import Registration
from polyrot.language.neox import FACTS
from polyrot.maps.null_space import haar_block
from polyrot.store import Runtime, Store
from polyrot.studies import (
    __main__ as command,
    dictionaries,
    dictionaries_arms as arms,
    dictionaries_page as page,
    dictionaries_predictions as predictions,
)
from polyrot.studies.dictionaries_arms import Arm, Spec
from polyrot.studies.record import Row, merged, record_of

SITES = ("resid_post_0", "resid_post_1")
D, ACTIVE, TOKENS = 16, 2, 3000


class Planted(CohortDefaults):
    """Three models: an anchor of sparse features, a copy of it that is turned, one that has other
    features."""

    def __init__(self, runtime: Runtime | None = None) -> None:
        self.scale, self.seeds, self.sites, self.width = "neox", (200, 201, 202), SITES, D
        self.facts, self.fingerprint = FACTS, "planted"
        self._x: dict[tuple[str, str], Tensor] = {}
        for i, split in enumerate(("dictionary", "fit", "score")):
            for j, site in enumerate(SITES):
                drawn = torch.Generator().manual_seed(10 * i + j)
                turned = torch.Generator().manual_seed(j)
                features, others = (
                    torch.nn.functional.normalize(torch.randn(24, D, generator=turned), dim=1)
                    for _ in range(2)
                )
                turn = haar_block(D, turned).float()
                which = torch.rand(TOKENS, 24, generator=drawn).topk(ACTIVE, dim=1).indices
                size = 1 + torch.rand(TOKENS, ACTIVE, generator=drawn)
                codes = torch.zeros(TOKENS, 24).scatter(1, which, size)
                x = codes @ features
                self._x[split, site] = torch.stack([x, x @ turn.T, codes @ others])

    @property
    def internal(self) -> tuple[str, ...]:
        return self.sites

    def activations(self, split: str, site: str) -> Tensor:  # type: ignore[override]
        return self._x[split, site]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = replace(arms.REGISTERED, steps=400, batch=256, rate=3e-3)
    monkeypatch.setattr(arms, "REGISTERED", schedule)
    monkeypatch.setattr(dictionaries, "L0", 4)
    found = {
        "topk": Arm("topk", "TopK", TopK(ACTIVE), (400,), siblings=True),
        "l1": Arm("l1", "L1", None, (200, 400)),
    }
    for module in (arms, page, dictionaries):
        monkeypatch.setattr(module, "ARMS", found)
    monkeypatch.setattr(dictionaries, "Few", Planted)
    known = {f"{n}_{s}": 0.05 for n in ("l1", "ev", "l0", "through_R", "haar") for s in SITES}
    known |= {f"two_starts_{s}": 0.25 for s in SITES}
    monkeypatch.setattr(dictionaries, "registered", lambda: known)
    kept = tuple(p for p in predictions.PREDICTIONS if p.arm in found)
    for module in (page, predictions):
        monkeypatch.setattr(module, "PREDICTIONS", kept)


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(Store(tmp_path / "store"))


@pytest.mark.slow  # dictionaries are trained until they find the features
@pytest.mark.usefixtures("small")
def test_a_turned_copy_has_the_features_and_a_stranger_has_not(runtime: Runtime) -> None:
    made = dictionaries.measure(runtime)
    known = page.values(made)
    for site in SITES:
        assert known["l0", "topk"][site] <= ACTIVE
        assert known["ev", "topk"][site] > 0.7
        # Two siblings, of which one is a copy: half of what two starts share, or little more.
        assert known["two_starts", "topk"][site] > 0.5
        assert 0.3 < known["share", "topk"][site] < 0.9
        rotated, naive = known["rotated", "topk"], known["naive", "topk"]
        assert rotated[f"200-201 {site}"] > naive[f"200-201 {site}"] + 0.1
        assert rotated[f"200-201 {site}"] == pytest.approx(known["ev", "topk"][site], abs=1e-3)
        assert rotated[f"200-202 {site}"] < rotated[f"200-201 {site}"] - 0.1
        subspace = known["ev", page.SUBSPACE][site]
        x = Planted().activations("score", site)[0]
        spread = torch.linalg.eigvalsh(x.T.cov())
        assert subspace == pytest.approx(float(spread[-4:].sum() / spread.sum()), abs=0.02)
    assert known["ev", "l1 400"] != known["ev", "l1 200"]
    assert "L1, 400 steps" in page.page(made)
    assert made["seconds"] > 0
    trained = sorted(p.name for p in runtime.store.directory.rglob("*.safetensors"))
    assert len(trained) == 2 * (4 + 1)
    assert dictionaries.measure(runtime)["rows"] == made["rows"], "found, not trained again"
    part = dictionaries.measure(runtime, ("l1",))
    assert 0 < part["seconds"] < made["seconds"]
    assert all(row["arm"] != "topk" for row in part["rows"])
    assert merged(made, part)["rows"] == made["rows"]
    assert merged(made, part)["seconds"] == made["seconds"], "found again, not spent again"
    older = {name: value for name, value in made.items() if name != "arm_seconds"}
    assert merged(older, part)["seconds"] == made["seconds"] + part["seconds"]
    assert len(list(runtime.store.directory.rglob("*.safetensors"))) == len(trained)


class Apart(Planted):
    """What is scored lies in other dimensions than what is trained and fitted on."""

    def activations(self, split: str, site: str) -> Tensor:
        x = super().activations(split, site).clone()
        gone = slice(D // 2) if split == "score" else slice(D // 2, D)
        x[..., gone] = 0
        return x


@pytest.mark.usefixtures("small")
def test_what_is_fitted_is_scored_on_what_it_has_not_seen(runtime: Runtime) -> None:
    cohort: Any = Apart()
    assert max(row.value for row in dictionaries.subspace_rows(cohort)) < 0.05
    arm = arms.ARMS["topk"]
    specs = [s for s in arms.specs(arm, SITES, {}) if (s.model, s.start) == (0, SHARED_START)]
    here = {spec: arms.trained(runtime, cohort, arm, spec).states[400] for spec in specs}
    rows = dictionaries.quality_rows(cohort, "topk", here)
    unseen, trained = (
        [row.value for row in rows if row.what == what] for what in ("ev", "ev_trained")
    )
    assert len(unseen) == len(trained) == len(SITES)
    assert max(unseen) < 0.2
    assert min(trained) > 0.7


def planted_record(ev: float, through: float) -> dict[str, Any]:
    """All kinds explain `ev`, and through R the siblings match this share of what starts do."""
    rows = []
    for site in SITES:
        rows.append(Row("ev", page.SUBSPACE, 0.8, where=site))
        for arm in page.labels():
            at = {"ev": ev, "l0": 31.0, "dead": 0.02, "ev_trained": ev + 0.02}
            if arm in ("topk", "topk_longer", page.REGISTERED):
                at |= {"haar": 0.1, "two_starts": 0.5, "through_R": 0.1 + 0.4 * through}
            rows += [Row(what, arm, value, where=site) for what, value in at.items()]
    return record_of(
        "dictionaries",
        device="cpu",
        seconds=1,
        predictions=predictions.as_data(),
        rows=rows,
        least_ev=0.9,
        most_l0=32.0,
    )


@pytest.mark.parametrize(
    ("ev", "through", "said", "sites"),
    [(0.95, 0.9, predictions.SHRINKAGE, 2), (0.7, 0.2, predictions.DENSE, 0)],
)
def test_either_answer_is_said(ev: float, through: float, said: str, sites: int) -> None:
    made = planted_record(ev, through)
    text = page.page(made)
    assert f"| **{said}** |" in text
    assert f"at {sites} of 2 sites; on the tokens that it was trained on EV is 0.02 to" in text
    assert ("there the activations are as sparse as that" in text) == bool(sites)
    assert ("No kind meets" in text) == (not sites)
    assert f"for each site (3), meets it at {sites} of 2" in text
    assert f"that is {through:.3g} to {through:.3g} of this ceiling" in text
    assert f"TopK, k = 32 {through:.3g} to {through:.3g}; " in text
    (picture,) = page.pictures(made).values()
    assert all(label in picture for label in page.labels().values())
    points = re.findall('<(.*?) class="mark"', picture)
    assert len(points) == len(page.labels()) * (1 + len(SITES))
    assert len(set(points)) == len(page.labels()), "no two look the same"


def test_one_kind_that_meets_it_is_enough_and_another_at_the_other_site_is_not() -> None:
    def with_ev(ev: dict[tuple[str, str], float]) -> str:
        made = planted_record(0.7, 0.5)
        for row in made["rows"]:
            key = (row["arm"], row["where"])
            if row["what"] == "ev" and key in ev:
                row["value"] = ev[key]
        return page.page(made)

    first, second = SITES
    longer = page.labels()["topk_longer"]
    text = with_ev({("topk_longer", first): 0.95})
    assert f"**{longer}, meets what is registered" in text
    assert "0.9 or more at L0 of 32 or less, at 1 of 2 sites:**" in text
    assert "TopK meets it at 0" in text
    assert "activations are to blame does not stand" in text
    text = with_ev({("topk_longer", first): 0.95, ("topk", second): 0.95})
    assert "does not stand" not in text, "nor was it said"
    text = with_ev({("l1_half", first): 0.95, ("l1_quarter", second): 0.95})
    assert "does not stand" not in text
    assert "with the best of the penalties tried for each site (3), meets it at 2 of 2" in text


def test_half_of_the_sites_is_enough_and_fewer_are_not() -> None:
    first = predictions.PREDICTIONS[0]
    assert predictions.reached(first, [0.9, 0.1])
    assert not predictions.reached(first, [0.9, 0.1, 0.1])
    assert predictions.outcome(first, {}) == "not measured"


def test_l1_is_the_registered_one_and_every_start_is_another() -> None:
    penalties = dict.fromkeys(SITES, 0.5)
    for arm in arms.ARMS.values():
        found = arms.specs(arm, SITES, penalties)
        assert len(set(found)) == len(found) == len(SITES) * (4 if arm.siblings else 1)
        assert {s.l1 for s in found} == {0.5 * arm.penalty if arm.activation is None else 0.0}
        for site in SITES:
            starts = [s.start for s in found if s.site == site]
            assert len(set(starts)) == len(starts)
            assert starts[0] == SHARED_START
    assert Spec(0, SITES[0], SECOND_START) in arms.specs(arms.ARMS["topk"], SITES, penalties)


def test_the_ledger_has_what_the_study_reads_of_it() -> None:
    claims = Path(__file__).resolve().parents[2] / "claims"
    registration = Registration.load(claims / "preregistration.toml")
    ledger = Ledger.load(claims / "verdicts.toml", registration)
    assert dictionaries.CLAIM in ledger.entries
    share = registration.claim("cosine.universal_relative_to_ceiling")
    assert share.bar.at_least == page.BAR
    known = dictionaries.registered()
    for site in (f"resid_post_{i}" for i in range(6)):
        assert {
            f"{n}_{site}" for n in ("l1", "ev", "l0", "through_R", "haar", "two_starts")
        } <= set(known)


@pytest.mark.parametrize(
    ("name", "arm", "said"),
    [("dictionaries", "topk_long", "one of topk,"), ("optimiser", "sgd", "is measured whole")],
)
def test_an_arm_that_cannot_be_measured_alone_is_refused(
    name: str, arm: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main([name, "--only", arm, "--artifacts", str(tmp_path)])
    assert f"no arm {arm}" in (printed := capsys.readouterr().err)
    assert said in printed
    assert not list(tmp_path.iterdir())


def test_the_page_is_made_from_the_record() -> None:
    root = Path(__file__).resolve().parents[2]
    for path, text in command.written("dictionaries", root).items():
        assert path.read_text(encoding="utf-8") == text, f"run `polyrot study {path.stem} --page`"
