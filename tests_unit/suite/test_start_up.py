"""What asks for no figure imports nothing heavy: answers about the suite itself come in a second or
two. Each heavy package is put out of reach, so that whoever imports one fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "matplotlib", "tokenizers")


def pytest_without(heavy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    for name in HEAVY:
        (heavy / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "claims", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(heavy)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--co"], 0, "test_cosine.py::test_columns_match_above_half[toy_a]"),
        (["--help"], 0, "--neox-width"),
        (["--scale", "toy_c"], 4, "toy_c"),
        (["--no-such-option"], 4, "--no-such-option"),
        # Workers collect, and are given nothing.
        pytest.param(["-k", "no_such_claim", "-n", "2"], 5, "", marks=pytest.mark.slow),
    ],
    ids=["collect", "help", "misspelt scale", "misspelt option", "workers"],
)
def test_nothing_heavy_is_imported(
    tmp_path: Path, arguments: list[str], status: int, said: str
) -> None:
    ran = pytest_without(tmp_path, *arguments)
    out = ran.stdout + ran.stderr
    assert "was imported" not in out, out[-3000:]
    assert ran.returncode == status, out[-3000:]
    assert said in out


def test_whatever_imports_a_heavy_package_would_show(tmp_path: Path) -> None:
    ran = pytest_without(tmp_path, "--co", "--neox-width", "512")  # checked by a model's own words
    assert ran.returncode != 0
    assert "was imported" in ran.stdout + ran.stderr
