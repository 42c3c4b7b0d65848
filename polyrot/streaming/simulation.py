"""Streaming moments at the width of a frontier model, on rows that are drawn and not computed.

`torchrun --nproc-per-node 2 -m polyrot.streaming.simulation --width 8192` tells what a pass takes
on this machine beside what `polyrot.streaming.budget` says of it: bytes, and the rate of the matrix
products beside that of bare ones of the same shapes. The sibling's rows are the anchor's, turned by
a known signed permutation, with noise of half their size: so what the ranks gathered together is
held against what it must be, in a block of rows that is worked out anew. With `--fit` it times what
the first rank does of such sums in the end, the maps of one site, beside bare products.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from polyrot.runtime import threads
from polyrot.runtime.commands import status_of, terminable
from polyrot.runtime.progress import ConsoleProgress, Progress, silent
from polyrot.runtime.seeding import torch_generator
from polyrot.streaming.budget import fit_operations, sums_of
from polyrot.streaming.job import Stream, walk
from polyrot.streaming.passes import Activations, Maps, MomentPass
from polyrot.streaming.ranks import Ranks, joined, leave

SITE = "simulated"
NOISE = 0.5
SCALE = 3.0  # of rows, and their mean: around another than 0, as activations are
BLOCK = 16  # rows of the cross-covariance that are worked out anew
BARE = 16  # products [d, d] at a time beside a fit, which has about as many operations
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
MIB = 2**20


@dataclass(frozen=True)
class Planted:
    """Rows of an anchor and of a sibling that is the anchor turned, with noise.

    places, signs [width]: dimension i of the sibling is signs[i] times dimension places[i] of the
    anchor, a rotation that costs no product.
    """

    width: int
    places: Tensor
    signs: Tensor

    @classmethod
    def of(cls, width: int) -> Planted:
        """The one of this width, alike on every rank."""
        generator = torch_generator(width, "planted signed permutation")
        places = torch.randperm(width, generator=generator)
        signs = 2.0 * torch.randint(2, (width,), generator=generator) - 1
        return cls(width, places, signs)

    def rows(self, batch: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Anchor and sibling, float32 [tokens, width] each, of the batch of this number."""
        generator = torch_generator(batch, "simulated activations")
        anchor = torch.randn(tokens, self.width, generator=generator)
        sibling = torch.randn(tokens, self.width, generator=generator).mul_(NOISE)
        sibling += anchor[:, self.places] * self.signs
        return anchor.mul_(SCALE).add_(SCALE), sibling.mul_(SCALE).add_(SCALE)

    def cross(self, rows: int) -> Tensor:
        """The first rows of the cross-covariance that is to be expected, float64 [rows, width]."""
        found = torch.zeros(rows, self.width, dtype=torch.float64)
        found[torch.arange(rows), self.places[:rows]] = SCALE**2 * self.signs[:rows].double()
        return found


@dataclass(frozen=True)
class Found:
    """What a pass took on the first rank.

    sums, held: bytes of the sums by `polyrot.streaming.budget`, and how much more memory the
    process held at most, rows included, than before its first batch. gflops, gflops_bare: 10^9
    operations a second of the pass and of bare products of the same shapes, by turns and by the
    time that its threads worked: what else the machine does does not count. error: the largest in
    a block of rows of the cross-covariance of all ranks, from the same worked out in float64 from
    all rows, over the largest entry there. planted_error: from what is expected, in standard errors
    of one entry.
    """

    width: int
    ranks: int
    tokens: int
    precision: str
    covariances: bool
    sums: float
    held: float
    gflops: float
    gflops_bare: float
    error: float
    planted_error: float

    @property
    def row(self) -> str:
        """A row of the table in docs/frontier.md."""
        return (
            f"| {self.width:,} | {self.precision} | {'yes' if self.covariances else 'no'} "
            f"| {self.ranks} | {self.tokens:,} | {self.sums / MIB:,.0f} | {self.held / MIB:,.0f} "
            f"| {self.gflops:.0f} | {self.gflops / self.gflops_bare:.0%} | {self.error:.0e} |"
        )


