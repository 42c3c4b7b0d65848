"""Tiny checkpoints on disk with a byte-level tokenizer, a text, and a run that kills itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import GPTNeoXForCausalLM, PreTrainedTokenizerFast

from polyrot.runtime.seeding import numpy_generator
from polyrot.store.file import read
from tests_unit.language.tiny_language import tiny

CONTEXT = 32
SITES = ("resid_pre_0", "resid_post_0", "resid_post_1")


def tokenizer(reverse: bool = False) -> PreTrainedTokenizerFast:
    """One token a byte; `reverse` numbers them the other way round."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), reverse=reverse)
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def model(seed: int, layers: int = 2, **options: object) -> GPTNeoXForCausalLM:
    """Random weights; a rotated copy computes the same function."""
    wanted = {"vocab_size": 256, "max_position_embeddings": 64, **options}
    return tiny(seed, layers, plain_norms=True, **wanted)


def save(made: GPTNeoXForCausalLM, folder: Path, reverse: bool = False) -> Path:
    made.save_pretrained(folder)
    tokenizer(reverse).save_pretrained(folder)
    return folder


def write_text(path: Path, tokens: int, seed: int = 0) -> Path:
    """Lines of random printable characters, one token each."""
    drawn = numpy_generator(seed, "text").integers(32, 127, size=tokens).astype(np.uint8)
    drawn[np.arange(1, tokens + 1) % 61 == 0] = ord("\n")
    path.write_bytes(drawn.tobytes())
    return path


# Runs the command line until half of a stage is done, and kills itself there.
_DYING = """
import os, signal, sys
from polyrot.streaming import __main__ as moments

def die(stage, done, total, note=""):
    if stage.startswith(sys.argv[1]) and done >= total // 2:
        os.kill(os.getpid(), signal.SIGKILL)

moments.ConsoleProgress = lambda: die
sys.exit(moments.main(sys.argv[2:]))
"""


def run_until_killed(
    folder: Path, stage: str, arguments: Sequence[str], launcher: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own that SIGKILLs itself in the middle of `stage`."""
    script = folder / "dying.py"
    script.write_text(_DYING)
    command = [sys.executable, *launcher, str(script), stage, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def checkpoints(store: Path) -> list[Path]:
    return sorted(store.rglob(".checkpoint-*"))


def artifacts(store: Path) -> dict[str, dict[str, Tensor]]:
    """Tensors by kind of artifact, of a store that has one of each."""
    found = sorted(p for p in store.rglob("*.safetensors") if not p.name.startswith("."))
    assert len({p.parent.name for p in found}) == len(found)
    return {path.parent.name: load_file(path) for path in found}


def covered(checkpoint: Path) -> int:
    """Sequences that the sums of a checkpoint cover."""
    return int(read(checkpoint, role="checkpoint")[0]["meta"]["sequences"])
