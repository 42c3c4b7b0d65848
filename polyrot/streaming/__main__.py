"""`python -m polyrot.streaming A B`: streaming Procrustes between language models."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
import torch
from torch import nn

from polyrot.dictionaries.loading import load_sae
from polyrot.dictionaries.sae import Dictionary
from polyrot.language import text as texts
from polyrot.language.checks import check_causal
from polyrot.language.identity import function_fingerprint
from polyrot.language.loading import (
    Unusable,
    check_one_family,
    has_tokenizer,
    load_causal_lm,
    load_tokenizer,
)
from polyrot.language.sites import blocks, site_names, width_of
from polyrot.maps.checks import check_enough_tokens
from polyrot.runtime import threads
from polyrot.runtime.commands import GOES_ON, status_of, terminable
from polyrot.runtime.device import NoDevice, resolve_device
from polyrot.runtime.progress import ConsoleProgress, Progress, silent
from polyrot.store import Artifact, Runtime, Store, check_writable
from polyrot.streaming.job import Job, Stream
from polyrot.streaming.passes import PREDICTORS, RECONSTRUCTIONS, Reconstruct
from polyrot.streaming.ranks import Ranks, joined, leave, place
from polyrot.streaming.readings import first_position, reader, readings
from polyrot.streaming.sequences import StreamedText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DTYPES = {d: getattr(torch, d) for d in ("float32", "bfloat16", "float16", "float64")}
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}

_ABOUT = """Fit the rotation that carries the residual stream of each sibling B to that of the
anchor A, and score it on held-out sequences, in memory that does not grow with the number of
tokens. Pass 1 gathers means, covariances and cross-covariances at every site; pass 2 scores. A
killed run is resumed by the same command. Prints a Markdown table, and where the artifacts lie."""
_MORE = """columns: distance is ||R - I||_F / sqrt(2 d), 1 for a Haar draw; rank is that of the
cross-covariance: where it is below d, R is arbitrary on the rest; first/median is the norm at the
first position over the median, the larger of the two models' (above 3 there is a second line,
SITE[1:], without that position, or with --skip-positions SITE[0:], with all). EV of the anchor's
activations, predicted from the sibling's: untouched, with the anchor's mean (shift), through the
rotation, through the unconstrained affine map. EV of what the anchor's dictionary makes of its
input: the anchor's activations (self), the sibling's untouched (naive), with the anchor's mean
(shifted), rotated. 1 is perfect, 0 is no better than the mean; all on held-out sequences.

several processes: torchrun --nproc-per-node 2 -m polyrot.streaming A B --text FILE
exit status: 0 done, 2 error, 130 interrupted."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m polyrot.streaming",
        description=_ABOUT,
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("models", nargs="+", metavar="MODEL", help="the anchor A, then siblings B ...: directories "
        "as `save_pretrained` writes them, or hub names; NAME@REVISION for a revision")  # fmt: skip
    add("--text", type=Path, required=True, metavar="FILE", help="plain UTF-8 text, of any length; "
        "the first sequences are to fit on, the next ones to score on")  # fmt: skip
    add("--tokens", type=_count, default=65_536, metavar="N", help="to fit on (default 65536)")
    add("--held-out", type=_count, default=16_384, metavar="N", help="to score on (default 16384)")
    add("--context", type=_count, default=128, metavar="N", help="tokens of a sequence (128)")
    add("--skip-positions", type=_not_negative, default=0, metavar="N", help="leave the first N "
        "positions of each sequence out of everything (default 0); many models have an attention "
        "sink there, whose norm decides the figures")  # fmt: skip
    add("--sites", metavar="A,B", help="such as resid_pre_0,resid_post_2 (default: all)")
    add("--sae", action="append", type=Path, default=[], metavar="DIR", help="a dictionary of A, "
        "saved by polyrot or SAELens; repeat for more sites")  # fmt: skip
    add("--dtype", choices=DTYPES, default="float32", help="of weights and activations (float32)")
    add("--precision", choices=PRECISIONS, default="float64", help="of the products of a batch; "
        "sums over batches are always float64. float32 is about twice as fast on a CPU and "
        "determines R to about 1e-6; the affine map wants float64 (default)")  # fmt: skip
    add("--no-affine", action="store_true", help="gather no covariances and fit no affine map: a "
        "third of the memory and of the products")  # fmt: skip
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="each rank of torchrun "
        "takes its own CUDA device (default auto: CUDA where there is one)")  # fmt: skip
    add("--device-map", metavar="MAP", type=_device_map, help="spread each model over devices: "
        "auto, balanced, or JSON from modules to devices, as transformers' device_map (needs "
        "accelerate; without torchrun)")  # fmt: skip
    add("--batch-tokens", type=_count, default=4096, metavar="N", help="run at once on each rank; "
        "fewer need less memory, more are faster (default 4096)")  # fmt: skip
    add("--threads", type=_count, metavar="N", help="of the CPU, on each rank (default: torch's)")
    add("--save-every", type=float, default=60.0, metavar="SECONDS", help="what a kill loses at "
        "most, if saving takes less than a twentieth of it (default 60)")  # fmt: skip
    add("--artifacts", type=Path, default=Path(platformdirs.user_cache_dir("polyrot")),
        metavar="DIR", help="the store (default: the user's cache)")  # fmt: skip
    return made


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _not_negative(text: str) -> int:
    return 0 if text == "0" else _count(text)