class _Timed(MomentPass):
    """Knows how long threads worked on its products, and on bare ones of the same shapes before."""

    def __init__(self, width: int, covariances: bool, precision: torch.dtype) -> None:
        super().__init__([SITE], covariances=covariances, precision=precision)
        self.seconds = self.bare = 0.0
        self._precision = precision
        self._pairs = ((1, 0), (0, 0), (1, 1)) if covariances else ((1, 0),)
        # Written to, so that it counts as held before the first batch.
        self._into = torch.ones(width, width, dtype=precision)

    def update(self, activations: Activations) -> None:
        wide = [x[SITE].to(self._precision) for x in activations]
        begun = time.process_time()
        for left, right in self._pairs:
            torch.mm(wide[left].T, wide[right], out=self._into)
        self.bare += time.process_time() - begun
        del wide
        start = time.process_time()
        super().update(activations)
        self.seconds += time.process_time() - start

    def operations(self, tokens: int) -> float:
        """Of its products, on so many tokens."""
        return 2.0 * tokens * len(self._into) ** 2 * len(self._pairs)


def simulate(
    ranks: Ranks,
    width: int,
    *,
    tokens: int = 2048,
    batches: int = 2,
    precision: str = "float64",
    covariances: bool = True,
    progress: Progress = silent,
) -> Found | None:
    """`batches` of `tokens` rows on each rank; what it took, on the first rank. Collective.

    Raises ValueError: fewer rows than one, no such precision.

    >>> found = simulate(Ranks(), 32, tokens=4096, batches=2)
    >>> found.tokens, found.error < 1e-12, found.planted_error < 6
    (8192, True, True)
    """
    if min(width, tokens, batches) < 1 or precision not in PRECISIONS:
        raise ValueError(
            f"width {width}, {tokens} tokens, {batches} batches: at least 1 each; precision one of "
            f"{', '.join(PRECISIONS)}, not {precision}"
        )
    planted = Planted.of(width)
    one = _Timed(width, covariances, PRECISIONS[precision])
    planted.rows(0, tokens)  # what drawing takes is not what gathering takes
    before = most_memory()

    def read(numbers: Sequence[int]) -> Activations:
        return [{SITE: x} for x in planted.rows(numbers[0], tokens)]

    stream = Stream(range(batches * ranks.size), tokens, read)
    walk(one, stream, 1, stage=f"{width:,} dimensions", ranks=ranks, progress=progress)
    if not ranks.first:
        return None
    held, n = most_memory() - before, len(stream.numbers) * tokens
    (gathered,) = one.moments()[SITE]
    block = gathered.cross[:BLOCK]
    exact = _exact(planted, len(stream.numbers), tokens)
    # Of one entry, off the planted place: the product of two standard deviations.
    standard_error = SCALE**2 * (1 + NOISE**2) ** 0.5 / n**0.5
    own = one.operations(batches * tokens) / 1e9
    return Found(
        width,
        ranks.size,
        n,
        precision,
        covariances,
        sums_of(width, sites=1, siblings=1, covariances=covariances),
        held,
        own / one.seconds,
        own / one.bare,
        float((block - exact).abs().max() / exact.abs().max()),
        float((block - planted.cross(len(block))).abs().max()) / standard_error,
    )


def _exact(planted: Planted, batches: int, tokens: int) -> Tensor:
    """The first rows of the cross-covariance of all rows, worked out in float64."""
    parts = []
    for batch in range(batches):
        anchor, sibling = planted.rows(batch, tokens)
        a, b = sibling[:, :BLOCK].double(), anchor.double()
        parts.append((a.T @ b, a.sum(0), b.sum(0)))
    product, mean_a, mean_b = (sum(each) / (batches * tokens) for each in zip(*parts, strict=True))
    return torch.addr(product, mean_a, mean_b, alpha=-1)


@dataclass(frozen=True)
class Fitted:
    """What the maps of one site took on one process, in float64.

    seconds: that its threads worked, the mean of `rounds` fits. gflops, gflops_bare: 10^9
    operations a second of the fits, by the count of `fit_operations`, and of products
    [width, width], by turns. found: how much of the planted rotation R is, tr(R^T planted) / width:
    1 all of it, about 0 by chance.
    """

    width: int
    rounds: int
    covariances: bool
    seconds: float
    gflops: float
    gflops_bare: float
    found: float

    @property
    def row(self) -> str:
        """A row of the second table in docs/frontier.md."""
        return (
            f"| {self.width:,} | {'yes' if self.covariances else 'no'} | {self.rounds} "
            f"| {self.seconds:.1f} | {self.gflops:.0f} | {self.gflops / self.gflops_bare:.0%} |"
        )


