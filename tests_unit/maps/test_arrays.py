"""One way in for arrays: what is welcome, what comes back, and what is refused and how."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

import polyrot
from polyrot.maps.arrays import read
from polyrot.maps.checks import BadActivations
from polyrot.maps.procrustes import Affine, Shift

TOKENS, D = 200, 3


def rows(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((TOKENS, D))


CALLS: dict[str, Callable[[Any], object]] = {
    "compare, a": lambda x: polyrot.compare(x, rows(1)),
    "compare, b": lambda x: polyrot.compare(rows(1), x),
    "fit_rotation": lambda x: polyrot.fit_rotation(x, rows(1)),
    "explained_variance": lambda x: polyrot.explained_variance(rows(1), x),
    "linear_cka": lambda x: polyrot.linear_cka(x, rows(1)),
    "max_cosine": lambda x: polyrot.max_cosine(x, rows(1), features="rows"),
    "haar_battery": lambda x: polyrot.haar_battery(x, draws=50),
    "apply": lambda x: polyrot.fit_rotation(rows(0), rows(1)).apply(x),
}

BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "integers": (lambda: np.ones((TOKENS, D), dtype=np.int64), r"int64.*x\.astype\(float\)"),
    "booleans": (lambda: np.ones((TOKENS, D), dtype=bool), "bool"),
    "integer tensor": (lambda: torch.ones(TOKENS, D).long(), r"int64.*x\.float\(\)"),
    "complex": (lambda: rows() * 1j, "complex"),
    "complex tensor": (lambda: torch.from_numpy(rows() * 1j), "complex"),
    "objects": (lambda: rows().astype(object), "dtype object"),
    "text": (lambda: [["a", "b"]] * TOKENS, "dtype <U1"),
    "nothing": (lambda: None, "a NoneType"),
    "ragged": (lambda: [[1.0, 2.0], [3.0]], "no array of numbers"),
    "sparse": (lambda: scipy.sparse.csr_array(rows()), r"sparse.*toarray"),
    "sparse tensor": (lambda: torch.from_numpy(rows()).to_sparse(), r"sparse.*to_dense"),
    "meta": (lambda: torch.empty(TOKENS, D, device="meta"), "meta device"),
    "masked": (lambda: np.ma.masked_greater(rows(), 0.5), "masked"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("call", CALLS)
def test_what_is_no_array_of_real_floats_is_refused(call: str, bad: str) -> None:
    make, says = BAD[bad]
    with pytest.raises(ValueError, match=says) as refused:
        CALLS[call](make())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("call", ["compare, a", "compare, b", "fit_rotation", "apply"])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_another_width_is_refused_and_one_column_does_not_broadcast(call: str, width: int) -> None:
    with pytest.raises(BadActivations, match=r"dimensions where|\[\.\.\., 3\] is expected"):
        CALLS[call](np.random.default_rng(2).standard_normal((TOKENS, width)))


@pytest.mark.parametrize("x", [np.ones((5, 1)), torch.ones(5, 1), np.float64(1.0)])
def test_no_map_applies_to_another_width(x: Any) -> None:
    zero, one = torch.zeros(4), torch.eye(4)
    for mapping in (
        polyrot.Rotation(one, zero, zero, zero, 4),
        Affine(one, zero, zero, 4),
        Shift(zero, zero),
    ):
        with pytest.raises(BadActivations, match=r"\[\.\.\., 4\] is expected"):
            mapping.apply(x)
        assert mapping.apply(np.ones((2, 5, 4))).shape == (2, 5, 4)


def test_numpy_in_numpy_out_torch_in_torch_out() -> None:
    a, b = rows(0), rows(1)
    x, y = torch.from_numpy(a).requires_grad_(), torch.from_numpy(b)
    for fit, kind in (
        (polyrot.fit_rotation(a, b), np.ndarray),
        (polyrot.fit_rotation(a.tolist(), b.tolist()), np.ndarray),
        (polyrot.compare(a, b).rotation, np.ndarray),
        (polyrot.fit_rotation(x, y), torch.Tensor),
        (polyrot.fit_rotation(x, b), torch.Tensor),
        (polyrot.fit_rotation(a, y), torch.Tensor),
        (polyrot.compare(x, y).rotation, torch.Tensor),
    ):
        assert all(
            isinstance(value, kind)
            for value in (fit.r, fit.mean_a, fit.mean_b, fit.singular_values)
        )
        # Applied to either, whatever it was fitted on.
        assert isinstance(fit.apply(a), np.ndarray)
        assert isinstance(fit.apply(x), torch.Tensor)
        assert not fit.apply(x).requires_grad
        np.testing.assert_allclose(fit.apply(x).numpy(), fit.apply(a))
        assert fit.det == pytest.approx(np.linalg.det(np.asarray(fit.r)))
    assert isinstance(polyrot.max_cosine(a, b, features="rows"), np.ndarray)
    assert isinstance(polyrot.max_cosine(x, y, features="rows"), torch.Tensor)
    np.testing.assert_array_equal(polyrot.fit_rotation(a, b).r, polyrot.fit_rotation(x, y).r)
    assert polyrot.haar_battery(polyrot.fit_rotation(x, y).r, draws=50).d == D


def test_precision_is_kept() -> None:
    fit = polyrot.fit_rotation(rows(0), rows(1))
    for dtype, wide in ((np.float16, np.float32), (np.float32, np.float32), (np.float64,) * 2):
        assert fit.apply(rows().astype(dtype)).dtype == wide
    assert (
        polyrot.max_cosine(
            rows().astype(np.float32), rows().astype(np.float32), features="rows"
        ).dtype
        == np.float32
    )


def test_unusual_memory_is_read_as_it_is_and_not_written() -> None:
    x = rows()
    still = x.copy()
    still.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for same in (still, x[::-1][::-1], x.astype(">f8"), x.astype(np.longdouble), x.tolist()):
            (found,) = read(same, where=("x",)).tensors
            np.testing.assert_array_equal(found.numpy(), x)
        (turned,) = read(x[::-1, ::-1], where=("x",)).tensors
    np.testing.assert_array_equal(turned.numpy(), x[::-1, ::-1])
    polyrot.compare(still, still @ np.diag([1.0, -1.0, 1.0]))
    np.testing.assert_array_equal(still, x)


def test_whole_numbers_in_lists_are_numbers() -> None:
    assert polyrot.explained_variance([[0, 1], [2, 3]], [[1, 2], [1, 2]]) == 0.0
