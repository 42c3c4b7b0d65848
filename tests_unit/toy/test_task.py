"""Dyck-3: labels against a plain stack machine, and the laws of the three distributions."""

import pytest
import torch
from hypothesis import given, strategies as st

from polyrot.runtime.seeding import torch_generator
from polyrot.toy import task


def stack_machine(tokens: list[int]) -> tuple[list[int], list[int]]:
    """Depth and validity after each token, one token at a time."""
    stack: list[int] = []
    depth, invalid, depths, validities = 0, 0, [], []
    for token in tokens:
        if token >= 3 and not invalid:
            family, closes = divmod(token - 3, 2)
            if not closes:
                if len(stack) == 8:
                    invalid = 1
                else:
                    stack.append(family)
            elif not stack or stack[-1] != family:
                invalid = 1
            else:
                stack.pop()
            if not invalid:
                depth = len(stack)
        depths.append(depth)
        validities.append(invalid)
    return depths, validities


brackets = st.lists(st.integers(3, 8), max_size=62)
openers_mostly = st.lists(st.sampled_from([3, 3, 3, 5, 5, 7, 4, 6, 8]), max_size=62)


@given(st.lists(st.one_of(brackets, openers_mostly), min_size=1, max_size=8))
def test_labels_equal_those_of_a_stack_machine(contents):
    rows = [[task.BOS, *content, task.EOS] for content in contents]
    tokens = torch.zeros(len(rows), task.CONTEXT, dtype=torch.int64)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
    labels = task.label(tokens)
    for i, row in enumerate(rows):
        depths, validities = stack_machine(row)
        assert labels.depth[i, : len(row)].tolist() == depths
        assert labels.validity[i, : len(row)].tolist() == validities
    assert torch.equal(labels.token, tokens)


@pytest.mark.parametrize("distribution", task.DISTRIBUTIONS)
def test_sequences_are_framed(distribution):
    tokens = task.sequences(500, torch_generator(1, "framed"), distribution)
    assert tokens.shape == (500, task.CONTEXT)
    assert (tokens[:, 0] == task.BOS).all()
    assert ((tokens == task.EOS).sum(1) == 1).all()
    lengths = (tokens >= 3).sum(1)
    is_pad = tokens == task.PAD
    assert (is_pad.sum(1) == task.CONTEXT - lengths - 2).all()
    assert not (is_pad[:, :-1] & ~is_pad[:, 1:]).any(), "PAD only at the end"


def test_training_law():
    tokens = task.sequences(20_000, torch_generator(2, "law"))
    lengths = (tokens >= 3).sum(1)
    assert lengths.min() == 2
    assert lengths.max() == 62
    assert abs(lengths.double().mean() - 32) < 0.5
    labels = task.label(tokens)
    walks = labels.validity.amax(1) == 0
    # Half are valid walks; of the uniform half only short ones stay valid by luck.
    assert 0.5 < walks.double().mean() < 0.53
    assert labels.depth.max() == 8
    long_valid = tokens[walks & (lengths > 50)]
    opens = ((long_valid >= 3) & (long_valid % 2 == 1))[:, 1:51].double().mean()
    assert 0.5 < opens < 0.6


def test_compositional_law():
    tokens = task.sequences(4000, torch_generator(3, "law"), "compositional")
    labels = task.label(tokens)
    assert labels.validity.max() == 0
    deepest = labels.depth.amax(1)
    assert set(deepest.tolist()) == set(range(3, 9))
    content = tokens[:, 1:63]
    assert ((content >= 3) & (content <= 8)).all()
    # One nest: the depth exceeds 1 in one run of positions only.
    deep = (labels.depth > 1).long()
    assert (deep.diff(dim=1).clamp(min=0).sum(1) == 1).all()


def test_long_law():
    lengths = (task.sequences(4000, torch_generator(4, "law"), "long") >= 3).sum(1)
    assert (lengths.min(), lengths.max()) == (50, 60)


def test_packed_batch_holds_whole_sequences_and_no_pad():
    packed = task.packed_batch(400, torch_generator(5, "packed"))
    assert packed.tokens.shape == (200, 68)
    assert (packed.tokens != task.PAD).all()
    lengths = []
    for row in range(200):
        for segment in (0, 1):
            here = packed.segments[row] == segment
            tokens = packed.tokens[row, here].tolist()
            assert tokens[0] == task.BOS
            assert tokens[-1] == task.EOS
            assert packed.positions[row, here].tolist() == list(range(len(tokens)))
            depths, validities = stack_machine(tokens)
            assert packed.labels.depth[row, here].tolist() == depths
            assert packed.labels.validity[row, here].tolist() == validities
            lengths.append(len(tokens))
    assert min(lengths) >= 4
    assert max(lengths) <= 64
    assert abs(sum(lengths) / len(lengths) - 34) < 1e-9, "antithetic lengths fill every row"


def first_violations(late_violations):
    generator = torch_generator(6, "late")
    body = task.content(4000, generator, task.Law(late_violations))
    labels = task.label(task.frame(body, torch.full((4000,), task.MAX_CONTENT)))
    return body, (labels.validity == 0).sum(1) - 1  # content tokens before the first violation


def test_late_violations_are_late_and_mostly_hidden():
    body, valid = first_violations(1.0)
    assert valid.min() == 1
    assert (valid <= task.LATEST_VIOLATION).float().mean() > 0.95
    assert (valid >= 8).float().mean() > 0.6
    at = body.gather(1, valid.clamp(max=task.MAX_CONTENT - 1)[:, None])[:, 0]
    before = body.gather(1, (valid - 1).clamp(max=task.MAX_CONTENT - 1)[:, None])[:, 0]
    hidden = (at % 2 == 0) & (before % 2 == 0)  # a closer after a closer: no neighbour tells
    assert hidden.float().mean() > 0.2