def fitted(
    width: int, *, rounds: int = 2, covariances: bool = True, progress: Progress = silent
) -> Fitted:
    """The maps from `Planted` rows, twice as many as dimensions, and their det, `rounds` times.

    Raises ValueError: fewer dimensions or rounds than one.

    >>> fit = fitted(48, rounds=1)
    >>> fit.found > 0.5, fit.gflops > 0
    (True, True)
    """
    if min(width, rounds) < 1:
        raise ValueError(f"width {width}, {rounds} rounds: at least 1 each")
    planted = Planted.of(width)
    one = MomentPass([SITE], covariances=covariances)
    one.update([{SITE: x} for x in planted.rows(0, 2 * width)])
    moments = one.moments()[SITE]
    square, into = moments[0].cross, torch.ones(width, width, dtype=torch.float64)
    torch.mm(square, square, out=into)  # the first one also wakes the library
    spent = bare = 0.0
    for done in range(rounds + 1):  # bare products before, between and after
        progress(f"fits at {width:,} dimensions", done, rounds)
        start = time.process_time()
        for _ in range(BARE):
            torch.mm(square, square, out=into)
        bare += time.process_time() - start
        if done < rounds:
            start = time.process_time()
            (maps,) = Maps.fit(moments, "simulated fit")
            _ = maps.rotation.det  # as a run says of each R
            spent += time.process_time() - start
    r = maps.rotation.r[torch.arange(width), planted.places]
    return Fitted(
        width,
        rounds,
        covariances,
        spent / rounds,
        rounds * fit_operations(width, covariances) / spent / 1e9,
        (rounds + 1) * BARE * 2.0 * width**3 / bare / 1e9,
        float((r * planted.signs).mean()),
    )


def most_memory() -> float:
    """The most memory that this process has held so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def main(given: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m polyrot.streaming.simulation",
        description="What streaming moments take at a width, on rows that are drawn: memory, the "
        "rate of products beside that of bare ones, and whether the sums of all ranks are right. "
        "Prints a row of a table in docs/frontier.md, and the same as JSON.",
        epilog="two processes: torchrun --nproc-per-node 2 -m polyrot.streaming.simulation "
        "--width 8192. exit status: 0 done, 2 error, 130 interrupted.",
    )
    parser.add_argument("--width", type=int, required=True, help="d, of both models")
    parser.add_argument("--tokens", type=int, default=2048, help="of a batch (default 2048)")
    parser.add_argument("--batches", type=int, default=2, help="on each rank (default 2)")
    parser.add_argument("--precision", choices=PRECISIONS, default="float64", help="of products")
    parser.add_argument("--no-affine", action="store_true", help="gather no covariances")
    parser.add_argument("--fit", action="store_true", help="time the maps of one site instead, as "
        "many times as --batches: in float64, without --tokens and --precision")  # fmt: skip
    parser.add_argument("--threads", type=int, default=1, help="of the CPU, a rank (default 1)")
    options = parser.parse_args(given)
    threads.settle(options.threads)
    try:
        with joined() as ranks, terminable() if ranks.size == 1 else nullcontext():
            found = _asked(options, ranks)
        if found is not None:
            print(found.row)
            print(json.dumps(asdict(found)))
    except (ValueError, RuntimeError) as error:  # what torch says where memory runs out
        print(f"error: {error}; lower --width or --tokens, or give --no-affine", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupted:
        return status_of(interrupted)
    return 0


def _asked(options: argparse.Namespace, ranks: Ranks) -> Found | Fitted | None:
    affine, progress = not options.no_affine, ConsoleProgress() if ranks.first else silent
    if options.fit:  # the other ranks wait, as in a run
        return (
            fitted(options.width, rounds=options.batches, covariances=affine, progress=progress)
            if ranks.first
            else None
        )
    return simulate(
        ranks,
        options.width,
        tokens=options.tokens,
        batches=options.batches,
        precision=options.precision,
        covariances=affine,
        progress=progress,
    )


if __name__ == "__main__":
    leave(main())
