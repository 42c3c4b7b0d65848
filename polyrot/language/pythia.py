"""The paper's language models: Pythia-70m, nine seeds (van der Wal et al. 2025, arXiv 2503.09543).

They come from the hub, or from a local directory that holds a folder for each seed:

    DIR/seed1 ... DIR/seed9       each as `save_pretrained` writes it; two or more are enough
    DIR/seed1/step3000 ...        checkpoints of the first seed's run, for drift; five or more
    DIR/seed1 or DIR              the tokenizer

A seed's folder without weights of its own stands for the last of its steps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from polyrot.cohorts.cohort import ScaleFacts, Split
from polyrot.language import checks, identity, loading, text
from polyrot.language.checkpoints import checkpoints as cohort_of_run
from polyrot.language.cohort import LanguageCohort
from polyrot.language.directions import PYTHIA, Tokenised, tokenise
from polyrot.language.loading import Unusable, WeightsMissing
from polyrot.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from transformers import GPTNeoXForCausalLM, PreTrainedTokenizerBase

SCALE = "pythia"
FACTS = ScaleFacts(drift=True, drift_l1=1e-3, from_paper=True)
LOWER_TOKENS = "--tokens"
"""The option that decides how much memory its activations take."""
SEEDS = tuple(range(1, 10))
NAME = "EleutherAI/pythia-70m-seed{}"
TOKENIZER = "EleutherAI/pythia-70m"
"""All sizes and seeds share one; the seeds' repositories need not hold it."""
LAST = 143_000
REVISION = f"step{LAST}"
PINNED: Mapping[int, str] = {
    1: "a94dc37ad8326640e664560d32a0d4a229253fce",
    2: "258e7aedecacc445bdc68229398e49b9e90d59e0",
    3: "d6d278fb9b57ed4ce7faf49ad0aae4ee0805936b",
}
"""Commits of step143000, as far as they are publicly recorded; the other seeds by branch."""
STEPS = (3000, 10_000, 30_000, 70_000, LAST)
"""Of the first seed's run, for drift: the paper's two, and three between."""
CURVE = 5
"""Checkpoints that the curve of drift needs."""
INSTEAD = "name a folder of local checkpoints with --pythia-dir DIR (see pytest claims --help)"


class TooFewCheckpoints(Unusable):
    """Drift cannot be measured on so few checkpoints of one run: the `reason`, and a `command` with
    which it can."""

    def __init__(self, reason: str, command: str) -> None:
        super().__init__(f"{reason} (to run it: {command})")
        self.reason, self.command = reason, command


Named = tuple[str | Path, str | None]
"""A hub name or directory, and a revision."""


@dataclass(frozen=True)
class Source:
    """Where the checkpoints are. seeds: by seed, the anchor first. run: by step, of the anchor's
    run. tokenizer: where that is."""

    seeds: Mapping[int, Named]
    run: Mapping[int, Named]
    tokenizer: Named


def hub(revision: str | None = None) -> Source:
    """The nine on the hub, at their pinned commits, or all at one `revision`."""
    seeds = {s: (NAME.format(s), revision or PINNED.get(s, REVISION)) for s in SEEDS}
    first = NAME.format(SEEDS[0])
    run: dict[int, Named] = {step: (first, f"step{step}") for step in STEPS}
    if revision is None:
        run[LAST] = seeds[SEEDS[0]]
    return Source(dict(seeds), run, (TOKENIZER, None))


def local(directory: Path | str) -> Source:
    """The seeds in a directory; see the module's text. Raises WeightsMissing for fewer than two."""
    folder = Path(directory)
    found = sorted(_numbered(folder, "seed").items())
    if len(found) < 2:
        raise WeightsMissing(
            f"{folder} holds {len(found)} seeds, of which two are needed: folders seed1, seed2, "
            "... with a checkpoint in each"
        )
    seeds: dict[int, Named] = {}
    for seed, path in found:
        steps = _numbered(path, "step")
        own = any((path / name).is_file() for name in loading.SAFE + loading.PICKLED)
        seeds[seed] = (path if own or not steps else steps[max(steps)], None)
    anchor = found[0][1]
    run: dict[int, Named] = {s: (p, None) for s, p in sorted(_numbered(anchor, "step").items())}
    places = (anchor, seeds[found[0][0]][0], folder)
    held = [place for place in places if loading.has_tokenizer(Path(place))]
    return Source(seeds, run, ((held or [anchor])[0], None))


def _numbered(folder: Path, word: str) -> dict[int, Path]:
    """Folders such as seed3, by number."""
    if not folder.is_dir():
        return {}
    return {
        int(path.name.removeprefix(word)): path
        for path in folder.iterdir()
        if path.is_dir() and path.name.removeprefix(word).isdecimal() and path.name != word
    }


