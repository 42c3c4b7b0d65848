"""Streaming Procrustes as a job: three artifacts, each resumed where a killed process left it.

    language-moments    first and second moments of the fit sequences, at every site
    language-maps       rotation, shift and affine map of each sibling to the anchor
    language-scores     explained variances on the score sequences

The sums so far go to the store's checkpoint every few seconds, with the number of sequences that
they cover: the ranks bring them to the first one, which writes. A resumed job may therefore have
another number of ranks, or other batches. The result is the same to the rounding of float64 sums.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyrot.maps.checks import BadActivations
from polyrot.maps.moments import Moments
from polyrot.maps.procrustes import Affine, Rotation, Shift, frobenius_distance
from polyrot.runtime.progress import Progress, silent
from polyrot.store import Artifact, Checkpoint, Runtime, fingerprint
from polyrot.store.file import SUFFIX
from polyrot.streaming.passes import Activations, Maps, MomentPass, Pass, Reconstruct, ScorePass
from polyrot.streaming.ranks import Ranks

RECIPE_VERSION = 1  # raise when a change of code changes what is made
Build = Callable[[Checkpoint | None], Artifact | None]
"""Called on every rank; checkpoint and artifact are the first rank's."""
_SAVING_SHARE = 20  # saving takes at most one part in so many of the time


@dataclass(frozen=True)
class Stream:
    """Sequences of `tokens` tokens each; `read(numbers)` runs the models on some of them."""

    numbers: Sequence[int]
    tokens: int
    read: Callable[[Sequence[int]], Activations]


def walk(
    one: Pass,
    stream: Stream,
    batch: int,
    *,
    stage: str = "streaming",
    ranks: Ranks | None = None,
    checkpoint: Checkpoint | None = None,
    save_every: float = 60.0,
    progress: Progress = silent,
) -> None:
    """Tell `one` about the whole stream; in the end the first rank has all sums. Collective.

    batch: sequences at a time, on each rank. checkpoint: the first rank's; the walk goes on from it
    and saves to it about every `save_every` seconds, less often where saving takes long.
    """
    ranks = ranks or Ranks()
    saved = checkpoint.load() if checkpoint is not None and ranks.first else None
    if saved is not None:
        one.restore(saved.tensors)
    done = resumed = int(ranks.share(0 if saved is None else saved.meta["sequences"]))
    if resumed:
        one.begin(ranks)
    total, start, rounds = len(stream.numbers), time.monotonic(), 1
    while done < total:
        segment = time.monotonic()
        rounds = ranks.share(min(rounds, math.ceil((total - done) / (batch * ranks.size))))
        for _ in range(rounds):
            mine = stream.numbers[done + ranks.rank * batch :][:batch]
            if not done and not ranks.first:
                one.begin(ranks)  # waits until the first rank has seen its first tokens
            if len(mine):
                _update(one, stream, mine)
            if not done and ranks.first:
                one.begin(ranks)
            done = min(done + ranks.size * batch, total)
            if ranks.first:
                rate = (done - resumed) * stream.tokens / (time.monotonic() - start)
                seen, of = done * stream.tokens, total * stream.tokens
                progress(f"{stage} (tokens)", seen, of, f"{rate:,.0f} tokens/s")
        worked, saving = time.monotonic() - segment, time.monotonic()
        one.collect(ranks)
        if ranks.first and checkpoint is not None and done < total:
            checkpoint.save(Artifact(one.state(), {"sequences": done}))
        interval = max(save_every, _SAVING_SHARE * (time.monotonic() - saving))
        rounds = max(1, int(interval * rounds / max(worked, 1e-9)))


def _update(one: Pass, stream: Stream, numbers: Sequence[int]) -> None:
    try:
        one.update(stream.read(numbers))
    except BadActivations as error:
        raise BadActivations(f"in sequences {numbers[0]} to {numbers[-1]}: {error}") from error


