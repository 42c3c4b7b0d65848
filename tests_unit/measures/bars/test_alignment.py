"""A planted symmetry is undone, an unrelated model is not, a joint descent cannot lose twice."""

from dataclasses import replace

import pytest
import torch

from polyrot.maps.null_space import haar_block
from polyrot.measures.bars import joint
from polyrot.measures.bars.alignment import (
    align,
    fit_inside,
    largest_difference,
    rescaled,
    search,
    tensor_mse,
)
from polyrot.measures.bars.overlap import (
    Overlap,
    activation_overlap,
    best_rotation,
    descend,
    weight_overlap,
)
from polyrot.runtime.seeding import torch_generator
from polyrot.toy import symmetry, transformer
from polyrot.toy.folding import fold
from polyrot.toy.symmetry import act, rotate

PLANTED = 20


def lively(seeds):
    generator = torch_generator(2, "gains")
    return fold(
        {
            name: x * (0.5 + torch.rand(x.shape, generator=generator))
            if name.startswith("norm")
            else 8 * x
            for name, x in transformer.initialise(seeds).items()
        }
    )


@pytest.fixture(scope="module")
def folded():
    return lively([0, 1])


@pytest.mark.slow  # every symmetry of a toy is looked for
def test_planted_elements_are_undone(folded):
    anchor = folded.select([0])
    element = symmetry.random(PLANTED, torch_generator(3, "planted"))
    planted = act(element, anchor.select([0] * PLANTED))
    assert largest_difference(planted, anchor.select([0] * PLANTED)).min() > 0.1
    found = align(planted, anchor, torch_generator(3, "starts"), starts=1)
    assert found.difference.max() < 1e-4
    back = element.then(found.element.to(torch.float32))
    eye = torch.eye(64).expand(PLANTED, -1, -1)
    assert torch.allclose(back.residual, eye, atol=1e-4)
    assert torch.equal(back.heads, symmetry.identity(PLANTED).heads)
    assert torch.equal(back.neurons, symmetry.identity(PLANTED).neurons)


def test_planted_without_rotation_is_found_without_it(folded):
    anchor = folded.select([0])
    inner = ("heads", "qk", "vo", "neurons", "scales")
    element = symmetry.random(1, torch_generator(4, "planted"), inner)
    found = align(act(element, anchor), anchor, torch_generator(4, "starts"), starts=2, steps=5)
    assert found.difference.max() < 1e-4


def test_another_model_is_not_aligned(folded):
    found = align(
        folded.select([1]), folded.select([0]), torch_generator(5, "starts"), starts=1, steps=20
    )
    assert found.difference.item() > 0.1
    assert 1e-3 < found.largest.item() <= found.searched.item() <= found.unaligned.item()
    moved = act(found.element, folded.select([1]).to(torch.float64))
    again = tensor_mse(moved, folded.select([0]).to(torch.float64)).amax(1)
    assert torch.allclose(again, found.largest)


def test_rescaled_neurons_undo_a_planted_scale_and_never_do_worse(folded):
    models = folded.to(torch.float64)
    anchor, other = models.select([0, 0]), models.select([0, 1])
    element = symmetry.identity(2).to(torch.float64)
    scales = element.scales.clone()
    scales[:, :, ::2] = 1.5
    scaled = act(replace(element, scales=scales), other)
    before = tensor_mse(scaled, anchor)
    after = rescaled(scaled, anchor)
    assert before[0].amax() > 1e-3
    assert after[0] < 1e-4 * before[0].amax(), "the anchor itself, but for the grid of scales"
    assert 0.1 * before[1].amax() < after[1] <= before[1].amax(), "a stranger stays one"
    assert torch.equal(tensor_mse(scaled, anchor), before), "what is given is left as it is"


def test_a_batch_of_starts_is_each_start_alone(folded):
    siblings, anchors = folded.select([1]).to(torch.float64), folded.select([0]).to(torch.float64)
    heads = torch.rand(3, 2, 4, generator=torch_generator(6, "heads")).argsort(-1)
    elements, scores = search(siblings, anchors, heads, rounds=3)
    alone = torch.cat([search(siblings, anchors, h[None], rounds=3)[1] for h in heads], 2)
    assert torch.allclose(scores, alone)
    moved = act(elements, siblings.select([0] * 6))
    assert torch.allclose(
        tensor_mse(moved, anchors.select([0] * 6)).amax(1).reshape(1, 2, 3), scores
    )


def test_anchors_must_match(folded):
    with pytest.raises(ValueError, match="2 anchors for 3 siblings"):
        align(folded.select([0, 1, 0]), folded, torch_generator(0, "s"), starts=1)


def test_weight_overlap_is_the_error_it_stands_for(folded):
    a, b = (folded.select([i]).to(torch.float64) for i in (0, 1))
    r = haar_block(64, torch_generator(7, "r"), batch=(1,))
    assert torch.allclose(weight_overlap(b, a).errors(r), tensor_mse(rotate(r, b), a))


