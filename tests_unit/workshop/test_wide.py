"""`.ci/wide`, which trains and judges wide language models in calls of ten minutes: what a call
does, with a python3 in its way that notes what it was asked and takes as long as it is told."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fixtures import options
from polyrot.workshop import __main__ as workshop

WIDE = Path(__file__).parents[2] / ".ci" / "wide"
PYTHON = """#!/usr/bin/env bash
echo "$*" >> "$CALLS"
case "$*" in
  *--estimate*) exit "${ESTIMATE_STATUS:-0}" ;;
  *polyrot.workshop*) sleep "${TRAINS:-0}"; exit "${TRAIN_STATUS:-0}" ;;
  *pytest*) sleep "${JUDGES:-0}"; exit "${JUDGE_STATUS:-0}" ;;
esac
"""


def call(folder: Path, **environment: str) -> tuple[int, list[str], str]:
    """Exit status, what python3 was asked, and what was said."""
    (folder / "python3").write_text(PYTHON)
    (folder / "python3").chmod(0o755)
    calls = folder / "calls"
    calls.write_text("")
    done = subprocess.run(
        ["bash", str(WIDE)],
        cwd=folder,
        env={
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            "CALLS": str(calls),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, calls.read_text().splitlines(), done.stderr


def test_what_is_trained_is_judged(tmp_path: Path) -> None:
    status, asked, _ = call(tmp_path, CLAIMS="-k universal", WIDTH="64", JUDGE_STATUS="1")
    assert status == 1, "that of the run"
    estimate, train, judge = asked
    assert estimate == f"{train} --estimate"
    for words in ("--schedule shipped", "--device cuda", "--artifacts build/wide"):
        assert words in train
        assert words in judge
    assert judge.endswith("--report out/wide -k universal")


@pytest.mark.parametrize(
    ("given", "said", "asked"),
    [
        ({"TRAINS": "30", "LIMIT": "2"}, "not trained to the end", 2),
        ({"TRAINS": "3", "LIMIT": "8"}, "trained, not judged", 2),
        ({"JUDGES": "30", "LIMIT": "5"}, "not judged to the end", 3),
        ({"TRAIN_STATUS": "130"}, "not trained to the end", 2),  # Ctrl-C
    ],
)
def test_a_call_ends_in_time_and_says_that_the_same_call_goes_on(
    given: dict[str, str], said: str, asked: int, tmp_path: Path
) -> None:
    status, calls, err = call(tmp_path, **given)
    assert (status, len(calls)) == (75, asked)
    assert said in err


@pytest.mark.parametrize("stage", ["ESTIMATE", "TRAIN"])
def test_what_fails_ends_the_call_with_its_status(stage: str, tmp_path: Path) -> None:
    status, calls, err = call(tmp_path, **{f"{stage}_STATUS": "3"})
    assert (status, err) == (3, "")
    assert len(calls) == (1 if stage == "ESTIMATE" else 2)


def test_what_it_asks_for_are_options_that_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, (_, train, judge), _ = call(tmp_path, WIDTH="100", DEVICE="cpu")
    with pytest.raises(SystemExit):
        workshop.main(train.split()[2:])
    assert "--neox-width 100: a width is" in capsys.readouterr().err
    known = {each.name for each in options.OPTIONS}
    given = {word for word in judge.split() if word.startswith("--")}
    assert given <= known
