"""How many threads are taken, decided here alone: torch's, and those of NumPy's and SciPy's BLAS.

The matrices here are small. An orthogonal one 128 wide is drawn in 2 ms by one thread of OpenBLAS
and in 7 ms by two, which wait for each other in busy loops; beside other processes, which the
waiting takes the cores from, it is far worse. So LAPACK's work runs on one thread up to a width of
`ONE_THREAD_BELOW`, torch's products on two, and threads that wait sleep.

It does not import torch, and is to run before torch is imported, which reads its environment then.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache

from threadpoolctl import ThreadpoolController, threadpool_limits

ONE_THREAD_BELOW = 1024
"""Width of matrices from which NumPy's and SciPy's BLAS may take more threads than one."""
TORCH_THREADS = 2
"""Enough for the activations of small models; large ones take what there is."""


def wait_asleep() -> None:
    """Have threads of OpenMP, torch's among them, sleep while they wait, unless the environment
    says how they are to. Without effect once torch is imported."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def blas_for(width: int) -> AbstractContextManager[object]:
    """A context in which NumPy's and SciPy's linear algebra of matrices so wide takes as many
    threads as serve it.

    >>> import numpy as np
    >>> with blas_for(64):
    ...     q = np.linalg.qr(np.eye(64))[0]
    """
    if width >= ONE_THREAD_BELOW:
        return nullcontext()
    return _controller().limit(limits=1, user_api="blas")


def settle(torch_threads: int | None = None) -> None:
    """For a whole program: BLAS on one thread; torch on so many, or as it finds them."""
    import scipy.linalg  # noqa: F401  (both bring a BLAS of their own, which is to be there)

    threadpool_limits(limits=1, user_api="blas")
    if torch_threads is not None:
        import torch

        torch.set_num_threads(torch_threads)


def fair_share(workers: int = 1) -> int:
    """Threads of torch for each of so many processes of a run of small models.

    A limit of the environment's (OMP_NUM_THREADS) holds.
    """
    import torch

    return max(1, min(TORCH_THREADS, torch.get_num_threads() // max(1, workers)))
