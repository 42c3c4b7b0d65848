"""What gathering moments costs beside the bare matrix products that it cannot do without.

The design asks for at least 70 % of the machine's matrix-product rate. Both are timed batch by
batch, one after the other, so that they meet the same load: the products alone, of the same shapes
and precision into memory that is there already, and `MomentAccumulator.update`, which also centres
the rows and sums over batches in float64. By default d = 4096 in float32; the environment variable
POLYROT_BENCHMARK_FULL=1 takes d = 4096 and 8192, in both precisions. The share goes to `extra_info`
of the benchmark's JSON; nothing is asserted of time.
"""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from torch import Tensor

from polyrot.maps.moments import MomentAccumulator
from polyrot.runtime.seeding import torch_generator

WARM_UP = 128  # rows; the first calls set the libraries up, and touch the memory
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


def measure(d: int, precision: str, tokens: int, batches: int) -> dict[str, float]:
    """Seconds of both, for means, both covariances and the cross-covariance of float32 rows."""
    dtype = PRECISIONS[precision]
    accumulator = MomentAccumulator(1, auto=True, precision=dtype)
    into = [torch.empty(d, d, dtype=dtype) for _ in range(3)]
    total, seconds = torch.zeros(d, d, dtype=torch.float64), {"products": 0.0, "streaming": 0.0}

    def products(a: Tensor, b: Tensor) -> None:
        for (left, right), out in zip(((a, b), (a, a), (b, b)), into, strict=True):
            torch.mm(left.T, right, out=out)

    for i in range(batches + 1):
        drawn = torch_generator(i, "benchmark")
        rows = tokens if i else WARM_UP
        a, b = (torch.randn(rows, d, generator=drawn) for _ in range(2))
        wide = a.to(dtype), b.to(dtype)
        start = time.perf_counter()
        products(*wide)
        middle = time.perf_counter()
        accumulator.update([a], b)
        end = time.perf_counter()
        total += into[0]
        if i:
            seconds["products"] += middle - start
            seconds["streaming"] += end - middle
    # The products were taken around 0, which is within noise of the mean of these rows.
    (found,) = accumulator.moments()
    n = WARM_UP + tokens * batches
    around = total / n - torch.outer(found.mean_a, found.mean_b)
    torch.testing.assert_close(found.cross, around, rtol=0, atol=1e-5)
    return seconds


def test_share_of_the_matrix_product_rate(benchmark: Any) -> None:
    full = bool(os.environ.get("POLYROT_BENCHMARK_FULL"))
    cases = [(d, p) for d in (4096, 8192) for p in PRECISIONS] if full else [(4096, "float32")]
    tokens, batches = 4096 if full else 2048, 3 if full else 2
    if benchmark.disabled:
        cases, tokens = [(256, "float32"), (256, "float64")], 512
    found: dict[str, dict[str, float]] = {}

    def side_by_side() -> None:
        for d, precision in cases:
            seconds = measure(d, precision, tokens, batches)
            products = 3 * batches * 2 * tokens * d * d
            found[f"d = {d}, {precision}"] = {
                "share": seconds["products"] / seconds["streaming"],
                "gflops_products": products / seconds["products"] / 1e9,
                "gflops_streaming": products / seconds["streaming"] / 1e9,
            }

    benchmark.pedantic(side_by_side, rounds=1, iterations=1)
    benchmark.extra_info.update(
        cases=found, tokens_a_batch=tokens, batches=batches, threads=torch.get_num_threads()
    )
