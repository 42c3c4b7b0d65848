"""Bounded-depth Dyck-3 with a label at every position: tokens, sequences, labels.

Three bracket families, depth at most 8, context 64. A sequence is BOS, content, EOS where it
fits, PAD. Each position carries three labels: the token itself, the number of unmatched openers
after it (frozen once the sequence is invalid) and whether it is invalid yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

PAD, BOS, EOS = 0, 1, 2
OPENERS = (3, 5, 7)  # family f opens with 3 + 2f and closes with 4 + 2f
N_FAMILIES = 3
VOCABULARY = 40
CONTEXT = 64
MAX_DEPTH = 8
MAX_CONTENT = CONTEXT - 2
OPEN_PROBABILITY = 0.55

Distribution = Literal["train", "compositional", "long"]
DISTRIBUTIONS: tuple[Distribution, ...] = ("train", "compositional", "long")
CONTENT_RANGE: dict[str, tuple[int, int]] = {"train": (2, MAX_CONTENT), "long": (50, 60)}

HEADS = ("token", "depth", "validity")
HEAD_CLASSES = {"token": VOCABULARY, "depth": MAX_DEPTH + 1, "validity": 2}


@dataclass(frozen=True)
class Labels:
    """Labels of a batch, each int64 [batch, position]; meaningless where the token is PAD."""

    token: Tensor
    depth: Tensor
    validity: Tensor

    def head(self, name: str) -> Tensor:
        """The labels that the output head `name` is trained on."""
        return {"token": self.token, "depth": self.depth, "validity": self.validity}[name]


def label(tokens: Tensor) -> Labels:
    """Label every position of `tokens` int64 [batch, position].

    A stack machine run over all sequences at once. The first violation (a close on the empty
    stack, a close of another family, an opener beyond depth 8) sets validity to 1 for good and
    freezes the depth at its last value.
    """
    if tokens.dtype != torch.int64 or tokens.ndim != 2:
        raise ValueError(
            f"tokens must be int64 [batch, position], not {tokens.dtype} {list(tokens.shape)}"
        )
    if tokens.numel() and (tokens.min() < 0 or tokens.max() > OPENERS[-1] + 1):
        raise ValueError("tokens outside PAD, BOS, EOS and the six brackets (0 to 8) have no label")
    n, length = tokens.shape
    rows = torch.arange(n, device=tokens.device)
    stack = torch.zeros(n, MAX_DEPTH + 1, dtype=torch.int64, device=tokens.device)
    depth = torch.zeros(n, dtype=torch.int64, device=tokens.device)
    invalid = torch.zeros(n, dtype=torch.bool, device=tokens.device)
    depths, validities = torch.empty_like(tokens), torch.empty_like(tokens)
    is_bracket = tokens >= OPENERS[0]
    opens = is_bracket & (tokens % 2 == 1)
    family = (tokens - OPENERS[0]) // 2
    for t in range(length):
        opening, closing = opens[:, t], is_bracket[:, t] & ~opens[:, t]
        top = stack[rows, (depth - 1).clamp(min=0)]
        violation = (opening & (depth == MAX_DEPTH)) | (
            closing & ((depth == 0) | (top != family[:, t]))
        )
        invalid = invalid | violation
        push, pop = opening & ~invalid, closing & ~invalid
        slot = depth.clamp(max=MAX_DEPTH - 1)
        stack[rows, slot] = torch.where(push, family[:, t], stack[rows, slot])
        depth = depth + push.long() - pop.long()
        depths[:, t], validities[:, t] = depth, invalid.long()
    return Labels(tokens, depths, validities)


def _valid_walks(
    n: int, length: int, generator: torch.Generator, open_probability: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Bracket strings [n, length], each prefix of which stays valid.

    open_probability: of opening where both are possible, one for all or [n, 1].
    Returns the tokens, and the family of the innermost open bracket after each (-1: none is open).
    """
    device = generator.device
    coin = torch.rand(n, length, generator=generator, device=device) < open_probability
    fresh = torch.randint(N_FAMILIES, (n, length), generator=generator, device=device)
    rows = torch.arange(n, device=device)
    stack = torch.zeros(n, MAX_DEPTH, dtype=torch.int64, device=device)
    depth = torch.zeros(n, dtype=torch.int64, device=device)
    out = torch.empty(n, length, dtype=torch.int64, device=device)
    innermost = torch.empty_like(out)
    for t in range(length):
        opening = (coin[:, t] | (depth == 0)) & (depth < MAX_DEPTH)
        top = stack[rows, (depth - 1).clamp(min=0)]
        slot = depth.clamp(max=MAX_DEPTH - 1)
        stack[rows, slot] = torch.where(opening, fresh[:, t], stack[rows, slot])
        out[:, t] = OPENERS[0] + 2 * torch.where(opening, fresh[:, t], top) + (~opening).long()
        depth = depth + 2 * opening.long() - 1
        innermost[:, t] = stack[rows, (depth - 1).clamp(min=0)].where(depth > 0, -1)
    return out, innermost