def test_activation_overlap_is_the_error_it_stands_for():
    generator = torch_generator(8, "x")
    x = torch.randn(3, 500, 64, generator=generator, dtype=torch.float64) + 1
    r = haar_block(64, generator, batch=(2,))
    found = activation_overlap(["site"], [x]).errors(r)[:, 0]
    around = (x[0] - x[0].mean(0)).square().sum()
    for i in range(2):
        expected = (x[1 + i] @ r[i] - x[0]).square().sum() / around
        assert found[i].item() == pytest.approx(expected.item())


@pytest.mark.parametrize("flip", [False, True])
def test_descent_reaches_the_best_rotation_of_its_class(flip):
    generator = torch_generator(9, "cross")
    cross = torch.randn(3, 16, 16, generator=generator, dtype=torch.float64)
    best = best_rotation(cross, flip=flip)
    wobble = torch.linalg.matrix_exp(
        0.2 * (lambda a: a - a.mT)(torch.randn(3, 16, 16, generator=generator).double())
    )
    loss = Overlap(("x",), torch.zeros(3, 1).double(), cross[:, None])

    def objective(r):
        return loss.errors(r)[:, 0]

    found = descend(best @ wobble, objective, steps=300)
    assert torch.equal(torch.linalg.det(found).sign(), torch.linalg.det(best).sign())
    assert torch.allclose(objective(found), objective(best), rtol=1e-3)
    assert bool((objective(found) >= objective(best) - 1e-9).all())


def test_descent_never_ends_above_its_start():
    cross = torch.randn(2, 16, 16, generator=torch_generator(10, "cross"), dtype=torch.float64)
    best = best_rotation(cross)
    found = descend(best, lambda r: -(cross * r).sum((1, 2)), steps=5)
    assert torch.equal(found, best)


@pytest.fixture(scope="module")
def jointly(folded):
    siblings, anchors = folded.select([1]), folded.select([0])
    generator = torch_generator(11, "activations")
    shared = torch.randn(800, 64, generator=generator)
    turn = haar_block(64, generator).float()
    noise = 0.3 * torch.randn(800, 64, generator=generator)
    activations = activation_overlap(["site"], [torch.stack([shared, shared @ turn.T + noise])])
    start = replace(
        fit_inside(siblings.to(torch.float64), anchors.to(torch.float64)),
    )
    return joint.align_jointly(siblings, anchors, start, activations, [1.0], steps=60)


def test_joint_descent_is_worse_on_both_at_no_weighting(jointly):
    assert jointly.worse_on_both().item() == 0
    curve = jointly.curve()[0]
    weight_end, activation_end = jointly.ends[0]
    # Neurons are matched by cosine, so that refitting them can still gain a little at the end.
    assert curve[:, 0].min() >= 0.99 * weight_end[0]
    assert curve[:, 1].min() >= activation_end[1] - 1e-9
    # From one end of the trade-off to the other.
    assert torch.allclose(curve[0, :2], weight_end[:2], atol=0.02)
    assert torch.allclose(curve[-1, 1], activation_end[1], atol=0.02)


def test_joint_loss_is_below_both_ends_and_near_the_bound(jointly):
    for i, lam in enumerate(joint.WEIGHTINGS):
        at_ends = (1 - lam) * jointly.ends[0, :, 0] + lam * jointly.ends[0, :, 1]
        assert bool((jointly.loss[0, i] <= at_ends + 1e-9).all())


def test_published_loss_maximises_the_weight_term(jointly):
    weight = jointly.published[0, :, :, 0].mean(1)
    assert weight[-1] > weight[2] > weight[0]


def test_worse_on_both_can_be_found():
    ends = torch.tensor([[[0.1, 0.9, 0.0], [0.9, 0.1, 0.0]]])
    n = len(joint.WEIGHTINGS)
    bad = torch.full((1, n, 2, 3), 0.95)
    flat = torch.zeros(1, n, 2)
    published = torch.full((1, len(joint.PUBLISHED_WEIGHTINGS), 2, 3), 0.95)
    found = joint.Joint(ends, bad, flat, flat, published, torch.zeros(1))
    assert found.worse_on_both().item() == 1
    assert bool(found.published_worse_on_both().all())
    found = replace(found, convex=torch.full((1, n, 2, 3), 0.5))
    assert found.worse_on_both().item() == 0


def test_joint_survives_the_store(jointly):
    again = joint.Joint.from_tensors(jointly.to_tensors())
    assert torch.equal(again.convex, jointly.convex)


def test_joint_needs_as_many_of_each(folded):
    activations = activation_overlap(["site"], [torch.randn(2, 100, 64)])
    with pytest.raises(ValueError, match="as many pairs"):
        joint.align_jointly(folded, folded, symmetry.identity(2), activations, [1.0])
