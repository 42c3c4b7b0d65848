"""`polyrot pair`: does A's dictionary work on B, and write down what is carried there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from polyrot.cohorts.cohort import Split
from polyrot.defaults import CONTEXT, TOKENS
from polyrot.dictionaries.carried import carried
from polyrot.dictionaries.loading import BadDictionary, Saved, load_sae
from polyrot.language import pair, text
from polyrot.language.loading import Unusable
from polyrot.language.pair import PairCohort
from polyrot.maps.checks import BadActivations
from polyrot.maps.files import BadFile, read_array
from polyrot.maps.procrustes import Rotation
from polyrot.measures.fits import fit_all
from polyrot.measures.frontier import Frontier, measure_frontier, notes_on
from polyrot.measures.porting import BadVector, Port, checked
from polyrot.runtime.commands import run
from polyrot.runtime.device import resolve_device
from polyrot.runtime.files import check_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ABOUT = """Carry things of model A to model B: fit the rotation R between their activations at one
site, judge A's dictionary on B through it, and write, with --port, R, its scale and the maps that
stitch B's stream into A, A's dictionary in B's basis (in SAELens's format, its explained variance
on B in the metadata), and A's steering vectors in B's basis. Nothing is trained. All claims on a
pair are judged by `pytest claims --pair A B`. Exit status: 0, or 2 for what cannot be used."""


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=ABOUT)
    parser.add_argument("a", metavar="A", help="checkpoint: NAME, NAME@REVISION or DIR")
    parser.add_argument("b", metavar="B", help="the same of the model to carry to")
    parser.add_argument(
        "--sae",
        type=Path,
        metavar="DIR",
        help="A's dictionary: of SAELens, dictionary_learning, sparsify or Gemma Scope",
    )
    parser.add_argument(
        "--vector",
        type=Path,
        metavar="FILE",
        help="A's steering vector [d], or several [n, d]: .npy, .npz or .safetensors",
    )
    parser.add_argument(
        "--vector-name", metavar="NAME", help="which array of FILE, where it holds several"
    )
    parser.add_argument(
        "--site", help="such as resid_post_3; needed without --sae, which names its own"
    )
    parser.add_argument("--port", type=Path, metavar="OUT", help="directory to write into")
    parser.add_argument(
        "--text", type=Path, metavar="FILE", help="text to measure on (default: the Pile's)"
    )
    parser.add_argument(
        "--context",
        type=int,
        default=CONTEXT,
        help=f"tokens in a sequence (default {CONTEXT})",
    )
    parser.add_argument(
        "--tokens",
        type=int,
        default=TOKENS,
        help=f"to fit R on, and as many to score on (default {TOKENS})",
    )
    parser.add_argument(
        "--skip-positions",
        type=int,
        default=0,
        metavar="N",
        help="leave out the first N positions of every sequence (default 0)",
    )
    parser.add_argument(
        "--device", type=resolve_device, default="cpu", help="auto, cpu (default) or cuda"
    )
    return parser


def main(given: Sequence[str] | None = None, prog: str = "polyrot pair") -> int:
    """Run the command line; returns the exit status."""
    options = _parser(prog).parse_args(given)
    errors = (Unusable, BadDictionary, BadActivations, BadFile, BadVector, OSError)
    return run(lambda: _run(options), errors, goes_on="")


def _run(options: argparse.Namespace) -> None:
    _check(options)
    sae = load_sae(options.sae) if options.sae is not None else None
    site = sae.site if sae is not None else options.site
    if options.site not in (None, site):
        raise Unusable(f"--site {options.site}: the dictionary is of {site}")
    vectors = _vectors(options)
    if sae is not None and options.port is not None:
        _check_carried(sae)

    def splits(tokenizer: PreTrainedTokenizerBase) -> Mapping[Split, Tensor]:
        sizes = text.split_sizes(options.tokens, options.context)
        if options.text is not None:
            return text.sequences_from_text(options.text, tokenizer, options.context, sizes)
        return text.pile_sequences(tokenizer, options.context, sizes)

    loaded = pair.load(options.a, options.b, splits, sae, skip=options.skip_positions)
    cohort = loaded.cohort(options.device).skipping(options.skip_positions)
    if site not in cohort.sites:
        have = f"{cohort.sites[0]} to {cohort.sites[-1]}"
        raise Unusable(f"--site {site}: {options.a} has {have}")
    cohort.sites = (site,)  # nothing is captured or fitted elsewhere
    if vectors is not None:
        checked(vectors, cohort.width)
    port = Port((options.a, options.b), site, cohort, fit_all(cohort))
    found = _frontier(options, cohort, port, sae)
    if options.port is not None:
        port.write(options.port, sae, found, vectors)
    if found is not None:
        print("\n".join(found.lines()))
    shown = ", ".join(f"{name} {value:.3f}" for name, value in port.quality().items())
    print(f"{site}: scale {port.scale:.4g}; {shown}")
    if options.port is not None:
        print(f"written to {options.port}")


def _check(options: argparse.Namespace) -> None:
    """What is wrong with the options, before anything is read."""
    if options.text is not None:
        text.check_there(options.text)
    if options.sae is None and options.site is None:
        raise Unusable("give --sae DIR, or --site SITE for R alone or a steering vector")
    if options.context < 2 or options.tokens < options.context:
        raise Unusable(f"--tokens {options.tokens} is less than one --context {options.context}")
    if not 0 <= options.skip_positions <= options.context - 2:
        raise Unusable(f"--skip-positions {options.skip_positions}: give 0 to --context - 2")
    if options.vector is not None and options.port is None:
        raise Unusable("--vector is carried to B and written: give --port OUT, too")
    if options.port is not None:
        check_folder(options.port, "--port OUT names another directory")


def _vectors(options: argparse.Namespace) -> Tensor | None:
    if options.vector is None:
        return None
    return torch.as_tensor(read_array(options.vector, options.vector_name))


def _check_carried(sae: Saved) -> None:
    """Raise BadDictionary now for a dictionary that cannot be carried: by any R."""
    d = sae.dictionary.d_in
    eye, zero = torch.eye(d).double(), torch.zeros(d).double()
    carried(sae.dictionary, Rotation(eye, zero, zero, zero, d))


def _frontier(
    options: argparse.Namespace, cohort: PairCohort, port: Port, sae: Saved | None
) -> Frontier | None:
    if sae is None:
        return None
    saes = {sae.site: sae.dictionary.to(options.device)}
    notes = (*cohort.notes, *notes_on(sae, options.a))
    alike = "" if cohort.differ_by(0.1) else "the weights of the two differ by less than a tenth"
    return measure_frontier(cohort, port.fits, saes, {}, notes, read=sae, related=alike)


if __name__ == "__main__":
    sys.exit(main())