def _device_map(text: str) -> str | dict[str, Any]:
    if not text.startswith("{"):
        return text
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is not JSON: {error}") from error
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    from transformers.utils.logging import disable_progress_bar

    options = parser().parse_args(arguments)
    local, size = place()
    who = f"rank {os.environ.get('RANK', local)}: " if size > 1 else ""
    try:
        check_writable(options.artifacts)
        device = _device(options, local, size)
        # Ranks are ended by torchrun, which waits for each of them.
        with terminable() if size == 1 else nullcontext(), joined() as ranks:
            if not ranks.first:
                disable_progress_bar()
            progress = ConsoleProgress() if ranks.first else silent
            job = make_job(options, ranks, device, progress)
            done = job.run()
        if done is not None:
            scores, paths = done
            print(table(scores, [Path(name).name for name in options.models[1:]], job.ratios))
            print("".join(f"\n{kind:<17} {path}" for kind, path in paths.items()))
    except torch.OutOfMemoryError as error:
        advice = "lower --batch-tokens, name fewer --sites, or give --no-affine or --dtype bfloat16"
        print(f"{who}error: out of memory: {error}; {advice}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"{who}error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupted:
        print(f"{who}interrupted: {GOES_ON}", file=sys.stderr)
        return status_of(interrupted)
    return 0


def _device(options: argparse.Namespace, local: int, size: int) -> torch.device:
    """Where this process computes; its threads and its CUDA device are set."""
    if options.threads:
        threads.settle(options.threads)
    if options.device_map is not None:
        if size > 1:
            raise Unusable(
                f"--device-map spreads a model over all devices, and {size} ranks would each do "
                "so: start one process, without torchrun"
            )
        if importlib.util.find_spec("accelerate") is None:
            raise Unusable(
                "--device-map needs accelerate, which is not installed: "
                "`pip install polyrot[large]`, or `pip install accelerate`"
            )
    try:
        kind = resolve_device(options.device)
    except NoDevice as error:
        raise Unusable(f"--device {error}") from error
    if kind == "cpu":
        return torch.device("cpu")
    if local >= torch.cuda.device_count():
        raise Unusable(
            f"rank {local} of this machine has no CUDA device, there are "
            f"{torch.cuda.device_count()}: lower --nproc-per-node"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def make_job(
    options: argparse.Namespace, ranks: Ranks, device: torch.device, progress: Progress = silent
) -> Job:
    """Load models, text and dictionaries, and check that they belong together. Collective.

    Raises Unusable (and its kinds), BadDictionary, BadActivations for too few tokens.
    """
    names = list(options.models)
    if len(names) < 2:
        raise Unusable(f"one model, {names[0]}: name the anchor and at least one sibling")
    models, tokenizer = _load(names, options, device)
    prints = ranks.share([function_fingerprint(m) for m in models] if ranks.first else None)
    for i, fingerprint in enumerate(prints):
        if fingerprint in prints[:i]:
            raise Unusable(
                f"{names[prints.index(fingerprint)]} and {names[i]} are one model: their weights "
                f"and configurations are the same (sha256 {fingerprint[:16]}); give two that were "
                "trained apart"
            )
    anchor: Any = models[0]
    d = width_of(anchor)
    longest = getattr(anchor.config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and options.context > longest:
        raise Unusable(f"--context {options.context}: the models know {longest} positions")
    skip = options.skip_positions
    if skip > options.context - 2:
        raise Unusable(
            f"--skip-positions {skip} leaves no two positions of sequences of --context "
            f"{options.context}"
        )
    kept = options.tokens // options.context * (options.context - skip) if skip else options.tokens
    check_enough_tokens(kept, d, "--tokens" + (", the skipped positions left out" if skip else ""))
    sites = _sites(options.sites, site_names(len(blocks(anchor))))
    given = _dictionaries(options.sae, sites, d, device)
    vocabulary = anchor.get_input_embeddings().weight.shape[0]
    text = StreamedText(options.text, tokenizer, options.context, vocabulary)
    cut = text.split(options.tokens, options.held_out, progress) if ranks.first else None
    split, text.index = ranks.share((cut, text.index))
    for name, model in zip(names, models, strict=True):
        check_causal(name, model, text.sequences(split.fit[:1]))
    first = ranks.share(
        first_position(models, text, split.fit, sites, skip) if ranks.first else None
    )
    wanted = readings(sites, first)
    if ranks.first:
        for note in (*texts.special_notes(tokenizer, text.counts, text.seen), *first.notes()):
            print(note, file=sys.stderr)
        matrices = len(names) - 1 + (0 if options.no_affine else len(names))
        gib = len(wanted) * matrices * d * d * 8 / 2**30
        print(
            f"{len(wanted)} sites x {matrices} matrices of {d} x {d}: {gib:.2f} GiB of sums, and "
            "as much in the store, for any number of tokens",
            file=sys.stderr,
        )
    read = reader(models, text, wanted)
    return Job(
        runtime=Runtime(Store(options.artifacts), str(device), progress),
        ranks=ranks,
        models=prints,
        sites=tuple(wanted),
        fit=Stream(split.fit, options.context, read),
        score=Stream(split.score, options.context, read),
        fit_sha=split.fit_sha,
        score_sha=split.score_sha,
        dtype=options.dtype,
        precision=PRECISIONS[options.precision],
        covariances=not options.no_affine,
        dictionaries={n: given[r.site] for n, r in wanted.items() if r.site in given},
        prepared={"text": texts.fingerprint(tokenizer), "skip": skip},
        ratios={name: first.ratios[r.site] for name, r in wanted.items()},
        batch=max(1, options.batch_tokens // options.context),
        save_every=options.save_every,
        name="-".join(Path(name).name for name in names),
    )


def _load(
    names: Sequence[str], options: argparse.Namespace, device: torch.device
) -> tuple[list[nn.Module], PreTrainedTokenizerBase]:
    """The models, which are of one family, and the anchor's tokenizer."""
    models: list[nn.Module] = []
    tokenizers: list[PreTrainedTokenizerBase] = []
    for name in names:
        source, _, revision = (name, "", "") if Path(name).is_dir() else name.partition("@")
        model = load_causal_lm(
            source,
            revision=revision or None,
            device=device,
            dtype=DTYPES[options.dtype],
            device_map=options.device_map,
        )
        models.append(model)
        if tokenizers and Path(source).is_dir() and not has_tokenizer(Path(source)):
            tokenizers.append(tokenizers[0])  # trained here, on the anchor's
        else:
            tokenizers.append(load_tokenizer(source, revision=revision or None))
    check_one_family(names, models, tokenizers)
    return models, tokenizers[0]


def _sites(asked: str | None, known: Sequence[str]) -> tuple[str, ...]:
    sites = known if asked is None else [site.strip() for site in asked.split(",")]
    for site in sites:
        if site not in known:
            raise Unusable(f"--sites: no site {site!r}; the models have {', '.join(known)}")
    return tuple(site for site in known if site in sites)


def _dictionaries(
    folders: Sequence[Path], sites: Sequence[str], d: int, device: torch.device
) -> dict[str, tuple[str, Reconstruct]]:
    found: dict[str, tuple[str, Reconstruct]] = {}
    for folder in folders:
        saved = load_sae(folder)
        width = saved.dictionary.d_in
        if width != d:
            raise Unusable(f"--sae {folder} reads width {width}, the models have {d}")
        if saved.site not in sites:
            raise Unusable(f"--sae {folder} is of {saved.site}, which is not among {list(sites)}")
        if saved.site in found:
            raise Unusable(f"--sae {folder}: a second dictionary of {saved.site}; give one a site")
        sha = hashlib.sha256()
        for file in reversed(saved.files):
            sha.update(file.read_bytes())
        found[saved.site] = (sha.hexdigest(), _on(saved.dictionary.to(device), device))
    return found


def _on(dictionary: Dictionary, device: torch.device) -> Reconstruct:
    """`dictionary`, which is on `device`, of activations that may be on any."""
    return lambda x: dictionary(x.to(device)).to(x.device)


def table(scores: Artifact, siblings: Sequence[str], ratios: Mapping[str, Sequence[float]]) -> str:
    """A `language-scores` artifact as a Markdown table, a line for each sibling and reading.
    ratios: by reading, of each model the norm at the first position over the median."""
    facts, found = scores.meta["maps"], scores.meta["scores"]
    given = {name for of_site in found.values() for each in of_site for name in each}
    names = [name for name in (*PREDICTORS, *RECONSTRUCTIONS) if name in given]
    lines = [
        [
            "sibling",
            "site",
            "distance",
            "det",
            "rank",
            "first/median",
            *(f"EV {name}" for name in names),
        ]
    ]
    for i, sibling in enumerate(siblings):
        for site in scores.meta["sites"]:
            about, values = facts[site][i], found[site][i]
            lines.append(
                [
                    sibling,
                    site,
                    f"{about['distance']:.3f}",
                    f"{about['det']:+.0f}",
                    f"{about['rank']}/{about['d']}",
                    f"{max(ratios[site][0], ratios[site][1 + i]):.3g}",
                    *(_ev(values, name) for name in names),
                ]
            )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * w if i < 2 else "-" * (w - 1) + ":" for i, w in enumerate(widths)])
    return "\n".join(
        "| " + " | ".join(_cell(c, w, i) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        + " |"
        for line in lines
    )  # fmt: skip


def _ev(values: Mapping[str, Any], name: str) -> str:
    return f"{values[name]['ev']:.4f}" if name in values else ""


def _cell(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column < 2 else text.rjust(width)


if __name__ == "__main__":
    leave(main())
