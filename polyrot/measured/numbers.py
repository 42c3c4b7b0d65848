"""Numbers as they may be handed over: real, finite, not changed afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def real(values: Any, what: str = "measured values") -> np.ndarray:
    """A copy of real numbers, float64. Raises ValueError for complex ones, of which a cast would
    drop a part without a word, for masked ones, texts, and whatever is no number."""
    try:
        # from a tensor by way of its own copy: it may need gradients or lie on a card
        given = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{what}: expected numbers ({error})") from error
    if given.dtype.kind == "O":  # such as numbers of other libraries, each by itself
        try:
            given = np.array([float(each) for each in given.ravel()]).reshape(given.shape)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{what}: expected real numbers ({error})") from error
    if given.dtype.kind not in "fiub":
        kind = "complex" if given.dtype.kind == "c" else str(given.dtype)
        raise ValueError(f"{what}: expected real numbers, got {kind}")
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError(f"{what}: {int(np.ma.count_masked(values))} are masked; leave them out")
    return np.array(given, dtype=np.float64)


def frozen(values: np.ndarray) -> np.ndarray:
    """Such a copy, which cannot be written to."""
    copy = real(values)
    copy.setflags(write=False)
    return copy


def require_finite(values: np.ndarray, labels: Sequence[str]) -> None:
    """Raise ValueError, naming the label of the first row of `values` that is not finite."""
    rows = values.reshape(len(values), -1) if values.size else values[:, None]
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if bad.size:
        raise ValueError(f"not finite: {values[bad[0]]} at {labels[bad[0]] or 'the only value'}")


def require_finite_figures(figures: Mapping[str, float | str]) -> None:
    """Raise ValueError, naming it, for a figure that is neither words nor one finite number."""
    for name, figure in figures.items():
        if isinstance(figure, str):
            continue
        found = real(figure, f"the figure {name}")
        if found.ndim or not np.isfinite(found):
            what = "not finite" if found.ndim == 0 else "not one number"
            raise ValueError(f"{what}: {figure} for the figure {name}")
