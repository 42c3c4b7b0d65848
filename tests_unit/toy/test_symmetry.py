"""Every element of the group leaves every logit as it was, and the group is a group."""

import pytest
import torch
from hypothesis import assume, given, settings, strategies as st

from polyrot.runtime.seeding import torch_generator
from polyrot.toy import symmetry, task, transformer
from polyrot.toy.folding import TENSORS, fold, largest_logit_change
from polyrot.toy.symmetry import PARTS, act


def lively(seeds):
    generator = torch_generator(1, "gains")
    return fold(
        {
            name: x * (0.5 + torch.rand(x.shape, generator=generator))
            if name.startswith("norm")
            else 8 * x
            for name, x in transformer.initialise(seeds).items()
        }
    )


FOLDED = lively([3])
TOKENS = task.sequences(4, torch_generator(1, "tokens"))
LOGITS = FOLDED.run(TOKENS)
seeds = st.integers(0, 2**32)


def gap(a, b):
    return max(float((a[name] - b[name]).abs().max()) for name in TENSORS)


@settings(max_examples=20, deadline=None)
@given(seeds, st.sets(st.sampled_from(PARTS), min_size=1))
def test_no_logit_changes(seed, parts):
    element = symmetry.random(1, torch_generator(seed, "element"), sorted(parts))
    moved = act(element, FOLDED)
    unmoved = symmetry.identity(1)
    assume(parts != {"heads"} or not torch.equal(element.heads, unmoved.heads))  # one in 576 is
    assert gap(moved, FOLDED) > 1e-2
    assert largest_logit_change(moved.run(TOKENS), LOGITS, TOKENS != task.PAD).max() < 1e-3


@pytest.mark.parametrize("part", PARTS)
def test_each_part_alone_moves_only_its_tensors(part):
    moved = act(symmetry.random(1, torch_generator(5, part), [part]), FOLDED)
    changed = {n.rstrip("_01") for n in TENSORS if not torch.equal(moved[n], FOLDED[n])}
    expected = {
        "heads": {"w_q", "w_k", "w_v", "w_o"},
        "qk": {"w_q", "w_k"},
        "vo": {"w_v", "w_o"},
        "neurons": {"w_in", "w_out"},
        "scales": {"w_in", "w_out"},
        "residual": {n.rstrip("_01") for n in TENSORS},
    }
    assert changed == expected[part]


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_composition_and_inverse(seed):
    generator = torch_generator(seed, "elements")
    first, second = symmetry.random(1, generator), symmetry.random(1, generator)
    assert gap(act(second, act(first, FOLDED)), act(first.then(second), FOLDED)) < 1e-4
    assert gap(act(first.inverse(), act(first, FOLDED)), FOLDED) < 1e-4
    assert gap(act(first.then(first.inverse()), FOLDED), FOLDED) < 1e-4


def test_identity_changes_nothing():
    assert gap(act(symmetry.identity(1), FOLDED), FOLDED) == 0


def test_what_is_no_symmetry_changes_the_logits():
    element = symmetry.random(1, torch_generator(6, "element"), ["residual"])
    half = symmetry.act_inside(symmetry.random(1, torch_generator(6, "other")), FOLDED)
    forgot_position = symmetry.rotate(element.residual, FOLDED).replace(
        {"position": FOLDED.position}
    )
    only_queries = FOLDED.replace({"w_q_0": half["w_q_0"]})
    for broken in (forgot_position, only_queries):
        assert largest_logit_change(broken.run(TOKENS), LOGITS, TOKENS != task.PAD).max() > 1e-2


def test_random_rotations_are_of_both_classes():
    determinants = torch.linalg.det(symmetry.random(64, torch_generator(7, "haar")).residual)
    assert torch.allclose(determinants.abs(), torch.ones(64), atol=1e-4)
    assert 10 < int((determinants > 0).sum()) < 54


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="2 group elements for 1 models"):
        act(symmetry.identity(2), FOLDED)
    with pytest.raises(ValueError, match="spin"):
        symmetry.random(1, torch_generator(0, "element"), ["spin"])