def _uniform(n: int, length: int, generator: torch.Generator) -> Tensor:
    """Brackets uniform over the six tokens, [n, length]."""
    return torch.randint(
        OPENERS[0], OPENERS[-1] + 2, (n, length), generator=generator, device=generator.device
    )


LATEST_VIOLATION = 24
"""Content tokens up to and with the latest violation that `_late_violations` plants."""


def _late_violations(n: int, generator: torch.Generator) -> Tensor:
    """Content [n, 62] that stays valid for 1 to 23 tokens, is then violated, then uniform.

    The training law hardly shows these (a violation after eight valid tokens in 1.6 % of its
    sequences), and nearly all that a model gets wrong in the end is among them. In 7 of 10 the
    valid part opens with probability 3/4, as uniform content does while it stays valid, else as
    walks do. The next token is, in 6 of 10, a closer of another family than the innermost open
    bracket's, which tokens between the two may hide; else uniform.
    """
    device = generator.device

    def share(p: float) -> Tensor:
        return torch.rand(n, 1, generator=generator, device=device) < p

    walks, innermost = _valid_walks(
        n, LATEST_VIOLATION - 1, generator, torch.where(share(0.7), 0.75, OPEN_PROBABILITY)
    )
    valid = torch.randint(1, LATEST_VIOLATION, (n, 1), generator=generator, device=device)
    other = torch.randint(1, N_FAMILIES, (n, 1), generator=generator, device=device)
    family = (innermost.gather(1, valid - 1) + other) % N_FAMILIES
    out = _uniform(n, MAX_CONTENT, generator)
    wrong = torch.where(share(0.6), OPENERS[0] + 2 * family + 1, out.gather(1, valid))
    out.scatter_(1, valid, wrong)
    kept = torch.arange(LATEST_VIOLATION - 1, device=device) < valid
    out[:, : LATEST_VIOLATION - 1] = torch.where(kept, walks, out[:, : LATEST_VIOLATION - 1])
    return out


PAIRS = (
    ((1, 0),),
    ((1, 0, 1, 0), (1, 1, 0, 0)),
    (
        (1, 0, 1, 0, 1, 0),
        (1, 1, 0, 0, 1, 0),
        (1, 0, 1, 1, 0, 0),
        (1, 1, 0, 1, 0, 0),
        (1, 1, 1, 0, 0, 0),
    ),
)
"""One, two and three closed pairs: every shape, 1 where a bracket opens."""
N_PAIRS_LAW = (0.3, 0.45, 0.25)
LONGEST_BEFORE = 10