@dataclass(frozen=True)
class Job:
    """Everything that decides the result, and how to get there.

    models: fingerprints, the anchor's first. fit, score: the two streams, and the sha256 of their
    tokens. dictionaries: the anchor's, by site, each with its sha256. prepared: what makes tokens
    of the text, and how many positions are skipped. ratios: for the table. covariances: needed for
    the affine map. runtime: on its device sums are restored, maps fitted and applied.
    """

    runtime: Runtime
    ranks: Ranks
    models: Sequence[str]
    sites: Sequence[str]
    fit: Stream
    score: Stream
    fit_sha: str
    score_sha: str
    dtype: str
    precision: torch.dtype = torch.float64
    covariances: bool = True
    dictionaries: Mapping[str, tuple[str, Reconstruct]] = field(default_factory=dict)
    prepared: Mapping[str, Any] = field(default_factory=dict)
    ratios: Mapping[str, Sequence[float]] = field(default_factory=dict)
    batch: int = 32
    save_every: float = 60.0
    name: str = ""

    def run(self) -> tuple[Artifact, dict[str, Path]] | None:
        """The scores (see `_score`), and where all three artifacts lie; on other ranks than the
        first None. Collective.

        Raises BadActivations (see `MomentAccumulator`, `fit_rotation`), StoreFull.
        """
        recipes = self.recipes()

        def together(kind: str, build: Build) -> Artifact | None:
            return self._together(kind, recipes[kind], build)

        # One inside the other: what is made of an artifact is asked for first, and nothing before
        # it is read where that is there.
        def moments() -> Artifact | None:
            return together("language-moments", self._gather)

        def maps() -> Artifact | None:
            return together("language-maps", lambda c: self._fit(moments(), c))

        scores = together("language-scores", lambda c: self._score(maps(), c))
        if scores is None:
            return None
        paths = {}
        for kind, recipe in recipes.items():
            pattern = f"*{fingerprint(kind, recipe)[:16]}{SUFFIX}"
            for path in (self.runtime.store.directory / kind).glob(pattern):
                paths[kind] = path
        return scores, paths

    def recipes(self) -> dict[str, dict[str, Any]]:
        """Of the three artifacts, by kind: each names the one that it is made of."""
        moments = {
            "version": RECIPE_VERSION,
            "models": list(self.models),
            "tokens": _tokens(self.fit, self.fit_sha),
            "sites": list(self.sites),
            "dtype": self.dtype,
            "precision": str(self.precision).removeprefix("torch."),
            "covariances": self.covariances,
            **self.prepared,
        }
        maps = {"version": RECIPE_VERSION, "moments": fingerprint("language-moments", moments)}
        scores = {
            "version": RECIPE_VERSION,
            "maps": fingerprint("language-maps", maps),
            "tokens": _tokens(self.score, self.score_sha),
            "dictionaries": {site: sha for site, (sha, _) in self.dictionaries.items()},
        }
        return {"language-moments": moments, "language-maps": maps, "language-scores": scores}

    def _together(
        self,
        kind: str,
        recipe: Mapping[str, Any],
        build: Build,
    ) -> Artifact | None:
        """The first rank asks the store, and all build if it must; the artifact, on that rank."""
        if not self.ranks.first:
            if self.ranks.share(None):
                build(None)
            return None
        found = True

        def begin(checkpoint: Checkpoint) -> Artifact:
            nonlocal found
            found = False
            self.ranks.share(True)
            built = build(checkpoint)
            assert built is not None
            return built

        artifact = self.runtime.store.get_or_build(kind, recipe, begin, name=self.name)
        if found:
            self.ranks.share(False)
        return artifact

    def _walk(self, one: Pass, stream: Stream, stage: str, checkpoint: Checkpoint | None) -> None:
        walk(
            one,
            stream,
            self.batch,
            stage=stage,
            ranks=self.ranks,
            checkpoint=checkpoint,
            save_every=self.save_every,
            progress=self.runtime.progress,
        )

    def _gather(self, checkpoint: Checkpoint | None) -> Artifact | None:
        siblings = len(self.models) - 1
        one = MomentPass(
            self.sites, siblings, self.covariances, self.precision, self.runtime.device
        )
        self._walk(one, self.fit, "pass 1, moments", checkpoint)
        return moments_artifact(one.moments()) if self.ranks.first else None

    def _fit(self, artifact: Artifact | None, checkpoint: Checkpoint | None) -> Artifact | None:
        if artifact is None or checkpoint is None:  # a rank that is not the first
            return None
        saved = checkpoint.load()
        tensors = {} if saved is None else dict(saved.tensors)
        facts: dict[str, Any] = {} if saved is None else dict(saved.meta)
        last = time.monotonic()
        for i, site in enumerate(self.sites):
            if site not in facts:
                maps = Maps.fit(moments_of(artifact, site, self.runtime.device), f"fit at {site}")
                for j, each in enumerate(maps):
                    tensors |= {f"{site}/{j}/{n}": t for n, t in _tensors_of(each).items()}
                facts[site] = [_facts_of(each) for each in maps]
                if time.monotonic() - last > self.save_every:
                    checkpoint.save(Artifact(tensors, facts))
                    last = time.monotonic()
            self.runtime.progress("fitting (sites)", i + 1, len(self.sites))
        return Artifact(tensors, facts)

    def _score(self, artifact: Artifact | None, checkpoint: Checkpoint | None) -> Artifact | None:
        """Meta: "sites" in order; "maps", the facts of each map by site and sibling; "scores", by
        site and sibling "ev" and "ev_grand" of every name in PREDICTORS and RECONSTRUCTIONS."""
        facts = self.ranks.share(None if artifact is None else dict(artifact.meta))
        # Single precision, as activations are: half the memory, and half of what is sent.
        narrow = {} if artifact is None else {n: t.float() for n, t in artifact.tensors.items()}
        shared = Artifact(self.ranks.share_tensors(narrow, self.runtime.device), facts)
        maps = {site: maps_of(shared, site) for site in self.sites}
        one = ScorePass(maps, {site: each for site, (_, each) in self.dictionaries.items()})
        self._walk(one, self.score, "pass 2, scores", checkpoint)
        if not self.ranks.first:
            return None
        scores = {
            site: [
                {n: {"ev": s.score, "ev_grand": s.grand_score} for n, s in found[i].items()}
                for i in range(len(found))
            ]
            for site, found in one.scores().items()
        }
        return Artifact(one.state(), {"sites": list(self.sites), "maps": facts, "scores": scores})


