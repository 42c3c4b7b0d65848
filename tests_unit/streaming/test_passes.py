"""The two passes: exact, numerically safe, resumable, and of a memory that does not grow."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from polyrot.maps.checks import BadActivations
from polyrot.maps.explained_variance import explained_variance
from polyrot.maps.moments import MomentAccumulator, adds_up, pair_moments
from polyrot.maps.procrustes import fit_rotation
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Artifact, Checkpoint, Store
from polyrot.streaming.job import Stream, moments_artifact, moments_of, walk
from polyrot.streaming.passes import Activations, Maps, MomentPass, ScorePass

D, TOKENS, SITES = 6, 10, ("early", "late")


def rows(number: int, site: str, mean: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    """Anchor, a rotated and noisy copy, and a stranger: one sequence, each [TOKENS, D]."""
    drawn = torch_generator(number, "sequence", site)
    anchor = torch.randn(TOKENS, D, generator=drawn) * torch.arange(1, D + 1) + mean
    copy = anchor @ planted(site) + 0.1 * torch.randn(TOKENS, D, generator=drawn)
    return anchor, copy, torch.randn(TOKENS, D, generator=drawn)


def planted(site: str) -> Tensor:
    return torch.linalg.qr(torch.randn(D, D, generator=torch_generator(1, "planted", site))).Q


def read(numbers: Sequence[int]) -> Activations:
    found = [{site: [] for site in SITES} for _ in range(3)]
    for number in numbers:
        for site in SITES:
            for model, x in zip(found, rows(number, site), strict=True):
                model[site].append(x)
    return [{site: torch.cat(x) for site, x in model.items()} for model in found]


def stream(first: int, last: int, reader: Callable[..., Activations] = read) -> Stream:
    return Stream(range(first, last), TOKENS, reader)


# ------------------------------------------------------------------------------------ numerics


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_covariances_far_from_the_origin_are_those_of_two_passes_in_double(dtype, precision):
    generator = torch_generator(0, "far")
    x = (torch.randn(20_000, 16, generator=generator) + 1e3).to(dtype)
    y = (x.float() @ torch.randn(16, 16, generator=generator) / 4 - 1e3).to(dtype)
    accumulator = MomentAccumulator(1, auto=True, precision=precision)
    second, first, products = torch.zeros(2, 16), torch.zeros(16, 16), torch.zeros(16, 16)
    for a, b in zip(x.split(500), y.split(500), strict=True):
        accumulator.update([a], b)
        second += torch.stack([a.float().sum(0), b.float().sum(0)])
        first += a.float().T @ a.float()
        products += a.float().T @ b.float()
    (found,) = accumulator.moments()

    xc, yc = (z.double() - z.double().mean(0) for z in (x, y))
    n = len(x)
    means = second / n
    plain = [first / n - torch.outer(means[0], means[0])]
    plain.append(products / n - torch.outer(means[0], means[1]))
    for got, bare, wanted in zip(
        (found.auto_a, found.cross), plain, (xc.T @ xc / n, xc.T @ yc / n), strict=True
    ):
        scale = wanted.abs().max()
        error, plain_error = ((z - wanted).abs().max() / scale for z in (got, bare))
        assert error < (1e-11 if precision == torch.float64 else 1e-6)
        assert plain_error > 1e-2
    torch.testing.assert_close(found.mean_a, x.double().mean(0), rtol=1e-9, atol=0)


def test_first_rows_that_mislead_cost_nothing_in_double():
    x = torch.randn(5000, 8, generator=torch_generator(1, "far"), dtype=torch.float64)
    x[300:] += 1e3
    (found,) = pair_moments([x], x, chunk=300)
    xc = x - x.mean(0)
    torch.testing.assert_close(found.cross, xc.T @ xc / len(x), rtol=1e-9, atol=1e-6)


# --------------------------------------------------------------------------------------- passes


def test_any_batches_give_the_moments_of_all_rows_at_once():
    wanted = read(range(50))
    for batch in (1, 7, 50, 200):
        one = MomentPass(SITES, 2)
        walk(one, stream(0, 50), batch)
        for site, moments in one.moments().items():
            anchor, *siblings = (model[site] for model in wanted)
            for got, exact in zip(moments, pair_moments(siblings, anchor, auto=True), strict=True):
                for name in ("tokens", "mean_a", "mean_b", "cross", "auto_a", "auto_b", "var_a"):
                    a, b = (torch.as_tensor(getattr(m, name)) for m in (got, exact))
                    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_planted_rotation_is_found_and_scored_and_a_stranger_is_not():
    one = MomentPass(SITES, 2)
    walk(one, stream(0, 60), 8)
    maps = {site: Maps.fit(moments, site) for site, moments in one.moments().items()}
    two = ScorePass(maps)
    walk(two, stream(60, 90), 8)
    held_out = read(range(60, 90))
    for site, found in two.scores().items():
        r = maps[site][0].rotation.r
        assert float((r - planted(site).T.double()).abs().max()) < 0.05
        assert found[0]["rotation"].score > 0.98 > 0.5 > found[1]["rotation"].score
        assert found[0]["untouched"].score < 0.5
        fit = [model[site] for model in read(range(60))]
        direct = fit_rotation(fit[1], fit[0]).apply(held_out[1][site])
        assert found[0]["rotation"].score == pytest.approx(
            explained_variance(held_out[0][site], direct), abs=1e-9
        )


def test_scores_do_not_depend_on_batches_and_survive_a_restart():
    one = MomentPass(SITES, 2)
    walk(one, stream(0, 30), 30)
    maps = {site: Maps.fit(moments, site) for site, moments in one.moments().items()}
    whole, first, then = (ScorePass(maps, {"late": torch.relu}) for _ in range(3))
    walk(whole, stream(30, 60), 30)
    walk(first, stream(30, 41), 3)
    then.restore(first.state())
    walk(then, stream(41, 60), 4)
    for site, found in whole.scores().items():
        for i, names in found.items():
            assert ("naive" in names) == (site == "late")
            for name, sums in names.items():
                again = then.scores()[site][i][name]
                assert again.tokens == sums.tokens == 300
                assert again.score == pytest.approx(sums.score, abs=1e-12)


def test_moments_and_maps_survive_their_artifacts():
    one = MomentPass(SITES, 2)
    walk(one, stream(0, 30), 30)
    artifact = moments_artifact(one.moments())
    for site, moments in one.moments().items():
        for i, (kept, original) in enumerate(zip(moments_of(artifact, site), moments, strict=True)):
            assert kept.tokens == original.tokens
            again, maps = (Maps.fit([m], site)[0] for m in (kept, original))
            assert torch.equal(again.rotation.r, maps.rotation.r)
            assert torch.equal(again.affine.w, maps.affine.w)
            assert torch.equal(artifact.tensors[f"{site}/sibling.{i}.cross"], original.cross)


def test_sums_of_several_that_began_alike_add_up():
    parts = [MomentAccumulator(2, auto=True) for _ in range(3)]
    whole = MomentAccumulator(2, auto=True)
    for i, part in enumerate(parts):
        anchor, *siblings = (model["early"] for model in read(range(10 * i, 10 * i + 10)))
        if i:
            part.begin(parts[0].provisional_means())
        part.update(siblings, anchor)
        whole.update(siblings, anchor)
    state = parts[0].state()
    for part in parts[1:]:
        for name, tensor in part.state().items():
            if adds_up(name):
                state[name] += tensor
    parts[0].restore(state)
    for got, wanted in zip(parts[0].moments(), whole.moments(), strict=True):
        assert got.tokens == wanted.tokens == 300
        torch.testing.assert_close(got.cross, wanted.cross, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(got.auto_b, wanted.auto_b, rtol=1e-12, atol=1e-12)


def test_a_value_that_is_not_finite_names_its_site_and_token():
    def spoiled(numbers: Sequence[int]) -> Activations:
        found = read(numbers)
        if 13 in numbers:
            found[2]["late"][0, 4] = torch.nan
        return found

    with pytest.raises(
        BadActivations, match=r"sequences 13 to 13: .*at late, sibling 1: .*dimension 4"
    ):
        walk(MomentPass(SITES, 2), stream(0, 20, spoiled), 1)


# --------------------------------------------------------------------------------- resumption


class Killed(Exception):
    pass


def test_a_walk_resumes_from_its_checkpoint_with_other_batches(tmp_path):
    asked: list[int] = []

    def dying(numbers: Sequence[int]) -> Activations:
        asked.extend(numbers)
        if numbers[-1] >= 20:
            raise Killed
        return read(numbers)

    def build(reader: Callable[..., Activations], batch: int) -> Callable[[Checkpoint], Artifact]:
        def gather(checkpoint: Checkpoint) -> Artifact:
            one = MomentPass(SITES, 2)
            kept = stream(0, 40, reader)
            walk(one, kept, batch, checkpoint=checkpoint, save_every=0)
            return moments_artifact(one.moments())

        return gather

    store = Store(tmp_path)
    with pytest.raises(Killed):
        store.get_or_build("language-moments", {"a": 1}, build(dying, 3))
    died = asked[-1]
    asked.clear()

    def watched(numbers: Sequence[int]) -> Activations:
        asked.extend(numbers)
        return read(numbers)

    resumed = store.get_or_build("language-moments", {"a": 1}, build(watched, 5))
    assert 0 < asked[0] <= died
    assert asked == list(range(asked[0], 40))
    one = MomentPass(SITES, 2)
    walk(one, stream(0, 40), 40)
    whole = moments_artifact(one.moments())
    assert whole.tensors.keys() == resumed.tensors.keys()
    for name, tensor in whole.tensors.items():
        torch.testing.assert_close(resumed.tensors[name], tensor, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("save_every", "at_least", "at_most"), [(0, 2, 39), (1e9, 1, 1)])
def test_saving_keeps_to_its_interval(save_every, at_least, at_most, monkeypatch):
    saved = []

    class Notes:
        def load(self) -> None:
            return None

        def save(self, state: Artifact) -> None:
            saved.append(state.meta["sequences"])

    walk(MomentPass(SITES, 2), stream(0, 40), 1, checkpoint=Notes(), save_every=save_every)
    assert saved[0] == 1
    assert saved == sorted(set(saved))
    assert at_least <= len(saved) <= at_most
    assert saved[-1] < 40  # what is finished is the artifact's


def test_progress_has_tokens_and_a_rate():
    shown = []
    walk(
        MomentPass(SITES, 2),
        stream(0, 10),
        4,
        stage="pass 1",
        progress=lambda stage, done, total, note="": shown.append((stage, done, total, note)),
    )
    assert [(done, total) for _, done, total, _ in shown] == [(40, 100), (80, 100), (100, 100)]
    assert all(stage == "pass 1 (tokens)" and "tokens/s" in note for stage, _, _, note in shown)


# --------------------------------------------------------------------------------------- memory

_PEAK = """
import sys, torch
from polyrot.maps.moments import MomentAccumulator

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