def _hidden_closers(n: int, generator: torch.Generator) -> Tensor:
    """Content [n, 62]: 0 to 10 valid tokens, an opener (in 85 of 100), one to three closed pairs,
    then a closer that belongs to another family, or in 1 of 3 to the innermost open bracket; then
    uniform.

    What a model misses last: two layers must see in the first whether a closer fits an opener that
    lies behind closed brackets. Right ones are among them, so that it is not learnt to mistrust
    every closer there.
    """
    device = generator.device

    def share(p: float) -> Tensor:
        return torch.rand(n, 1, generator=generator, device=device) < p

    law = torch.tensor(N_PAIRS_LAW, device=device)
    pairs = 1 + torch.multinomial(law, n, replacement=True, generator=generator)
    shapes = torch.zeros(n, 2 * len(PAIRS), device=device)
    for k, known in enumerate(PAIRS, start=1):
        rows = (pairs == k).nonzero()[:, 0]
        which = torch.randint(len(known), (len(rows),), generator=generator, device=device)
        shapes[rows, : 2 * k] = torch.tensor(known, dtype=torch.float32, device=device)[which]
    before = torch.randint(LONGEST_BEFORE + 1, (n, 1), generator=generator, device=device)
    length = LONGEST_BEFORE + 2 + 2 * len(PAIRS)
    position = torch.arange(length, device=device)[None]
    open_probability = torch.full((n, length), 0.75, device=device)
    open_probability = open_probability.masked_fill((position == before) & share(0.85), 1.0)
    inside = position - before - 1
    shaped = shapes.gather(1, inside.clamp(0, 2 * len(PAIRS) - 1))
    open_probability = torch.where(
        (inside >= 0) & (inside < 2 * pairs[:, None]), shaped, open_probability
    )
    walks, innermost = _valid_walks(n, length, generator, open_probability)
    closer_at = before + 1 + 2 * pairs[:, None]
    top = innermost.gather(1, closer_at - 1)
    other = torch.randint(1, N_FAMILIES, (n, 1), generator=generator, device=device)
    right = share(1 / 3) & (top >= 0)
    family = torch.where(right, top, (top + other) % N_FAMILIES)
    out = _uniform(n, MAX_CONTENT, generator)
    out.scatter_(1, closer_at, OPENERS[0] + 2 * family + 1)
    out[:, :length] = torch.where(position < closer_at, walks, out[:, :length])
    return out


@dataclass(frozen=True)
class Law:
    """What training sequences are drawn from, as shares; all 0 is the paper's law.

    late_violations: of the sequences, drawn by `_late_violations`. hidden_closers: of those, drawn
    by `_hidden_closers` instead. shallow_walks: of the sequences, valid walks that open with
    probability 0.4: those of 0.55 have climbed by the end of the context, where compositional
    sequences are at depth 0. full_context: of the rows of a batch, those that pair one of the
    longest sequences with one of the shortest; one length in 61 fills the context, and
    compositional sequences always do. lengths: the range of content lengths, both ends included.
    """

    late_violations: float = 0.0
    hidden_closers: float = 0.0
    shallow_walks: float = 0.0
    full_context: float = 0.0
    lengths: tuple[int, int] = CONTENT_RANGE["train"]


PAPERS = Law()


def content(n: int, generator: torch.Generator, law: Law = PAPERS) -> Tensor:
    """Full-length training content [n, 62]: a valid walk with probability 1/2, else uniform.

    Any prefix has the law of shorter content, so a sequence of length L takes the first L.
    """
    walks, _ = _valid_walks(n, MAX_CONTENT, generator, OPEN_PROBABILITY)
    uniform = _uniform(n, MAX_CONTENT, generator)
    device = generator.device
    stays_valid = torch.rand(n, 1, generator=generator, device=device) < 0.5
    out = torch.where(stays_valid, walks, uniform)
    if law.late_violations:
        late = torch.rand(n, 1, generator=generator, device=device) < law.late_violations
        drawn = _late_violations(n, generator)
        if law.hidden_closers:
            hidden = torch.rand(n, 1, generator=generator, device=device) < law.hidden_closers
            drawn = torch.where(hidden, _hidden_closers(n, generator), drawn)
        out = torch.where(late, drawn, out)
    if law.shallow_walks:
        shallow = torch.rand(n, 1, generator=generator, device=device) < law.shallow_walks
        out = torch.where(shallow, _valid_walks(n, MAX_CONTENT, generator, 0.4)[0], out)
    return out


def frame(body: Tensor, lengths: Tensor) -> Tensor:
    """BOS, the first `lengths` tokens of `body` [n, <= 63], EOS where it fits, PAD: [n, 64]."""
    n = body.shape[0]
    out = torch.full((n, CONTEXT), PAD, dtype=torch.int64, device=body.device)
    out[:, 0] = BOS
    out[:, 1 : 1 + body.shape[1]] = body
    position = torch.arange(CONTEXT, device=body.device)
    end = (1 + lengths)[:, None]
    out[position > end] = PAD
    out[position == end] = EOS
    return out