def _tokens(stream: Stream, sha: str) -> dict[str, Any]:
    return {"sha256": sha, "sequences": len(stream.numbers), "context": stream.tokens}


def moments_artifact(moments: Mapping[str, Sequence[Moments]]) -> Artifact:
    """Moments by site, one for each sibling, as `moments_of` reads them; float64.

    Tensors: `SITE/anchor.mean`, `.variance`, `.covariance` and the same of `SITE/sibling.0`, with
    its `.cross` [d_a, d_b].
    """
    tensors: dict[str, Tensor | None] = {}
    meta: dict[str, Any] = {}
    for site, found in moments.items():
        m = found[0]
        tensors[f"{site}/anchor.mean"] = m.mean_b
        tensors[f"{site}/anchor.variance"] = m.var_b
        tensors[f"{site}/anchor.covariance"] = m.auto_b
        for i, m in enumerate(found):
            tensors[f"{site}/sibling.{i}.mean"] = m.mean_a
            tensors[f"{site}/sibling.{i}.variance"] = m.var_a
            tensors[f"{site}/sibling.{i}.covariance"] = m.auto_a
            tensors[f"{site}/sibling.{i}.cross"] = m.cross
        meta[site] = [{"tokens": m.tokens, "rtol": m.rtol, "eps": m.eps} for m in found]
    return Artifact({n: t for n, t in tensors.items() if t is not None}, meta)


def moments_of(artifact: Artifact, site: str, device: torch.device | str = "cpu") -> list[Moments]:
    """The moments of one site from a `language-moments` artifact, one for each sibling."""

    def tensor(name: str) -> Tensor:
        return artifact.tensors[f"{site}/{name}"].to(device)

    def covariance(side: str) -> Tensor | None:
        name = f"{side}.covariance"
        return tensor(name) if f"{site}/{name}" in artifact.tensors else None

    return [
        Moments(
            about["tokens"],
            tensor(f"sibling.{i}.mean"),
            tensor("anchor.mean"),
            tensor(f"sibling.{i}.variance"),
            tensor("anchor.variance"),
            tensor(f"sibling.{i}.cross"),
            covariance(f"sibling.{i}"),
            covariance("anchor"),
            about["rtol"],
            about["eps"],
        )
        for i, about in enumerate(artifact.meta[site])
    ]


def _tensors_of(maps: Maps) -> dict[str, Tensor]:
    rotation = maps.rotation
    found = {
        "r": rotation.r,
        "singular_values": rotation.singular_values,
        "mean_a": rotation.mean_a,
        "mean_b": rotation.mean_b,
    }
    if maps.affine is not None:
        found["w"] = maps.affine.w
    return {name: tensor.cpu() for name, tensor in found.items()}


def _facts_of(maps: Maps) -> dict[str, Any]:
    """distance: ||r - I||_F / sqrt(2 d), 1 for a Haar draw. Where rank < d, r is arbitrary on the
    rest."""
    r, affine = maps.rotation.r, maps.affine
    return {
        "distance": frobenius_distance(r) / math.sqrt(2 * len(r)),
        "det": maps.rotation.det,
        "rank": maps.rotation.rank,
        "affine_rank": None if affine is None else affine.rank,
        "d": len(r),
    }


def maps_of(artifact: Artifact, site: str) -> list[Maps]:
    """The maps of one site from a `language-maps` artifact, one for each sibling."""
    result = []
    for i, about in enumerate(artifact.meta[site]):
        t = {
            name: artifact.tensors[f"{site}/{i}/{name}"]
            for name in ("r", "mean_a", "mean_b", "singular_values")
        }
        rotation = Rotation(**t, rank=about["rank"])
        affine = None
        if about["affine_rank"] is not None:
            w = artifact.tensors[f"{site}/{i}/w"]
            affine = Affine(w, t["mean_a"], t["mean_b"], about["affine_rank"])
        result.append(Maps(rotation, Shift(t["mean_a"], t["mean_b"]), affine))
    return result


__all__ = [
    "Job",
    "Stream",
    "maps_of",
    "moments_artifact",
    "moments_of",
    "walk",
]
