"""The differential test: an independent stub agrees, and whatever deviates in it is named."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from polyrot.dictionaries.sae import Dictionary
from polyrot.measures.differential import quantities
from polyrot.measures.differential.__main__ import main
from polyrot.measures.differential.pipeline import NAMES, NoPipeline, opened
from polyrot.measures.differential.quantities import (
    QUANTITIES,
    TOLERANCE,
    Row,
    Sides,
    compare,
)
from polyrot.runtime.seeding import torch_generator
from polyrot.toy import transformer
from polyrot.toy.cohort import ToyCohort
from tests_unit.measures import differential_stub as stub

N, OF_MODELS = 24, (0, 2)
pytestmark = pytest.mark.slow  # a second pipeline is run beside the first, many times

MATCHED = ("fraction", "mean cosine")
EFFECTS = ("attribution patching", "integrated gradients")
QUICK = tuple(name for name in QUANTITIES if name not in EFFECTS)


class Small(ToyCohort):
    """Strong random weights with gains that fold, on few sequences."""

    def __init__(self) -> None:
        generator = torch_generator(0, "gains")
        params = {
            name: 1 + 0.3 * torch.randn(p.shape, generator=generator)
            if name.startswith("norm")
            else 8 * p
            for name, p in transformer.initialise([0, 1, 2]).items()
        }
        super().__init__("toy_a", (0, 1, 2), params, ["for a test"])
        self._tokens = {split: x[: N + 8] for split, x in self._tokens.items()}


def dictionary(*purpose: str | int, near: Dictionary | None = None) -> Dictionary:
    generator = torch_generator(0, "dictionary", *purpose)
    w_enc, w_dec, b_enc, bias = (
        torch.randn(shape, generator=generator) for shape in ((64, 128), (128, 64), (128,), (64,))
    )
    if near is not None:  # cosines about 0.5
        w_dec = near.w_dec + 0.2 * w_dec
    w_dec = w_dec / w_dec.norm(dim=1, keepdim=True)
    return Dictionary(w_enc / 8, 0.1 * b_enc, w_dec, 0.1 * bias, 0.1 * bias)


@pytest.fixture(autouse=True)
def _few_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantities, "STEPS", 4)
    monkeypatch.setattr(quantities, "ATTRIBUTED", 4)


@pytest.fixture(scope="module")
def cohort() -> ToyCohort:
    return Small()


@pytest.fixture(scope="module")
def anchors() -> dict[str, Dictionary]:
    return {site: dictionary(site) for site in transformer.SITES}


def rows_of(
    directory: Path,
    cohort: ToyCohort,
    anchors: dict[str, Dictionary],
    wanted: Sequence[str] = QUICK,
) -> list[Row]:
    others = {(m, s): dictionary(s, m, near=a) for s, a in anchors.items() for m in (1, 2)}
    with opened(directory) as pipeline:
        sides = Sides(cohort, OF_MODELS, anchors, others, pipeline, N)
        return list(compare(sides, wanted))


def names(rows: list[Row], status: str) -> set[str]:
    return {row.name for row in rows if row.status(TOLERANCE) == status}


def test_an_independent_pipeline_agrees_in_everything(
    tmp_path: Path, cohort: ToyCohort, anchors: dict[str, Dictionary]
) -> None:
    rows = rows_of(stub.write(tmp_path), cohort, anchors, tuple(QUANTITIES))
    assert [(row.name, row.difference) for row in rows if not row.agrees(TOLERANCE)] == []
    assert len({row.name for row in rows}) == len(rows) == 43
    size = {row.name: row.ours.shape for row in rows if row.ours is not None}
    assert size["attribution patching"] == (2, 10)
    assert size["EV naive, resid_mid_0"] == (1,)
    assert size["eigenphases"] == (5, 64)
    zeros = [row.name for row in rows if row.ours is not None and not row.ours.any()]
    assert [name for name in zeros if not name.startswith("accuracy")] == []  # of random weights


DEVIATIONS = {
    "the scale of scores": (
        ("model.py", "/ 4\n", "/ 5\n"),
        ["logits, token", "logits, depth", "logits, validity"],
        ["logits"],
    ),
    "positions": (
        ("model.py", "2 * np.pi", "np.pi"),
        ["logits, token", "logits, depth", "logits, validity"],
        ["logits"],
    ),
    "depth runs on once invalid": (
        ("task.py", "if token >= 3 and not invalid:", "if token >= 3:"),
        ["labels, depth", *(f"accuracy, {d}, depth" for d in ("train", "long"))],
        ["labels", "accuracies"],
    ),
    "padding counts": (
        (
            "experiments/cross_seed/utils.py",
            'counted = batch["mask"]',
            'counted = torch.ones_like(batch["mask"])',
        ),
        # Compositional sequences fill the context: there is no padding to count.
        [f"accuracy, {d}, {h}" for d in ("train", "long") for h in ("token", "depth", "validity")],
        QUICK,
    ),
    "variance around the mean vector": (
        ("experiments/cross_seed/exp1d_rotation_audit.py", "x.var(ddof=1)", "x.var(0).mean()"),
        [f"EV {kind}, {site}" for kind in ("naive", "rotated") for site in transformer.SITES],
        QUICK,
    ),
    "R the wrong way round": (
        ("experiments/cross_seed/exp1d_rotation_audit.py", "from_numpy(r)", "from_numpy(r.T)"),
        [f"EV rotated, {site}" for site in transformer.SITES],
        QUICK,
    ),
    "the least cosine": (
        ("analysis/lens2_saes.py", "best.append(max(", "best.append(min("),
        [f"decoder match, {s}, {w}" for s in transformer.SITES for w in MATCHED],
        QUICK,
    ),
    "another threshold": (
        ("analysis/lens2_saes.py", "> threshold", "> 0.6"),
        [f"decoder match, {s}, fraction" for s in transformer.SITES],
        QUICK,
    ),
    "phases are not folded": (
        ("experiments/scale/eigenvalue_spectrum.py", "np.abs(np.angle(", "(np.angle("),
        ["eigenphases", "KS statistic", "KS p-value"],
        QUICK,
    ),
    "each pair once": (
        ("experiments/scale/eigenvalue_spectrum.py", "R.numpy())))", "R.numpy())))[::2]"),
        ["eigenphases", "KS statistic", "KS p-value"],
        QUICK,
    ),
    "one side of the distance": (
        ("experiments/scale/eigenvalue_spectrum.py", "max(np.abs(gaps))", "max(gaps)"),
        ["KS statistic"],
        QUICK,
    ),
    "no distance": (
        ("experiments/scale/eigenvalue_spectrum.py", "max(np.abs(gaps))", 'float("nan")'),
        ["KS statistic"],
        QUICK,
    ),
    "permutations without signs": (
        ("experiments/scale/eigenvalue_spectrum.py", "size = np.abs(r)", "size = r"),
        ["nearest permutation"],
        QUICK,
    ),
    "from the mean alone": (
        ("analysis/lens3_causal.py", "share * (mean - x.detach())", "share * mean"),
        list(EFFECTS),
        EFFECTS,
    ),
    "at midpoints": (
        ("analysis/lens3_causal.py", "1 - k / n_steps", "1 - (k - 0.5) / n_steps"),
        ["integrated gradients"],
        EFFECTS,
    ),
    "gains stay": (
        ("rmsnorm_fold.py", "made.blocks:", "[]:"),
        ["Bar P before alignment"],
        QUICK,
    ),
    "half the error": (
        ("verification/bar_parametric.py", "float(np.mean(", "0.5 * float(np.mean("),
        ["Bar P before alignment"],
        QUICK,
    ),
}


@pytest.mark.parametrize("deviation", DEVIATIONS)
def test_a_deviation_is_named(
    tmp_path: Path, cohort: ToyCohort, anchors: dict[str, Dictionary], deviation: str
) -> None:
    (file, old, new), expected, wanted = DEVIATIONS[deviation]
    rows = rows_of(stub.write(tmp_path, (file, old, new)), cohort, anchors, wanted)
    assert names(rows, "differs") == set(expected)
    assert names(rows, "failed") == names(rows, "not offered") == set()


def test_what_is_not_offered_is_no_agreement(
    tmp_path: Path, cohort: ToyCohort, anchors: dict[str, Dictionary]
) -> None:
    gone = (
        "experiments/scale/eigenvalue_spectrum.py",
        "def best_permutation_distance",
        "def other",
    )
    cannot = ("verification/bar_parametric.py", "import numpy as np", "import no_such_library")
    directory = stub.write(tmp_path, gone, cannot)
    (directory / "src" / "polymorphism" / "analysis" / "lens2_saes.py").unlink()
    rows = {row.name: row for row in rows_of(directory, cohort, anchors)}
    reasons = {name: row.reason for name, row in rows.items() if not row.compared}
    assert set(reasons) == {
        "EV naive",
        "EV rotated",
        "decoder match",
        "nearest permutation",
        "Bar P before alignment",
    }
    assert names(list(rows.values()), "not offered") == set(reasons)
    assert (
        "eigenvalue_spectrum has no best_permutation_distance(R)" in reasons["nearest permutation"]
    )
    assert "No module named 'no_such_library'" in reasons["Bar P before alignment"]
    assert "No module named 'polymorphism.analysis.lens2_saes'" in reasons["EV naive"]
    assert not any(rows[name].agrees(1e9) for name in reasons)


def test_another_model_is_not_offered_and_a_crash_has_failed(
    tmp_path: Path, cohort: ToyCohort, anchors: dict[str, Dictionary]
) -> None:
    other = ("model.py", "W_U_tok=(40, 64)", "W_U_tok=(41, 64)")
    crash = ("task.py", "return {", "return 1 / 0, {")
    rows = {row.name: row for row in rows_of(stub.write(tmp_path, other, crash), cohort, anchors)}
    reason = rows["logits"].reason
    assert "make_model has other parameters: W_U_tok (41, 64) where (40, 64) is given" in reason
    assert rows["labels"].status(TOLERANCE) == "failed"
    assert "ZeroDivisionError" in rows["labels"].reason
    assert names(list(rows.values()), "agrees") == {
        f"decoder match, {s}, {w}" for s in transformer.SITES for w in MATCHED
    }


def test_rows_judge_every_entry() -> None:
    ours = np.array([1.0, 100.0])
    assert Row("x", ours + 0.009, ours).agrees(1e-4)
    assert not Row("x", ours + np.array([0.011, 0.0]), ours).agrees(1e-4)
    assert not Row("x", ours + np.array([np.nan, 0.0]), ours).agrees(1e-4)
    assert not Row("x", ours[:1], ours).agrees(1e-4)
    assert not Row("x", np.array([1e-9]), np.zeros(1)).agrees(1e-4)
    assert Row("x", np.zeros(1), np.zeros(1)).agrees(1e-4)
    assert not Row("x", reason="gone").agrees(1e-4)


def test_the_anchor_takes_part(cohort: ToyCohort, anchors: dict[str, Dictionary]) -> None:
    for models in ((1, 2), (0,)):
        with pytest.raises(ValueError, match="the anchor"):
            Sides(cohort, models, anchors, {}, None)  # type: ignore[arg-type]


def test_a_pipeline_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ModuleType("polymorphism")
    monkeypatch.setitem(sys.modules, "polymorphism", before)
    directory = stub.write(tmp_path)
    path = list(sys.path)
    for place in (directory, directory / "src", directory / "src" / "polymorphism"):
        with opened(place) as pipeline:
            for key in NAMES:
                assert callable(pipeline[key])
            assert sys.modules["polymorphism"] is not before
        assert sys.modules["polymorphism"] is before
        assert [name for name in sys.modules if name.startswith("polymorphism.")] == []
        assert sys.path == path
    assert list(directory.rglob("__pycache__")) == []


def test_no_pipeline(tmp_path: Path) -> None:
    for directory, match in ((tmp_path, "no package 'polymorphism'"), (tmp_path / "x", "no such")):
        with pytest.raises(NoPipeline, match=match), opened(directory):
            pass


# -------------------------------------------------------------------------------- the command


@pytest.fixture
def few_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


ONLY = ("logits", "labels", "nearest permutation", "Bar P before alignment")


def arguments(directory: Path, *more: str) -> list[str]:
    chosen = [word for name in ONLY for word in ("--only", name)]
    given = ["--pipeline", str(directory), "--artifacts", str(directory / "store")]
    return [*given, "--sequences", "16", *chosen, *more]


@pytest.mark.usefixtures("few_threads")
def test_the_shipped_seeds_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(stub.write(tmp_path), "--seeds", "0,3", "--only", "EV rotated")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "toy_a, seeds 0, 3; 16 sequences"
    assert lines[-1] == "14 of 14 quantities agree within 0.0001 of their largest entry"
    (row,) = [line for line in lines if line.startswith("EV rotated, resid_mid_1")]
    _, _, entries, theirs, ours, difference = row.rsplit(maxsplit=5)
    assert entries == "1"
    assert float(theirs) == pytest.approx(float(ours), abs=1e-4)
    assert 0.5 < float(ours) < 1
    assert float(difference) < 1e-4


@pytest.mark.usefixtures("few_threads")
def test_a_deviating_pipeline_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spectrum = "experiments/scale/eigenvalue_spectrum.py"
    signs = (spectrum, "size = np.abs(r)", "size = r")
    gone = ("verification/bar_parametric.py", "def per_tensor_mse", "def other")
    directory = stub.write(tmp_path, signs, gone)
    more = ("--scale", "toy_b", "--seeds", "104")
    assert main(arguments(directory, *more)) == 1
    table = capsys.readouterr().out
    closing = "1 differ: nearest permutation; 1 not offered by the pipeline: Bar P before alignment"
    assert table.splitlines()[-1].startswith("7 of 9 quantities agree")
    assert table.strip().endswith(closing)
    (row,) = [line for line in table.splitlines() if line.startswith("nearest permutation")]
    assert row.endswith("differs")
    assert main(arguments(directory, *more, "--json")) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["seeds"] == [100, 104]
    status = {row["quantity"]: row["status"] for row in found["rows"]}
    assert status["nearest permutation"] == "differs"
    assert status["Bar P before alignment"] == "not offered"
    assert found["closing"].endswith(closing)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--pipeline", "nowhere"], "nowhere: no such directory"),
        (["--seeds", "0,7"], "toy_a has no seed 7; it has 0, 1, 2, 3, 4"),
        (["--seeds", "0"], "the anchor (0) and a sibling at least"),
        (["--sequences", "3"], "--sequences 3: 8 at least"),
        (["--tolerance", "0"], "--tolerance 0.0: a positive number"),
        (["--schedule", "tiny"], "seeds 0-0 are neither shipped nor in"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], problem: str
) -> None:
    assert main(arguments(stub.write(tmp_path), *more)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert problem in error
    assert not (tmp_path / "store").exists()


def test_help_says_that_code_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    assert "runs the code in DIR" in told
    for name in NAMES.values():
        assert str(name) in told
