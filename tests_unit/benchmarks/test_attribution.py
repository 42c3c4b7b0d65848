"""What attribution costs: all components as one batched program, and one after the other.

The plain loop replaces one component at one point of the path at a time, through the training's
forward pass. Ratios go to `extra_info` of the benchmark's JSON; nothing is asserted of time.
Without pytest-benchmark's `--benchmark-enable` or `--benchmark-only` few sequences are taken, and
only the results are compared.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import Tensor

from polyrot.measures.component_effects import integrated_gradients
from polyrot.toy import task, training, transformer
from polyrot.toy.cohort import ToyCohort
from tests_unit.maps.rotated_pair import strong_params


def plain(cohort: ToyCohort, tokens: Tensor, steps: int) -> Tensor:
    """Integrated gradients, one component and one point at a time, [components]."""
    params, means = cohort.params, cohort.mean_writes(0)
    kept = tokens != task.PAD
    labels = {head: task.label(tokens).head(head)[None] for head in task.HEADS}
    clean = transformer.forward(params, tokens, capture=transformer.COMPONENTS).captured
    effects = []
    for i, name in enumerate(transformer.COMPONENTS):
        way, total = means[i] - clean[name], torch.zeros(())
        for step in range(steps):
            write = (clean[name] + (step + 0.5) / steps * way).requires_grad_()
            edits: dict[str, transformer.Edit] = {name: lambda _, write=write: write}
            logits = transformer.forward(params, tokens, edits=edits).logits
            loss = training.losses(logits, labels, kept[None]).sum()
            (gradient,) = torch.autograd.grad(loss, write)
            total = total + (gradient * way).sum() / steps
        effects.append(total)
    return torch.stack(effects).double()


def test_integrated_gradients_of_all_components(benchmark: Any) -> None:
    cohort = ToyCohort("toy_a", (0,), strong_params(), ["strong random weights"])
    sequences, steps = (64, 8) if benchmark.enabled else (8, 2)
    tokens = cohort.intervention_tokens(sequences)
    cohort.mean_writes(0)
    started = time.perf_counter()
    wanted = plain(cohort, tokens, steps)
    loop_s = time.perf_counter() - started
    found = benchmark.pedantic(
        lambda: integrated_gradients(cohort, 0, tokens, steps),
        rounds=3 if benchmark.enabled else 1,
    )
    if benchmark.enabled:
        benchmark.extra_info["loop_s"] = loop_s
        benchmark.extra_info["loop_over_batched"] = loop_s / benchmark.stats.stats.min
    torch.testing.assert_close(found.effects, wanted, atol=2e-4, rtol=2e-3)
    assert found.effects.shape == (len(transformer.COMPONENTS),)


@pytest.mark.parametrize("at_once", [1, 10])
def test_all_components_at_once(
    benchmark: Any, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same program with one variant at a time, and with ten."""
    monkeypatch.setattr("polyrot.measures.component_effects.AT_ONCE", at_once)
    cohort = ToyCohort("toy_a", (0,), strong_params(), ["strong random weights"])
    tokens = cohort.intervention_tokens(64 if benchmark.enabled else 4)
    cohort.mean_writes(0)
    ig = benchmark.pedantic(lambda: integrated_gradients(cohort, 0, tokens, 4), rounds=1)
    assert bool(ig.effects.isfinite().all())
