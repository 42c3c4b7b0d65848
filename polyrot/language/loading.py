"""Causal language models and tokenizers, by hub name or from a local directory.

No code of a checkpoint is ever run: `trust_remote_code` is False throughout. Weights are read from
safetensors where a checkpoint has them; where it has only `pytorch_model.bin`, as the Pythia seeds
do, through `torch.load(weights_only=True)`, whose unpickler makes tensors and nothing else. The
hub's service that converts such files is never called. `HF_HUB_OFFLINE=1` is honoured: only the
hub's cache is looked into.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from torch import nn

from polyrot.language.sites import blocks, width_of
from polyrot.runtime.device import memory_for

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAFE = ("model.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
ADAPTER = "adapter_config.json"
MERGE = "merge the adapter into its model and save that (peft: merge_and_unload, save_pretrained)"
NO_CHECKPOINTS = {
    "*.gguf": "files of llama.cpp (GGUF): save the model with transformers",
    "consolidated*.pth": "weights as Meta releases them: convert them with transformers' "
    "convert_llama_weights_to_hf",
    "tf_model.h5": "weights of TensorFlow: save the model anew with transformers and PyTorch",
    "flax_model.msgpack": "weights of Flax: save the model anew with transformers and PyTorch",
    "*.onnx": "a model of ONNX: save the model with transformers",
    "model_index.json": "a diffusion pipeline, not a language model",
    "sae_weights.safetensors": "a dictionary (SAELens), not a model: it goes with --sae",
    "optimizer.pt": "the state of an optimiser: name the folder with its weights",
    "checkpoint-*": "checkpoints of a training, in folders: name one of them",
    "step*": "checkpoints of a training, in folders: name one of them",
    "snapshots": "a cache of the hub: name the folder in snapshots/, or the hub's name",
    "*.bin": "other files than transformers looks for",
    "*.safetensors": "other files than transformers looks for",
}
"""What a directory without weights may be instead, by files or folders in it; the first counts."""
TEXTS = ["*.json", "*.txt", "*.model"]  # configuration and tokenizer
INSTEAD = "give a local directory in place of its name"
PROBE = "The 12 mice (of Łódź) didn't\n\trun; 3.5% hid."


class Unusable(ValueError):
    """What was given cannot be judged; the message says what, where and what to do."""


class WeightsMissing(Unusable):
    """A checkpoint that is not where it was looked for; the message says how to get it.

    problem: where it was looked for. command: what downloads it, where the hub may have it.
    unreachable: the hub did not answer, and will not for the next checkpoint either.
    """

    def __init__(
        self, problem: str, command: str = "", instead: str = "", unreachable: bool = False
    ) -> None:
        super().__init__(
            f"{problem}. Download with `{command}`, or {instead}" if command else problem
        )
        self.problem, self.command, self.unreachable = problem, command, unreachable


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
    from transformers import AutoModelForCausalLM

    folder = locate(name_or_dir, revision=revision, instead=instead)
    where = _shown(name_or_dir, revision)
    _check_kind(folder, where)
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
        if "Unrecognized configuration class" in str(error):  # then lists hundreds
            raise BadCheckpoint(
                f"{where} is no causal language model ({_architecture(folder)}): {DECODERS}"
            ) from error
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


DECODERS = "give decoder-only models (GPT, Llama), as transformers' AutoModelForCausalLM loads them"


def _configuration(folder: Path) -> dict[str, Any]:
    try:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # transformers says it better
    return said if isinstance(said, dict) else {}


def _architecture(folder: Path) -> str:
    said = _configuration(folder)
    return " ".join(map(str, said.get("architectures") or [said.get("model_type", "unknown")]))


def _check_kind(folder: Path, where: str) -> None:
    """Raises BadCheckpoint for what transformers might load as something else than it is: an
    encoder and decoder, an adapter beside a model."""
    if _configuration(folder).get("is_encoder_decoder"):
        raise BadCheckpoint(
            f"{where} is an encoder and a decoder ({_architecture(folder)}), no causal language "
            f"model: {DECODERS}"
        )
    if (folder / ADAPTER).is_file():
        raise BadCheckpoint(
            f"{where}: {folder} holds the weights of a model and an adapter ({ADAPTER}) beside "
            f"them, so that it is not clear which is meant: {MERGE}; or move {ADAPTER} away"
        )


def on_device(model: nn.Module, device: torch.device | str, where: str) -> nn.Module:
    """The model, moved. Raises torch.OutOfMemoryError naming `where` and what to do."""
    with memory_for(where, device, "judge it with --device cpu"):
        return model.to(device)


def locate(
    name_or_dir: str | Path,
    *,
    revision: str | None = None,
    instead: str = INSTEAD,
    cached_only: bool = False,
) -> Path:
    """The local folder of a checkpoint with its weights, fetched from the hub if need be and
    allowed. Arguments as `load_causal_lm`; cached_only: the hub is not asked, only its cache looked
    into. Raises WeightsMissing."""
    patterns = [*TEXTS, "*.safetensors"]
    return _folder(
        name_or_dir, revision, patterns, SAFE + PICKLED, instead, cached_only=cached_only
    )


def load_tokenizer(
    name_or_dir: str | Path,
    *,
    revision: str | None = None,
    instead: str = INSTEAD,
    cached_only: bool = False,
) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint. Arguments and errors as `locate`, and BadCheckpoint."""
    from transformers import AutoTokenizer

    files = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
    folder = _folder(name_or_dir, revision, TEXTS, files, instead, "tokenizer", cached_only)
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
    cached_only: bool = False,
) -> Path:
    """A local folder with one of the files `wanted`: the one that is named, or the hub's snapshot.

    From the hub the files of `patterns` are fetched, and those `wanted` that are not among them
    only if none of the others is there.
    """
    name, where, unreachable = str(name_or_dir), _shown(name_or_dir, revision), False
    local = Path(name_or_dir).expanduser()
    if local.is_dir():
        folder = local / revision if revision else local
        if not folder.is_dir():
            raise WeightsMissing(f"no {what} of {where}: {folder} is not a directory")
        if not _has(folder, wanted):
            raise WeightsMissing(
                f"no {what} in {folder}: none of {', '.join(wanted)} is there{_instead(folder)}"
            )
        return folder
    if local.is_file():
        raise WeightsMissing(f"{local} is a file: name the folder that it is in")
    # huggingface_hub 1 asks the hub for its list of files where a commit is named, offline or not
    cached_only = cached_only or constants.is_offline_mode()
    try:
        for more in ([], list(wanted)):
            found = snapshot_download(
                name,
                revision=revision,
                allow_patterns=[*patterns, *more],
                local_files_only=cached_only,
            )
            folder = Path(found)
            if _has(folder, wanted):
                if (folder / PICKLED[1]).is_file() and not _has(folder, SAFE):
                    shards = [*patterns, "pytorch_model*.bin"]
                    snapshot_download(
                        name,
                        revision=revision,
                        allow_patterns=shards,
                        local_files_only=cached_only,
                    )
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
        unreachable = isinstance(error, LocalEntryNotFoundError)
        if constants.is_offline_mode():
            reason = "HF_HUB_OFFLINE is set"
        elif cached_only:
            reason = "the hub cannot be reached"
        else:
            reason = f"the hub said: {_first(error)}"
        problem = f"not in the hub's cache {constants.HF_HUB_CACHE}, and {reason}"
    command = f"hf download {name}" + (f" --revision {revision}" if revision else "")
    raise WeightsMissing(f"no {what} of {where}: {problem}", command, instead, unreachable)


