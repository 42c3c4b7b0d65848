"""Command line: one dictionary of a group in a store, saved as a directory."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from polyrot.dictionaries.loading import BadDictionary, read_group, save_sae
from polyrot.dictionaries.sae import unstack
from polyrot.runtime.commands import run


def main(arguments: list[str] | None = None) -> int:
    """Command line: one dictionary of a group in a store, saved as a directory; returns the exit
    status."""
    parser = argparse.ArgumentParser(
        prog="python -m polyrot.dictionaries.loading",
        description="Save a dictionary that was trained here as a directory, which `pytest claims "
        "--sae DIR` and SAELens both read.",
    )
    parser.add_argument("file", type=Path, help="dictionaries/....safetensors of a store")
    parser.add_argument("directory", type=Path, help="where to save it")
    parser.add_argument("--site", required=True, help="such as resid_post_2")
    parser.add_argument("--model", type=int, default=0, help="number in its cohort (default 0)")
    options = parser.parse_args(arguments)
    return run(lambda: _save(parser, options), goes_on="")


def _save(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    try:
        head, tensors = read_group(options.file)
    except BadDictionary as error:
        parser.error(str(error))
    specs = [(int(spec[0]), str(spec[1])) for spec in head["recipe"]["specs"]]
    if (options.model, options.site) not in specs:
        parser.error(
            f"{options.file} has no dictionary of model {options.model} at {options.site}; it has "
            + ", ".join(f"{model} at {site}" for model, site in specs)
        )
    found = unstack({name: tensor.float() for name, tensor in tensors.items()})
    dictionary = found[specs.index((options.model, options.site))]
    try:
        save_sae(options.directory, dictionary, options.site)  # a group is of no named model
    except BadDictionary as error:
        parser.error(str(error))
    print(options.directory)


if __name__ == "__main__":
    sys.exit(main())
