"""Causal language models and tokenizers, by hub name or from a local directory.

No code of a checkpoint is ever run: `trust_remote_code` is False throughout. Weights are read from
safetensors where a checkpoint has them; where it has only `pytorch_model.bin`, as the Pythia seeds
do, through `torch.load(weights_only=True)`, whose unpickler makes tensors and nothing else. The
hub's service that converts such files is never called. `HF_HUB_OFFLINE=1` is honoured: only the
hub's cache is looked into.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from polyrot.cohorts.cohort import Split, weights_differ
from polyrot.language.sites import blocks, capture, site_names, width_of
from polyrot.maps.checks import check_matrix
from polyrot.runtime.device import memory_for

SAFE = ("model.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
TEXTS = ["*.json", "*.txt", "*.model"]  # configuration and tokenizer
INSTEAD = "give a local directory in place of its name"
PROBE = "The 12 mice (of Łódź) didn't\n\trun; 3.5% hid."


class Unusable(ValueError):
    """What was given cannot be judged; the message says what, where and what to do."""


class WeightsMissing(Unusable):
    """A checkpoint that is not where it was looked for; the message says how to get it.

    problem: where it was looked for. command: what downloads it, where the hub may have it.
    """

    def __init__(self, problem: str, command: str = "", instead: str = "") -> None:
        super().__init__(
            f"{problem}. Download with `{command}`, or {instead}" if command else problem
        )
        self.problem, self.command = problem, command


class BadCheckpoint(Unusable):
    """A checkpoint that is there, but cannot be used."""


class DifferentFamilies(Unusable):
    """Checkpoints that do not belong together; the message names what differs, and both values."""


def load_causal_lm(
    name_or_dir: str | Path,
    *,
    revision: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    device_map: str | dict[str, Any] | None = None,
    instead: str = INSTEAD,
) -> nn.Module:
    """The model in evaluation mode, without gradients.

    name_or_dir: a hub name, or a directory as `save_pretrained` writes it. revision: branch, tag or
    commit; of a directory, a folder inside it. device_map: as transformers has it, in place of
    `device` (needs accelerate). instead: what a message on missing weights offers beside the
    download.
    Raises WeightsMissing, and BadCheckpoint for one that is damaged, incomplete, no causal language
    model, or asks for code of its own.
    """
    folder = locate(name_or_dir, revision=revision, instead=instead)
    where = _shown(name_or_dir, revision)
    loaded: Any
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map=device_map,
            use_safetensors=_has(folder, SAFE),
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # transformers, safetensors and torch each have their own
        raise BadCheckpoint(f"{where} cannot be loaded from {folder}: {_first(error)}") from error
    model, report = loaded
    absent = sorted(report["missing_keys"])
    if absent:
        raise BadCheckpoint(
            f"{where}: {len(absent)} tensors are not in its files, the first {absent[0]}; they "
            f"would be random. Save the whole model into {folder}"
        )
    frozen = model.eval().requires_grad_(False)
    return frozen if device_map is not None else on_device(frozen, device, where)


def on_device(model: nn.Module, device: torch.device | str, where: str) -> nn.Module:
    """The model, moved. Raises torch.OutOfMemoryError naming `where` and what to do."""
    with memory_for(where, device, "judge it with --device cpu"):
        return model.to(device)


def locate(name_or_dir: str | Path, *, revision: str | None = None, instead: str = INSTEAD) -> Path:
    """The local folder of a checkpoint with its weights, fetched from the hub if need be and
    allowed. Arguments as `load_causal_lm`. Raises WeightsMissing."""
    return _folder(name_or_dir, revision, [*TEXTS, "*.safetensors"], SAFE + PICKLED, instead)


def load_tokenizer(
    name_or_dir: str | Path, *, revision: str | None = None, instead: str = INSTEAD
) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint. Arguments and errors as `load_causal_lm`."""
    files = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
    folder = _folder(name_or_dir, revision, TEXTS, files, instead, "tokenizer")
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        where = _shown(name_or_dir, revision)
        raise BadCheckpoint(
            f"the tokenizer of {where} cannot be loaded from {folder}: {_first(error)}"
        ) from error


def has_tokenizer(folder: Path) -> bool:
    """Whether a local directory holds a tokenizer."""
    return any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model"))


def _folder(
    name_or_dir: str | Path,
    revision: str | None,
    patterns: Sequence[str],
    wanted: Sequence[str],
    instead: str,
    what: str = "weights",
) -> Path:
    """A local folder with one of the files `wanted`: the one that is named, or the hub's snapshot.

    From the hub the files of `patterns` are fetched, and those `wanted` that are not among them
    only if none of the others is there.
    """
    name, where = str(name_or_dir), _shown(name_or_dir, revision)
    local = Path(name_or_dir).expanduser()
    if local.is_dir():
        folder = local / revision if revision else local
        if not folder.is_dir():
            raise WeightsMissing(f"no {what} of {where}: {folder} is not a directory")
        if not _has(folder, wanted):
            raise WeightsMissing(f"no {what} in {folder}: none of {', '.join(wanted)} is there")
        return folder
    try:
        for more in ([], list(wanted)):
            found = snapshot_download(name, revision=revision, allow_patterns=[*patterns, *more])
            folder = Path(found)
            if _has(folder, wanted):
                if (folder / PICKLED[1]).is_file() and not _has(folder, SAFE):
                    shards = [*patterns, "pytorch_model*.bin"]
                    snapshot_download(name, revision=revision, allow_patterns=shards)
                return folder
        problem = f"the hub's snapshot {folder} has none of {', '.join(wanted)}"
    except HFValidationError as error:
        raise WeightsMissing(
            f"no {what} of {where}: neither a directory nor a hub name (owner/name)"
        ) from error
    except RevisionNotFoundError:
        problem = f"the hub has {name}, but no revision {revision}"
    except RepositoryNotFoundError:
        problem = f"the hub has no {name}, or not for you"
    except OSError as error:
        offline = constants.is_offline_mode()
        reason = "HF_HUB_OFFLINE is set" if offline else f"the hub said: {_first(error)}"
        problem = f"not in the hub's cache {constants.HF_HUB_CACHE}, and {reason}"
    command = f"hf download {name}" + (f" --revision {revision}" if revision else "")
    raise WeightsMissing(f"no {what} of {where}: {problem}", command, instead)


