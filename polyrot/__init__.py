"""polyrot: are two networks' activations one structure, seen through a rotation?

The functions that most people want, loaded when they are first used: importing polyrot imports
neither torch nor SciPy.

>>> import numpy as np
>>> import polyrot
>>> rng = np.random.default_rng(0)
>>> anchor = rng.standard_normal((2000, 16)) * np.linspace(1, 4, 16)
>>> turn = polyrot.sample_haar(16, 1, rng)[0]
>>> found = polyrot.compare(anchor @ turn.T, anchor)
>>> found.naive_ev < 0 < 0.999 < found.rotated_ev
True

`a` is the sibling and `b` the anchor throughout, rows are tokens, and a @ r ~ b. NumPy arrays and
lists give NumPy arrays, torch tensors give torch tensors. `polyrot --help` has the same for files.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polyrot.haar.battery import BatteryResult, StatisticResult, haar_battery
    from polyrot.haar.orthogonal import NotOrthogonalError, sample_haar
    from polyrot.maps.checks import BadActivations
    from polyrot.maps.cka import linear_cka
    from polyrot.maps.explained_variance import explained_variance
    from polyrot.maps.matching import max_cosine
    from polyrot.maps.procrustes import Rotation, fit_rotation
    from polyrot.measures.comparison import Comparison, MapScores, compare

#: The one place where the version is written: the package's metadata is made from it.
__version__ = "0.2.0"

_HOMES = {
    "BadActivations": "polyrot.maps.checks",
    "BatteryResult": "polyrot.haar.battery",
    "Comparison": "polyrot.measures.comparison",
    "MapScores": "polyrot.measures.comparison",
    "NotOrthogonalError": "polyrot.haar.orthogonal",
    "Rotation": "polyrot.maps.procrustes",
    "StatisticResult": "polyrot.haar.battery",
    "compare": "polyrot.measures.comparison",
    "explained_variance": "polyrot.maps.explained_variance",
    "fit_rotation": "polyrot.maps.procrustes",
    "haar_battery": "polyrot.haar.battery",
    "linear_cka": "polyrot.maps.cka",
    "max_cosine": "polyrot.maps.matching",
    "sample_haar": "polyrot.haar.orthogonal",
}

__all__ = [
    "BadActivations",
    "BatteryResult",
    "Comparison",
    "MapScores",
    "NotOrthogonalError",
    "Rotation",
    "StatisticResult",
    "__version__",
    "compare",
    "explained_variance",
    "fit_rotation",
    "haar_battery",
    "linear_cka",
    "max_cosine",
    "sample_haar",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