d, auto, hoard = int(sys.argv[1]), sys.argv[2] == "auto", sys.argv[3] == "hoard"
torch.set_num_threads(1)
generator, kept = torch.Generator().manual_seed(0), []
accumulator = MomentAccumulator(1, auto=auto, precision=torch.float32)

def feed(batches):
    for _ in range(batches):
        b = torch.randn(128, d, generator=generator)
        accumulator.update([b + 1], b)
        if hoard:
            kept.append(b)

start = peak()
feed(2)
early = peak()
feed(8)
late = peak()
accumulator.moments()
print(early - start, late - early, peak() - start)
"""


def peaks(d: int, auto: bool, hoard: bool = False) -> tuple[float, float, float]:
    """MiB in a process of its own: for two batches, in addition for eight more, and at the end."""
    words = [str(d), "auto" if auto else "cross", "hoard" if hoard else "stream"]
    # The C library gives a large block back when it is freed, rather than when it sees fit.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    command = [sys.executable, "-c", _PEAK, *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    early, more, final = map(float, done.stdout.split())
    return early, more, final


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc"
)
@pytest.mark.parametrize(
    ("d", "auto"),
    [
        pytest.param(2048, True, marks=pytest.mark.slow),
        pytest.param(4096, True, marks=pytest.mark.slow),  # at the widths it is made for
        pytest.param(8192, False, marks=pytest.mark.slow),
    ],
)
def test_memory_is_that_of_the_sums_whatever_the_number_of_tokens(d, auto):
    sums = (3 if auto else 1) * d * d * 8 / 2**20
    early, more, final = peaks(d, auto)
    code = 16  # pages of the libraries' files that the first product brings in: 9 to 21 MiB
    assert sums < early < 1.5 * sums + code
    assert more < 128 * d * 4 / 2**20  # less than the rows of one batch, over eight batches
    assert final < 2.5 * sums  # with the moments beside the sums


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc"
)
def test_rows_that_are_kept_are_seen_by_that_measure():
    _, more, _ = peaks(2048, False, hoard=True)
    assert more > 4 * 128 * 2048 * 4 / 2**20