def _has(folder: Path, names: Sequence[str]) -> bool:
    return any((folder / name).is_file() for name in names)


def _shown(name_or_dir: str | Path, revision: str | None) -> str:
    return f"{name_or_dir} at revision {revision}" if revision else str(name_or_dir)


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def check_one_family(
    names: Sequence[str],
    models: Sequence[nn.Module],
    tokenizers: Sequence[PreTrainedTokenizerBase],
) -> None:
    """Architecture, width, depth, vocabulary and tokenizer must be those of the first.

    Raises DifferentFamilies naming the two checkpoints, what differs, and both values.
    """
    for name, model, tokenizer in zip(names[1:], models[1:], tokenizers[1:], strict=True):
        facts = zip(
            _facts(models[0], tokenizers[0]).items(),
            _facts(model, tokenizer).values(),
            strict=True,
        )
        for (what, first), other in facts:
            if first != other:
                raise DifferentFamilies(
                    f"{names[0]} and {name} are not of one family: {what} {first} against {other}"
                )
        _check_tokenizers(names[0], tokenizers[0], name, tokenizer)


def _facts(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> dict[str, str | int]:
    return {
        "architecture": type(model).__name__,
        "width": width_of(model),
        "depth": len(blocks(model)),
        "vocabulary of the model": _vocabulary(model),
        "vocabulary of the tokenizer": len(tokenizer),
    }


def _check_tokenizers(
    first: str, a: PreTrainedTokenizerBase, other: str, b: PreTrainedTokenizerBase
) -> None:
    words_a, words_b = a.get_vocab(), b.get_vocab()
    problem = f"{first} and {other} have different tokenizers:"
    for word, number in sorted(words_a.items(), key=lambda pair: pair[1]):
        if words_b.get(word) != number:
            raise DifferentFamilies(
                f"{problem} {word!r} is token {number} of one and {words_b.get(word)} of the other"
            )
    # Equal vocabularies may still be joined by different merges.
    split_a, split_b = (t(PROBE, add_special_tokens=False)["input_ids"] for t in (a, b))
    if split_a != split_b:
        raise DifferentFamilies(
            f"{problem} {PROBE!r} is {split_a} for one and {split_b} for the other"
        )


def check_different(names: Sequence[str], models: Sequence[nn.Module], share: float = 0.01) -> None:
    """No two may be one model: their weights must differ by more than `share` of their norm, which
    those of a model saved again in half precision do not. Raises Unusable naming two."""
    weights = [{n: p.detach() for n, p in model.named_parameters()} for model in models]
    for (first, a), (other, b) in combinations(zip(names, weights, strict=True), 2):
        alike = [(n, p.shape) for n, p in a.items()] == [(n, p.shape) for n, p in b.items()]
        if alike and not weights_differ(a, b, share):
            less = f"differ by less than {share:.0%} of their norm" if share else "are the same"
            raise Unusable(
                f"{first} and {other} are one model: their weights {less}; give checkpoints that "
                "were trained apart"
            )


@torch.no_grad()
def check_runs(name: str, model: nn.Module, tokens: Mapping[Split, Tensor]) -> None:
    """The model must take sequences int64 [sequences, position], and its every site be finite on
    one of them.

    Raises Unusable for sequences too long or tokens it does not know, BadActivations.
    """
    config: Any = model.config
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    known = _vocabulary(model)
    for split, ids in tokens.items():
        if longest is not None and ids.shape[1] > longest:
            raise Unusable(
                f"{name} knows {longest} positions, the sequences have {ids.shape[1]}: lower "
                "--context"
            )
        if int(ids.max()) >= known:
            raise Unusable(
                f"{name} knows {known} tokens, the {split} split holds number {int(ids.max())}: "
                "its tokenizer is another model's"
            )
    one = tokens["fit"][:1].to(next(model.parameters()).device)
    for site, x in capture(model, one, site_names(len(blocks(model)))).items():
        check_matrix(x[0], f"{name}, {site}")


def _vocabulary(model: nn.Module) -> int:
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
    return int(embedding.weight.shape[0])


def weights_fingerprint(model: nn.Module) -> str:
    """sha256 of a model's tensors: the same wherever its files lie."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


__all__ = [
    "BadCheckpoint",
    "DifferentFamilies",
    "Unusable",
    "WeightsMissing",
    "check_different",
    "check_one_family",
    "check_runs",
    "has_tokenizer",
    "load_causal_lm",
    "load_tokenizer",
    "locate",
    "on_device",
    "weights_fingerprint",
]
