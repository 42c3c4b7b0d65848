"""What the multi-start search costs: all starts of all pairs as one program, or one by one.

The ratio goes to `extra_info` of the benchmark's JSON; nothing is asserted of time. Without
pytest-benchmark's `--benchmark-enable` or `--benchmark-only` the size is small, and only results
are compared. POLYROT_BENCHMARK_FULL=1 takes the protocol's 16 starts of 4 pairs.
"""

import os
import time

import pytest
import torch

from polyrot.measures.bars.alignment import search
from polyrot.runtime.seeding import torch_generator
from polyrot.toy import transformer
from polyrot.toy.folding import Folded, fold


def one_by_one(siblings: Folded, anchors: Folded, heads: torch.Tensor, rounds: int) -> torch.Tensor:
    """The same search, one start of one pair at a time."""
    scores = []
    for i in range(len(siblings)):
        alone = [
            search(siblings.select([i]), anchors.select([i]), h[None], rounds=rounds)[1]
            for h in heads
        ]
        scores.append(torch.cat(alone, 2))
    return torch.cat(scores)


@pytest.mark.benchmark(group="alignment")
def test_search(benchmark, pytestconfig):
    timed = pytestconfig.getoption("benchmark_enable") or pytestconfig.getoption("benchmark_only")
    full = os.environ.get("POLYROT_BENCHMARK_FULL") == "1"
    pairs, starts, rounds = (4, 16, 6) if full else (4, 4, 3) if timed else (2, 1, 2)
    params = {
        n: x if n.startswith("norm") else 8 * x
        for n, x in transformer.initialise(range(pairs + 1)).items()
    }
    folded = fold(params).to(torch.float64)
    siblings, anchors = folded.select(range(1, pairs + 1)), folded.select([0] * pairs)
    generator = torch_generator(0, "benchmark")
    heads = torch.rand(starts, 2, 4, generator=generator).argsort(-1)
    started = time.perf_counter()
    plain = one_by_one(siblings, anchors, heads, rounds)
    seconds = time.perf_counter() - started

    def batched() -> torch.Tensor:
        return search(siblings, anchors, heads, rounds=rounds)[1]

    found = benchmark.pedantic(batched, rounds=1 if not timed else 3, warmup_rounds=0)
    assert torch.allclose(found, plain)
    benchmark.extra_info["pairs x starts x rounds"] = [pairs, starts, rounds]
    benchmark.extra_info["one start at a time, s"] = seconds
    if timed:
        ratio = benchmark.stats.stats.mean / seconds
        benchmark.extra_info["batched over one at a time"] = ratio