def _instead(folder: Path) -> str:
    """What a folder without weights holds."""
    if (folder / ADAPTER).is_file():
        try:
            said = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
            base = f" of {said['base_model_name_or_path']}"
        except (OSError, ValueError, TypeError, KeyError):
            base = ""
        return f". It holds an adapter{base} alone ({ADAPTER}): {MERGE}"
    for pattern, kind in NO_CHECKPOINTS.items():
        if found := sorted(folder.glob(pattern)):
            return f". It holds {kind} ({found[0].name})"
    return ""


def _has(folder: Path, names: Sequence[str]) -> bool:
    return any((folder / name).is_file() for name in names)


def _shown(name_or_dir: str | Path, revision: str | None) -> str:
    return f"{name_or_dir} at revision {revision}" if revision else str(name_or_dir)


def _first(error: BaseException) -> str:
    said = str(error)
    if "weights_only" in said or "Weights only load failed" in said:  # and advises to run its code
        return (
            "its PyTorch file is damaged, a Git LFS pointer, or holds more than tensors, which "
            "could run code and is never loaded; get the weights as safetensors, or fetch it again"
        )
    return (said.strip().splitlines() or [type(error).__name__])[0]


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
        "vocabulary of the model": vocabulary_of(model),
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


def vocabulary_of(model: nn.Module) -> int:
    """Tokens that the model has embeddings of."""
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
    return int(embedding.weight.shape[0])


__all__ = [
    "BadCheckpoint",
    "DifferentFamilies",
    "Unusable",
    "WeightsMissing",
    "check_one_family",
    "has_tokenizer",
    "load_causal_lm",
    "load_tokenizer",
    "locate",
    "on_device",
    "vocabulary_of",
]