def closers_behind_pairs(body):
    """Closers of `body` [n, 62] up to the first violation, those that fit the token before left
    out: tokens from opener to closer, and whether they are of one family."""
    found = []
    for row in body.tolist():
        open_at = []
        for i, token in enumerate(row):
            if token % 2:
                open_at.append(i)
                continue
            if not open_at:
                break
            right = row[open_at[-1]] + 1 == token
            if i - open_at[-1] > 1 or not right:
                found.append((i - open_at[-1], right))
            if not right:
                break
            open_at.pop()
    return found


def test_hidden_closers_lie_behind_pairs_of_every_shape():
    assert {len(shapes) for shapes in task.PAIRS} == {1, 2, 5}  # Catalan numbers: all there are
    for k, shapes in enumerate(task.PAIRS, start=1):
        assert len(set(shapes)) == len(shapes)
        for shape in shapes:
            heights = torch.tensor(shape).mul(2).sub(1).cumsum(0)
            assert (len(shape), int(heights.min()), int(heights[-1])) == (2 * k, 0, 0)
    n = 3000
    body = task.content(n, torch_generator(7, "hidden"), task.Law(1.0, 1.0))
    wrong = [distance for distance, right in closers_behind_pairs(body) if not right]
    for distance, least in ((3, 0.12), (5, 0.2), (7, 0.12)):
        assert sum(d == distance for d in wrong) / n > least
    right = [distance for distance, fits in closers_behind_pairs(body) if fits]
    assert len(right) / n > 0.3  # nor are closers there always wrong
    plain = task.content(n, torch_generator(7, "hidden"), task.Law(1.0))
    far = [d for d, fits in closers_behind_pairs(plain) if not fits and d >= 5]
    assert len([d for d in wrong if d >= 5]) > 2 * len(far)
    none, half = (
        task.content(n, torch_generator(7, "hidden"), task.Law(1.0, p)) for p in (0.0, 0.5)
    )
    assert torch.equal(none, plain)
    assert not torch.equal(half, plain)


def test_shallow_walks_stay_valid_and_near_the_ground():
    drawn = []
    for share in (0.0, 0.5, 1.0):
        body = task.content(2000, torch_generator(8, "shallow"), task.Law(shallow_walks=share))
        labels = task.label(task.frame(body, torch.full((2000,), task.MAX_CONTENT)))
        valid = labels.validity[:, 62] == 0
        drawn.append((valid.float().mean(), (labels.depth[:, 62][valid] == 0).float().mean()))
    assert drawn[0][0] < 0.55
    assert drawn[0][1] < 0.1
    assert drawn[0][1] < drawn[1][1] < drawn[2][1]
    assert drawn[2][0] == 1
    assert drawn[2][1] > 0.2


def test_the_share_of_late_violations():
    late = []
    for share in (0.0, 0.5, 1.0):
        _, valid = first_violations(share)
        late.append(((valid >= 8) & (valid <= task.LATEST_VIOLATION)).float().mean().item())
    assert late[0] < 0.05
    assert late[1] == pytest.approx((late[0] + late[2]) / 2, abs=0.03)
    assert not torch.equal(first_violations(0.0)[0], first_violations(0.5)[0])


def test_more_rows_may_hold_the_longest_sequence():
    shares = []
    for share in (0.0, 0.4, 1.0):
        packed = task.packed_batch(
            8000, torch_generator(8, "longest"), task.Law(full_context=share)
        )
        assert packed.tokens.shape == (4000, 68)
        lengths = (packed.segments == 0).sum(1)
        assert ((packed.positions == 0).sum(1) == 2).all(), "still two whole sequences to a row"
        shares.append((lengths == task.CONTEXT).float().mean().item())
    assert shares == pytest.approx([1 / 61, 0.4 + 0.6 / 61, 1.0], abs=0.02)


def test_shorter_contents_fill_narrower_rows():
    law = task.Law(lengths=(2, 48))
    packed = task.packed_batch(8000, torch_generator(9, "shorter"), law)
    assert packed.tokens.shape == (4000, 54)
    assert (packed.tokens != task.PAD).all()
    lengths = torch.cat([(packed.segments == k).sum(1) for k in (0, 1)])
    assert lengths.min() == 4
    assert lengths.max() == 50
    assert torch.bincount(lengths)[4:].float().std() / (8000 / 47) < 0.15, "all alike"
    first = packed.tokens[0][packed.segments[0] == 0][None]
    own = packed.labels.depth[0][packed.segments[0] == 0]
    assert torch.equal(task.label(first).depth[0], own)


def test_equal_seeds_equal_data():
    draw = [task.sequences(50, torch_generator(s, "data")) for s in (7, 7, 8)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])


def test_bad_input():
    generator = torch_generator(0, "bad")
    with pytest.raises(ValueError, match="unknown distribution 'deep'"):
        task.sequences(2, generator, "deep")
    with pytest.raises(ValueError, match="do not fit"):
        task.sequences(2, generator, content_range=(5, 63))
    with pytest.raises(ValueError, match="fill the context"):
        task.sequences(2, generator, "compositional", content_range=(2, 4))
    with pytest.raises(ValueError, match="odd"):
        task.packed_batch(3, generator)
    with pytest.raises(ValueError, match="no label"):
        task.label(torch.full((1, 4), 12))
    with pytest.raises(ValueError, match="int64"):
        task.label(torch.zeros(4))