def locate(source: Source) -> None:
    """Fetch, or find, everything that `source` names. A hub that does not answer is asked once.
    Raises WeightsMissing for all that is missing at once."""
    missing: list[WeightsMissing] = []
    unreachable = False
    wanted = dict.fromkeys([*source.seeds.values(), *source.run.values()])
    for name, revision in wanted:
        try:
            loading.locate(name, revision=revision, instead=INSTEAD, cached_only=unreachable)
        except WeightsMissing as error:
            missing.append(error)
            unreachable |= error.unreachable
    try:
        tokenizer_of(source, cached_only=unreachable)
    except WeightsMissing as error:
        missing.append(error)
    if len(missing) == 1 or (missing and not missing[0].command):
        raise missing[0]
    if missing:
        commands = "\n".join(f"  {error.command}" for error in missing if error.command)
        raise WeightsMissing(
            f"{missing[0].problem}; likewise {len(missing) - 1} more. {INSTEAD[0].upper()}"
            f"{INSTEAD[1:]}, or download them with\n{commands}"
        )


def tokenizer_of(source: Source, *, cached_only: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of all of them. cached_only: as `loading.locate` has it."""
    name, revision = source.tokenizer
    return loading.load_tokenizer(name, revision=revision, instead=INSTEAD, cached_only=cached_only)


@dataclass(frozen=True)
class Loaded:
    """Models on the CPU, and what they are to be measured on. made_by, notes: as of a pair
    (`polyrot.language.pair.Loaded`)."""

    seeds: tuple[int, ...]
    models: tuple[GPTNeoXForCausalLM, ...]
    tokens: Mapping[Split, Tensor]
    phrases: Mapping[str, Tokenised]
    made_by: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def cohort(self, device: torch.device | str = "cpu") -> LanguageCohort:
        """The cohort of scale `pythia` on a device; activations are kept as float16, as the paper's
        were."""
        models: list[Any] = [
            loading.on_device(model, device, f"seed {seed}")
            for seed, model in zip(self.seeds, self.models, strict=True)
        ]
        made = LanguageCohort(
            SCALE,
            self.seeds,
            models,
            self.tokens,
            list(self.made_by),
            self.phrases,
            keep=torch.float16,
            lower=LOWER_TOKENS,
            facts=FACTS,
        )
        made.notes = self.notes
        return made


def load(
    source: Source,
    tokens: Mapping[Split, Tensor],
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress = silent,
    skip: int = 0,
) -> Loaded:
    """The seeds of `source`, with every check of what may be wrong with them.

    Raises Unusable: missing or damaged weights, another architecture, widths, depths or
    vocabularies that differ, one model under two seeds, sequences too long, a tokenizer that does
    not suit the contrasts; BadActivations where a site is not finite.
    """
    names = [f"seed {seed}" for seed in source.seeds]
    models = _models(source.seeds.values(), progress)
    loading.check_one_family(names, models, [tokenizer] * len(models))
    for name, model in zip(names, models, strict=True):
        checks.check_runs(name, model, tokens, skip)
    identity.check_different(names, models, tokens["score"])
    try:
        phrases = tokenise(PYTHIA, tokenizer)
    except ValueError as error:
        raise Unusable(f"the tokenizer does not suit the paper's contrasts: {error}") from error
    made_by = tuple(identity.function_fingerprint(model) for model in models)
    return Loaded(
        tuple(source.seeds),
        tuple(models),
        tokens,
        phrases,
        (*made_by, text.fingerprint(tokenizer)),
        text.notes_on(tokenizer, tokens),
    )


def load_run(
    source: Source,
    tokens: Mapping[Split, Tensor],
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> LanguageCohort:
    """The checkpoints of the first seed's run as a cohort.

    Raises TooFewCheckpoints where a local directory holds fewer than five; Unusable as `load`.
    """
    if len(source.run) < CURVE:
        first = next(iter(source.seeds.values()))[0]
        raise TooFewCheckpoints(
            f"drift needs {CURVE} checkpoints of one run, {first} holds {len(source.run)}",
            "pytest claims --scale pythia --pythia-dir DIR, with DIR/seed1/step1000 and so on",
        )
    names = [f"step {step}" for step in source.run]
    models: list[Any] = _models(source.run.values(), progress)
    for name, model in zip(names, models, strict=True):
        checks.check_runs(name, model, tokens)
    identity.check_different(names, models, tokens["score"])
    made_by = [identity.function_fingerprint(model) for model in models]
    made_by.append(text.fingerprint(tokenizer_of(source)))
    moved: list[Any] = [loading.on_device(m, device, n) for n, m in zip(names, models, strict=True)]
    return cohort_of_run(
        SCALE,
        list(source.run),
        moved,
        tokens,
        made_by,
        keep=torch.float16,
        lower=LOWER_TOKENS,
        facts=FACTS,
    )


def _models(wanted: Collection[Named], progress: Progress) -> list[GPTNeoXForCausalLM]:
    from transformers import GPTNeoXForCausalLM

    models = []
    for done, (name, revision) in enumerate(wanted):
        progress("checkpoints", done, len(wanted))
        model = loading.load_causal_lm(name, revision=revision, instead=INSTEAD)
        if not isinstance(model, GPTNeoXForCausalLM):
            raise Unusable(
                f"{name} is a {type(model).__name__}, not GPT-NeoX as Pythia is: "
                "judge other models with --pair A B"
            )
        models.append(model)
    progress("checkpoints", len(wanted), len(wanted))
    return models