def _compositional(n: int, generator: torch.Generator) -> Tensor:
    """One deep nest of a single family, depth 3 to 8, amid alternating shallow pairs: [n, 62]."""
    device = generator.device
    depth = torch.randint(3, MAX_DEPTH + 1, (n, 1), generator=generator, device=device)
    family = torch.randint(N_FAMILIES, (n, 1), generator=generator, device=device)
    phase = torch.randint(N_FAMILIES, (n, 1), generator=generator, device=device)
    n_pairs = MAX_CONTENT // 2 - depth
    u = torch.rand(n, 1, generator=generator, device=device)
    start = 2 * (u * (n_pairs + 1)).long().clamp(max=n_pairs)  # an even place, pairs before it
    position = torch.arange(MAX_CONTENT, device=device)[None, :]
    inside = (position >= start) & (position < start + 2 * depth)
    nest_closes = position >= start + depth
    outside = torch.where(position < start, position, position - 2 * depth)
    pair_family = (outside.div(2, rounding_mode="floor") + phase) % N_FAMILIES
    pair_closes = outside % 2 == 1
    families = torch.where(inside, family.expand_as(inside), pair_family)
    closes = torch.where(inside, nest_closes, pair_closes)
    return OPENERS[0] + 2 * families + closes.long()


def sequences(
    n: int,
    generator: torch.Generator,
    distribution: Distribution = "train",
    content_range: tuple[int, int] | None = None,
) -> Tensor:
    """Draw `n` padded sequences, int64 [n, 64].

    `content_range` overrides the inclusive range of content lengths (uniform); the compositional
    distribution always fills the context.
    """
    if distribution == "compositional":
        if content_range is not None:
            raise ValueError("compositional sequences fill the context: no content_range")
        lengths = torch.full((n,), MAX_CONTENT, device=generator.device)
        return frame(_compositional(n, generator), lengths)
    if distribution not in CONTENT_RANGE:
        raise ValueError(f"unknown distribution {distribution!r}: one of {DISTRIBUTIONS}")
    low, high = content_range or CONTENT_RANGE[distribution]
    if not 0 <= low <= high <= MAX_CONTENT:
        raise ValueError(f"content lengths {low} to {high} do not fit 0 to {MAX_CONTENT}")
    lengths = torch.randint(low, high + 1, (n,), generator=generator, device=generator.device)
    return frame(content(n, generator), lengths)


@dataclass(frozen=True)
class Packed:
    """A dense training batch: two sequences to a row, no PAD between them.

    tokens, positions, segments: int64 [rows, width]. `segments` is 0 or 1; attention stays within
    one segment. Token labels are as in `Labels`, position by position.
    """

    tokens: Tensor
    positions: Tensor
    segments: Tensor
    labels: Labels


def packed_batch(n: int, generator: torch.Generator, law: Law = PAPERS) -> Packed:
    """`n` training sequences (even) as n / 2 rows without a single PAD.

    Lengths are uniform, on 4 to 64 including BOS and EOS by the paper's law, so l and 68 - l have
    the same law: drawing a row's two lengths antithetically leaves every sequence's own law exactly
    that of training and fills each row to 68 tokens. About half of a padded batch would be PAD.
    """
    if n % 2:
        raise ValueError(f"a packed batch holds pairs of sequences: {n} is odd")
    rows, device = n // 2, generator.device
    low, high = law.lengths
    width = low + high + 4  # two sequences with their BOS and EOS
    first = torch.randint(low, high + 1, (rows,), generator=generator, device=device)
    if law.full_context:
        longest = torch.rand(rows, generator=generator, device=device) < law.full_context
        first = first.masked_fill(longest, high)
    lengths = torch.cat([first, low + high - first])
    padded = frame(content(n, generator, law), lengths)
    labels = label(padded)
    position = torch.arange(width, device=device)[None, :].expand(rows, -1)
    split = (first + 2)[:, None]
    segment = (position >= split).long()
    positions = position - split * segment
    row = torch.arange(rows, device=device)[:, None] + rows * segment

    def gather(x: Tensor) -> Tensor:
        return x[row, positions]

    tokens = gather(padded)
    return Packed(
        tokens, positions, segment, Labels(tokens, gather(labels.depth), gather(labels.validity))
    )
