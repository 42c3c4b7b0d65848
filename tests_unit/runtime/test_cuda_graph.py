"""A captured step does what the step does. Nothing of it can run without a GPU."""

import pytest
import torch

from polyrot.runtime.cuda_graph import WARM_UP, CudaGraph
from polyrot.toy import training
from polyrot.toy.schedule import Schedule

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="CUDA graphs need a GPU: run pytest where there is one"
)


def test_a_captured_step_trains_as_the_step_does():
    steps = WARM_UP + 5
    generator = torch.Generator("cuda").manual_seed(1)
    xs = torch.randn(steps, 3, 32, 8, generator=generator, device="cuda")
    xs = xs[:, :, ::2]  # strided, as batches are

    def run(captured):
        w = torch.ones(3, 8, 1, device="cuda", requires_grad=True)
        optimiser = torch.optim.AdamW(
            [w], lr=torch.tensor(0.1, device="cuda"), fused=True, capturable=True
        )

        def step(x):
            optimiser.zero_grad()
            loss = (x @ w - x[..., :1]).square().mean((1, 2))
            loss.sum().backward()
            optimiser.step()
            return loss.detach()

        take = CudaGraph(step) if captured else step
        losses = []
        for k, x in enumerate(xs):
            optimiser.param_groups[0]["lr"].fill_(0.1 / (k + 1))
            losses.append(take(x).clone())
        return torch.stack(losses), w.detach()

    (plain, w), (captured, again) = run(False), run(True)
    torch.testing.assert_close(captured, plain)
    torch.testing.assert_close(again, w)


def test_a_toy_trains_captured_as_it_does_plainly():
    schedule = Schedule(steps=1000, batch=32, warmup=5)
    plain, captured = (
        training.train([5, 6], schedule, device="cuda", stop_after=15, compiled=compiled)
        for compiled in (False, True)
    )
    got, wanted = torch.tensor(captured.early_losses), torch.tensor(plain.early_losses)
    torch.testing.assert_close(got, wanted, rtol=0.03, atol=0)
