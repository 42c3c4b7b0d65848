"""Training steps against straightforward ones, side by side; the ratio is in extra_info.

Deselect with `-m "not benchmark"` or `--benchmark-skip`.
"""

import time
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from polyrot.dictionaries import training as dictionary_training
from polyrot.runtime.device import cpu_has_bf16
from polyrot.runtime.seeding import torch_generator
from polyrot.toy import task, training, transformer
from polyrot.toy.schedule import Schedule
from tests_unit.toy.plain_transformer import PlainTransformer


def seconds(step, rounds=3):
    step()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times)


def plain_step(batch):
    """fp32, padded, eager: what one would write first."""
    model = PlainTransformer(transformer.initialise([0]))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    generator = torch_generator(0, "plain")

    def step():
        tokens = task.sequences(batch, generator)
        labels, keep = task.label(tokens), tokens != task.PAD
        logits, _ = model(tokens)
        loss = sum(F.cross_entropy(logits[h][keep], labels.head(h)[keep]) for h in task.HEADS)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return step


def suite_step(batch):
    """Packed, in the precision of this hardware, compiled where it can be, fused optimiser."""
    params = {n: p.requires_grad_() for n, p in transformer.initialise([0]).items()}
    optimiser = torch.optim.AdamW(params.values(), lr=1e-3, fused=True)
    stream = training.batches([0], Schedule(batch=batch), 0, torch.device("cpu"))
    compiled = training.can_compile()
    loss_of = partial(
        torch.compile(training._loss) if compiled else training._loss, bf16=cpu_has_bf16()
    )

    def step():
        training.backward(loss_of, params, *next(stream))
        training.clip_per_model([p.grad for p in params.values()], 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return step


@pytest.mark.benchmark(group="toy training step, batch 512")
def test_toy_step_against_a_straightforward_one(benchmark):
    plain = seconds(plain_step(512))
    step = suite_step(512)
    step()
    benchmark.pedantic(step, rounds=5)
    benchmark.extra_info["plain_seconds"] = plain
    if benchmark.stats is not None:  # --benchmark-disable, or workers of xdist
        benchmark.extra_info["ratio_to_plain"] = benchmark.stats.stats.min / plain


@pytest.mark.benchmark(group="dictionary step, 8 dictionaries of 512 features, batch 1024")
def test_batched_dictionary_step_against_one_after_another(benchmark):
    x = torch.randn(8, 4000, 64, generator=torch_generator(0, "x"))
    schedule = dictionary_training.Schedule(steps=10, batch=1024)

    def train(which):
        dictionary_training.train(x, which, which, [1e-3] * len(which), 512, schedule)

    single = seconds(lambda: [train([i]) for i in range(8)], rounds=1)
    benchmark.pedantic(lambda: train(list(range(8))), rounds=2)
    benchmark.extra_info["one_after_another_seconds"] = single
    if benchmark.stats is not None:
        benchmark.extra_info["ratio"] = benchmark.stats.stats.min / single
