"""What a checkpoint is, wherever its files lie: the function that it computes, and of what tokens.

Two checkpoints with the same weights are two models if their configurations make two functions of
them (another nonlinearity, another epsilon of a norm, another base of the rotary angles); what is
kept of one must not be handed out for the other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from polyrot.language.loading import Unusable
from polyrot.language.sites import blocks, capture, site_names

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NOT_THE_FUNCTION = frozenset(
    {
        "architectures",  # the class itself is asked
        "auto_map",
        "dtype",  # each tensor's own is
        "id2label",
        "label2id",
        "output_attentions",
        "output_hidden_states",
        "problem_type",
        "return_dict",
        "task_specific_params",
        "torch_dtype",
        "transformers_version",
    }
)
"""Fields of a configuration, at any depth, that are release, path or metadata; with them all whose
names begin with an underscore (`_name_or_path`, `_attn_implementation`). Every other field counts,
also one that is not known here."""


def weights_fingerprint(model: nn.Module) -> str:
    """sha256 of a model's tensors: the same wherever its files lie, also of weights that accelerate
    keeps elsewhere."""
    digest = hashlib.sha256()
    for name, tensor in _tensors(model):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every tensor on the CPU, by name."""
    state = model.state_dict()
    if not any(tensor.is_meta for tensor in state.values()):
        for name, tensor in sorted(state.items()):
            yield name, tensor.detach().cpu()
        return
    from accelerate.utils import align_module_device

    for name in sorted(state):
        owner, _, own = name.rpartition(".")
        with align_module_device(model.get_submodule(owner), "cpu"):
            yield name, model.get_submodule(owner).state_dict()[own].detach().cpu()


def function_fingerprint(model: nn.Module) -> str:
    """sha256 of what decides the function that a model computes: its class, every field of its
    configuration that is neither release nor path nor metadata, and its weights.

    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> model = GPT2LMHeadModel(GPT2Config(n_embd=4, n_layer=1, n_head=1, vocab_size=8))
    >>> before = function_fingerprint(model)
    >>> model.config._name_or_path = "somewhere else"
    >>> function_fingerprint(model) == before
    True
    >>> model.config.layer_norm_epsilon = 0.1
    >>> function_fingerprint(model) == before
    False
    """
    config: Any = model.config
    said = json.loads(config.to_json_string(use_diff=False))
    return _sha256([type(model).__qualname__, _function_alone(said), weights_fingerprint(model)])


def _function_alone(said: Any) -> Any:
    if isinstance(said, dict):
        return {
            name: _function_alone(value)
            for name, value in said.items()
            if name not in NOT_THE_FUNCTION and not name.startswith("_")
        }
    return [_function_alone(value) for value in said] if isinstance(said, list) else said


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of what decides the tokens of a text: the tokenizer's class, vocabulary, merges,
    normalisation and special tokens."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    whole = {} if backend is None else json.loads(backend.to_str())
    for set_by_calls in ("truncation", "padding"):
        whole.pop(set_by_calls, None)
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    vocabulary = sorted(tokenizer.get_vocab().items())
    return _sha256([type(tokenizer).__qualname__, whole, vocabulary, special])


def _sha256(said: Any) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@torch.no_grad()
def check_different(
    names: Sequence[str], models: Sequence[nn.Module], tokens: Tensor | None = None
) -> None:
    """No two may be one model. Those whose weights are equal are, unless they make something else
    of `tokens`, int64 [sequences, position]: then their configurations differ in what matters.

    Raises Unusable naming two.
    """
    prints = [weights_fingerprint(model) for model in models]
    for i, j in combinations(range(len(models)), 2):
        if prints[i] == prints[j] and not _differ(models[i], models[j], tokens):
            raise Unusable(
                f"{names[i]} and {names[j]} are one model: their weights are the same "
                f"(sha256 {prints[i][:16]}); give two that were trained apart"
            )


def _differ(a: nn.Module, b: nn.Module, tokens: Tensor | None) -> bool:
    if tokens is None:
        return False
    sites = site_names(len(blocks(a)))

    def made(model: Any) -> list[Tensor]:
        one = tokens[:1].to(next(model.parameters()).device)
        return [*capture(model, one, sites).values(), model(input_ids=one, use_cache=False).logits]

    return any(not torch.equal(x, y) for x, y in zip(made(a), made(b), strict=True))


__all__ = [
    "check_different",
    "function_fingerprint",
    "tokenizer_fingerprint",
    "weights_fingerprint",
]
