"""Figures show what their values say, values what was measured; and what is missing is named."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from polyrot.haar.orthogonal import sample_haar
from polyrot.report import figures
from polyrot.report.figures import (
    effects,
    reconstruction,
    style,
)
from polyrot.report.figures.effects import Effects
from polyrot.report.figures.firing import FiringBySite
from polyrot.report.figures.frontier import DictionaryOnB
from polyrot.report.figures.glance import Glance
from polyrot.report.figures.reconstruction import EVBySite
from polyrot.report.figures.rotation import RotationSpectrum
from polyrot.report.figures.steering import DoseCurves
from polyrot.report.figures.stitching import StitchedLoss
from polyrot.report.figures.values import table
from polyrot.runtime.seeding import numpy_generator
from tests_unit.report import planted_figures as planted
from tests_unit.report.planted_record import HELD, REFUTED, finding, not_run, record_of

CLAIMS = Path(__file__).parents[2] / "claims"
VALUES = {figures.kind_of(value).name: value for value in planted.values()}
KINDS = pytest.mark.parametrize("name", list(figures.KINDS))


@pytest.fixture(scope="module")
def drawn() -> dict[str, Any]:
    """A matplotlib figure of every kind."""
    return {name: figures.KINDS[name].draw(value) for name, value in VALUES.items()}


# ------------------------------------------------------------------------------- every figure


@KINDS
def test_a_value_survives_json(name: str) -> None:
    document = json.loads(json.dumps(figures.to_json(VALUES[name]), allow_nan=False))
    assert figures.from_json(document) == VALUES[name]


@KINDS
def test_n_is_in_the_figure_and_in_its_caption(name: str, drawn: dict[str, Any]) -> None:
    texts = [drawn[name].get_supxlabel(), drawn[name].get_suptitle()]
    assert any(re.search(r"\bn = \d", text) for text in texts), "taken out of the page it keeps n"
    assert re.search(r"\bn = \d", VALUES[name].words().caption)


@pytest.mark.parametrize("name", [n for n in figures.KINDS if n != "claims_and_controls"])
def test_axes_are_labelled(name: str, drawn: dict[str, Any]) -> None:
    panels: list[Axes] = drawn[name].axes
    bars = [axes for axes in panels if axes.get_label() == "<colorbar>"]
    assert all(axes.get_ylabel() for axes in bars)
    panels = [axes for axes in panels if axes not in bars]
    shared = {axes.get_subplotspec().colspan.start for axes in panels if axes.get_xlabel()}
    assert shared == {axes.get_subplotspec().colspan.start for axes in panels}
    left = [axes for axes in panels if axes.get_subplotspec().is_first_col()]
    assert all(axes.get_ylabel() for axes in left)


@KINDS
def test_svg_stands_alone_in_a_page(name: str, drawn: dict[str, Any]) -> None:
    svg = style.svg_text(drawn[name])
    element = style.inline_svg(svg, name, "A & B", "<what> one sees")
    assert "http" not in element.replace("http://www.w3.org", "")
    assert "<metadata" not in element
    assert "xlink" not in element
    ids = re.findall(r'\bid="([^"]+)"', element)
    assert len(ids) == len(set(ids))
    assert all(id.startswith(f"{name}-") for id in ids)
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', element)
    assert set(used) <= set(ids), "every reference has its target"
    assert f'<title id="{name}-title">A &amp; B</title>' in element
    assert f'<desc id="{name}-desc">&lt;what&gt; one sees</desc>' in element
    assert 'role="img"' in element
    assert "var(--ink)" in element
    assert style.INK not in element


def test_a_figure_is_the_same_in_every_run() -> None:
    # Each drawn anew: a second saving of one figure lays it out again from where the first ended.
    first, again = (figures.KINDS["decoder_cosine"].draw(VALUES["decoder_cosine"]) for _ in "ab")
    assert style.svg_text(again) == style.svg_text(first)


def test_svg_and_pdf_are_written(tmp_path: Path) -> None:
    found, failures = figures.draw_all([VALUES["tradeoff"]], tmp_path)
    assert failures == []
    assert [d.name for d in found] == ["tradeoff_toy_a"]
    assert (tmp_path / "figures" / "tradeoff_toy_a.svg").read_text().startswith("<?xml")
    assert (tmp_path / "figures" / "tradeoff_toy_a.pdf").read_bytes().startswith(b"%PDF")


def test_a_figure_that_cannot_be_drawn_costs_no_other(tmp_path: Path) -> None:
    empty = Effects("toy_b", 3, ())
    found, failures = figures.draw_all([empty, VALUES["tradeoff"]], tmp_path)
    assert [d.name for d in found] == ["tradeoff_toy_a"]
    assert len(failures) == 1
    assert failures[0].startswith("effects_toy_b: ")


def test_values_are_kept_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    figures.write_values(path, planted.values(), ["steering, toy_b: ValueError: no"])
    values, failures = figures.read_values(path)
    assert values == planted.values()
    assert failures == ("steering, toy_b: ValueError: no",)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"kind": "none", "value": {}}, "no figure: expected a kind of"),
        ({"kind": "tradeoff", "value": {"scale": "a"}}, "TradeOff: missing or unknown: pairs"),
        ({"kind": "tradeoff", "value": None}, "TradeOff: expected an object"),
    ],
)
def test_a_value_that_is_none(document: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        figures.from_json(document)


def test_a_value_of_another_type_is_named() -> None:
    document = figures.to_json(VALUES["ev_by_site"])
    document["value"]["series"][0]["values"] = [[0.5, "high"]]
    with pytest.raises(ValueError, match=r"series\[0\]\.values\[0\]\[1\]: expected float"):
        figures.from_json(document)


def test_another_file_is_no_figures_json(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    for text in ("{", "[]", '{"schema_version": 99}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=re.escape("figures.json")):
            figures.read_values(path)


# ------------------------------------------------------------- what is measured is what is drawn


def test_explained_variances_are_those_of_the_transfer() -> None:
    value = EVBySite.of(planted.COHORT, planted.transfer(rotated_ev=0.9, naive_ev=-3.0))
    curves = {series.name: np.array(series.values) for series in value.series}
    assert curves["rotated"][1, 2] == pytest.approx(0.9 - 0.01 - 0.04)
    assert curves["naive"][0, 0] == -3.0
    line = next(
        line for line in reconstruction.draw(value).axes[0].lines if line.get_label() == "rotated"
    )
    assert np.allclose(line.get_ydata(), curves["rotated"].mean(0))
    n = len(value.sites)
    assert value.words().description.startswith(
        "The sibling is reconstructed better than by its mean through R at "
        f"{n} of {n} sites, as it is at 0 of {n} sites. "
    )


def test_the_papers_own_scores_are_hollow_marks_of_the_setting_that_favours_it() -> None:
    value = EVBySite.of_published(planted.COHORT, planted.scores_as_published())
    curves = {series.name: np.array(series.values) for series in value.series}
    assert curves["as published, rotated"][0, 0] == 0.9
    assert curves["as published, naive"][0, 0] == -3.0
    lines = {line.get_label(): line for line in reconstruction.draw(value).axes[0].lines}
    assert lines["as published, rotated"].get_markerfacecolor() == "none"
    whole = EVBySite.of(planted.COHORT, planted.transfer()).merged(replace(value, tokens=9))
    assert whole.tokens == 1000, "the batch is a part of the split"
    assert "as published, naive" in [series.name for series in whole.ordered()]


def test_parts_of_one_figure_merge_and_scales_do_not() -> None:
    untrained = EVBySite.of_untrained(planted.COHORT, planted.transfer())
    trained = EVBySite.of(planted.COHORT, planted.transfer())
    (whole,) = figures.joined([untrained, trained])
    assert len(whole.series) == 8
    assert figures.joined([trained, untrained])[0].ordered() == whole.ordered()
    other = effects.Effects.of_attributions("toy_b", planted.attributions())
    assert len(figures.joined([other, VALUES["effects"]])) == 2
    with pytest.raises(ValueError, match="explained variances at"):
        trained.merged(EVBySite("toy_a", ("pre_0",), ("0-1",), 10, ()))


def test_firing_patterns_are_those_that_were_measured() -> None:
    value = FiringBySite.of(planted.COHORT, planted.overlap(rotated=0.6, naive=-0.1))
    curves = {series.name: series for series in value.series}
    assert curves["rotated"].values[1][2] == pytest.approx(0.6 - 0.02 - 0.04)
    assert curves["raw"].values[0][0] == pytest.approx(-0.1)
    found = planted.overlap(rotated=0.6).rotated.mean.mean_over_pairs().interval(1)
    assert found is not None
    assert (curves["rotated"].low[1], curves["rotated"].high[1]) == (found.low, found.high)
    assert [(band.low, band.high) for band in value.bands] == [(0.27, 0.74), (0.03, 0.51)]
    axes = figures.KINDS["firing"].draw(value).axes[0]
    ticks = [tick.get_text() for tick in axes.get_xticklabels()]
    assert ticks == ["(pre_0)", "mid_0", "post_0", "published\n(the paper's toy)"]
    assert "pre_0: beside, not judged" in value.words().caption
    whole = value.merged(FiringBySite.of_untrained(planted.COHORT, planted.overlap()))
    assert len(whole.series) == 6
    assert whole.ceiling == (1, 1, 1)
    with pytest.raises(ValueError, match="firing patterns at"):
        value.merged(replace(value, sites=("pre_0",)))


def test_the_identity_has_distance_zero_and_no_haar_phases() -> None:
    eye = np.tile(np.eye(planted.WIDTH), (2, 3, 1, 1))
    value = RotationSpectrum.of(planted.COHORT, planted.fits(eye, planted.haar_stack("x")))
    assert np.allclose(value.distances, 0)
    planted_phases = value.phases[0]
    assert planted_phases.counts[0] == sum(planted_phases.counts) == 6 * planted.WIDTH / 2
    assert sum(planted_phases.expected) == pytest.approx(sum(planted_phases.counts))


def test_haar_phases_follow_the_exact_density() -> None:
    """Many draws: counts within the spread of the exact expectation, which the identity is not."""
    d, n = 32, 400
    rs = sample_haar(d, n, numpy_generator(3, "phases"))
    stack = rs.reshape(2, 200, d, d)
    sites = tuple(f"s{i}" for i in range(200))
    fits = planted.fits(planted.haar_stack("a"), planted.haar_stack("b"))
    fits.sites = sites
    fits.matched = {
        s: [type("R", (), {"r": torch.from_numpy(stack[i, j])})() for i in range(2)]
        for j, s in enumerate(sites)
    }
    fits.shuffled = fits.matched
    found = RotationSpectrum.of(planted.COHORT, fits).phases[0]
    counts, expected = np.array(found.counts), np.array(found.expected)
    assert found.reflections + int((np.linalg.det(rs) > 0).sum()) == n
    assert sum(expected) == pytest.approx(sum(counts))
    # repelling angles scatter less than independent ones would: within 4 Poisson errors
    assert (np.abs(counts - expected) < 4 * np.sqrt(expected)).all()


def test_one_decoder_matches_itself_and_drawn_ones_are_at_chance() -> None:
    same = planted.cosines(True, "shared start")
    drawn = planted.cosines(False, "own start")
    found = {s.name: s for s in same.merged(drawn).panels[0].series}
    assert found["shared start"].mean == pytest.approx(1, abs=1e-5)
    assert found["shared start"].matched == 1
    assert abs(found["own start"].mean - found["chance"].mean) < 0.05
    assert found["own start"].pairs == 2
    assert sum(found["own start"].counts) == 2 * 64


def test_dose_curves_are_those_that_were_measured() -> None:
    value = DoseCurves.of("toy_a", planted.steering(rotated=0.8, naive=-0.5))
    arms = {arm.name: arm for arm in value.contrasts[0].arms}
    at = value.doses.index(2.0)
    assert [gain[at] for gain in arms["rotated"].gain] == [1.6, 1.6]
    assert [gain[at] for gain in arms["naive"].gain] == [-1.0, -1.0]
    assert "naive -0.5" in value.words().description


def test_arms_are_shares_of_the_anchors_effect_with_their_interval() -> None:
    value = planted.arms()
    found = {arm.name: arm for arm in value.directions[1].arms}
    assert found["rotated"].by_pair == pytest.approx((0.8, 1.0))
    assert found["rotated"].mean == pytest.approx(0.9)
    assert found["rotated"].ceiling == pytest.approx(0.9)
    assert found["rotated"].high - 0.9 == pytest.approx(0.1 * 12.706, rel=1e-3)  # t of two pairs
    assert "through R 0.90" in value.words().description
    drawn = figures.KINDS["steering_arms"].draw(value)
    ticks = [tick.get_text() for tick in drawn.axes[0].get_yticklabels()]
    assert ticks[:2] == ["sibling's own direction", "through R"]


@pytest.mark.parametrize(
    ("distances", "said"),
    [
        ([[1.0, 1.0]], "Every R lies below the band: closer to the identity than Haar."),
        ([[4.0, 4.0]], "Every R lies within the band, as far from I as a Haar draw."),
        (
            [[1.0, 4.0], [4.0, 9.0]],
            "1 of 4 R lie below the band: closer to the identity than Haar; 2 of 4 R lie within "
            "the band, as far from I as a Haar draw; 1 of 4 R lie above the band: farther from the "
            "identity than Haar.",
        ),
    ],
)
def test_a_caption_says_where_the_distances_lie(distances: list[list[float]], said: str) -> None:
    value = replace(planted.rotation(), width=8, distances=table(distances))  # sqrt(2d) = 4
    assert value.words().description.startswith(said)


def test_stitched_losses_are_those_that_were_measured() -> None:
    value = StitchedLoss.of("toy_a", planted.stitching(0.9))
    found = {arm.name: arm for arm in value.arms}
    assert found["rotated"].values == (
        pytest.approx((0.88, 0.93)),
        pytest.approx((0.92, 0.97)),
    )
    assert found["rotated"].high[0] - 0.9 == pytest.approx(0.02 * 12.706, rel=1e-3)  # t, two pairs
    assert value.ceiling == (1.0, 1.0)
    assert "rotation R 0.9 to 0.95" in value.words().description
    assert "second moments alone -0.5 to -0.45" in value.words().description
    lines = figures.KINDS["stitching"].draw(value).axes[0].get_lines()
    shown = {line.get_label(): line for line in lines}
    assert list(shown["exact copy, rotated (ceiling)"].get_ydata()) == [1, 1]
    single = StitchedLoss.of("pair", planted.stitching(0.9, ("0-1",)))
    assert "n = 40 sequences of one pair" in single.words().caption


def test_the_verdict_on_a_pair_is_drawn_and_said() -> None:
    value = DictionaryOnB.of(
        "pair", planted.frontier(self_ev=0.9, rotated_ev=0.8, naive_ev=-34.0, shuffled_ev=0.2)
    )
    assert value.answers == ("yes", "yes")
    found = {arm.name: arm for arm in value.arms}
    assert found["rotated_ev"].values == pytest.approx((0.8, 0.78))
    assert found["rotated_ev"].low[0] < 0.8 < found["rotated_ev"].high[0]
    words = value.words()
    assert words.caption.startswith("A's dictionary works on B through R: yes at every site. pre_0")
    assert "on B as it is -34" in words.description
    axes = figures.KINDS["dictionary_on_b"].draw(value).axes[0]
    assert [text.get_text() for text in axes.texts[:2]] == ["yes", "yes"]
    none = planted.frontier(self_ev=-22.0, rotated_ev=-34.5, naive_ev=-104.0, shifted_ev=-34.4)
    lost = DictionaryOnB.of("pair", none)
    assert lost.answers == ("cannot tell", "cannot tell")
    assert "it does not work on A" in lost.words().caption


def test_effects_are_aligned_before_they_are_compared() -> None:
    across = next(p for p in VALUES["effects"].panels if p.name.startswith("across"))
    assert across.measured == across.predicted, "the planted siblings agree once aligned"
    assert across.r == pytest.approx((1.0, 1.0))
    patching = next(p for p in VALUES["effects"].panels if p.name == "attribution patching")
    assert patching.predicted[0] == tuple(-x for x in patching.measured[0])
    assert patching.published == (-0.632, 0.585)


def test_the_published_table_is_the_papers() -> None:
    patching, integrated = Effects.of_published_table().panels
    assert patching.measured == integrated.measured
    assert patching.r[0] == pytest.approx(0.05, abs=0.005)
    assert integrated.r[0] == pytest.approx(0.98, abs=0.005)


def test_claims_and_controls_come_from_the_record() -> None:
    record = record_of(
        finding("cosine.match", "toy_a", HELD),
        finding("cosine.noise_control", "toy_a", REFUTED),
        finding("naive.fails", "toy_b", REFUTED),
        finding("bars.missed", "toy_a", HELD),
    )
    value = Glance.of(record)
    names = [line.claim.name for line in value.lines]
    assert names == ["cosine.match  toy_a", "naive.fails  toy_b"], "none without a control"
    assert [line.claim.found for line in value.lines] == ["not diagnostic", "refuted"]
    assert value.lines[0].controls[0].found == "refuted"
    assert value.lines[0].controls[0].figure == "0.25  (≥ 0.5)"
    assert value.lines[1].controls[0].found == "not known"


# ----------------------------------------------------------------------------------- left out


def test_what_was_not_measured_is_named_with_the_reason() -> None:
    record = record_of(
        finding("cosine.match", "toy_a", HELD),
        not_run("cosine.match", "neox"),
        finding("naive.fails", "toy_a", REFUTED),
    )
    lines = {text for _, text in figures.left_out(record, [VALUES["ev_by_site"]])}
    assert "Decoder cosine (toy_a): left out, no claim that ran at this scale measures it" in lines
    assert "Decoder cosine (neox): left out, no cohort at neox" in lines
    assert "Steering dose curves: left out, no claim of steering ran" in lines
    assert not any(text.startswith("Explained variance") for text in lines)


def test_figures_that_need_no_model() -> None:
    nothing = record_of(finding("cosine.match", "toy_a", HELD))
    kinds = [figures.kind_of(value).name for value in figures.standing(nothing)]
    assert kinds == ["claims_and_controls"]
    assert figures.standing(record_of(finding("bars.missed", "toy_a", HELD))) == []
