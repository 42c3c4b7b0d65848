"""What a checkpoint is: a change of its function changes its fingerprint, and nothing else does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from polyrot.language import identity, pair, pythia, text
from polyrot.language.identity import check_different, function_fingerprint, tokenizer_fingerprint
from polyrot.language.loading import Unusable, load_causal_lm
from polyrot.language.text import sequences_from_text
from tests_unit.language.small_checkpoints import (
    CONTEXT,
    model,
    save,
    tokenizer,
    vocabulary,
    write_text,
)

SIZES = {"dictionary": 16, "fit": 16, "score": 16}
ALIKE = {
    "_name_or_path": "elsewhere/model",
    "transformers_version": "9.9.9",
    "architectures": ["Renamed"],
    "id2label": {"0": "yes"},
    "label2id": {"yes": 0},
    "dtype": "float16",
}


def gpt2() -> Any:
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary(), n_embd=16, n_layer=2, n_head=2))


def llama() -> Any:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary(), **sizes, **heads))


def neox() -> Any:
    return model(1, 2)


FUNCTIONS = {
    gpt2: {
        "activation_function": "relu",
        "layer_norm_epsilon": 1e-2,
        "scale_attn_by_inverse_layer_idx": True,
    },
    llama: {
        "hidden_act": "gelu",
        "rms_norm_eps": 1e-2,
        "rope_parameters": {"rope_theta": 100.0, "rope_type": "default"},
    },
    neox: {
        "hidden_act": "relu",
        "layer_norm_eps": 1e-2,
        "use_parallel_residual": False,
        "rope_parameters": {
            "rope_theta": 100.0,
            "rope_type": "default",
            "partial_rotary_factor": 1.0,
        },
    },
}


def edited(folder: Path, to: Path, **fields: object) -> Path:
    """A copy of a checkpoint with another configuration and the same weights."""
    copy = Path(shutil.copytree(folder, to))
    said = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**said, **fields}))
    return copy


@pytest.mark.parametrize("made", FUNCTIONS, ids=lambda made: made.__name__)
def test_a_configuration_makes_another_function_of_the_same_weights(made, tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved = save(tmp_path / "saved", made())
    first = load_causal_lm(saved)
    own = function_fingerprint(first)
    assert function_fingerprint(load_causal_lm(edited(saved, tmp_path / "alike", **ALIKE))) == own
    tokens, seen = torch.arange(2, 2 + CONTEXT)[None], {own}
    for name, value in FUNCTIONS[made].items():
        other = load_causal_lm(edited(saved, tmp_path / name, **{name: value}))
        assert identity.weights_fingerprint(other) == identity.weights_fingerprint(first)
        seen.add(function_fingerprint(other))
        check_different(["a", "b"], [first, other], tokens)  # two models
    assert len(seen) == 1 + len(FUNCTIONS[made])


def test_a_field_that_is_not_known_counts_and_a_class_does() -> None:
    one, other = model(1), model(1)
    other.config.text_config_of_another_year = {"scale": 2.0, "_name_or_path": "here"}
    third = model(1)
    third.config.text_config_of_another_year = {"scale": 2.0, "_name_or_path": "there"}
    assert function_fingerprint(one) != function_fingerprint(other) == function_fingerprint(third)

    class GPTNeoXWithTwoHeads(type(one)):  # type: ignore[misc]
        pass

    third.__class__ = GPTNeoXWithTwoHeads
    assert function_fingerprint(other) != function_fingerprint(third)


def test_only_equal_models_are_one_model() -> None:
    other, tokens = model(1), torch.arange(CONTEXT)[None]
    with torch.no_grad():
        other.gpt_neox.layers[2].mlp.dense_4h_to_h.weight[0, 0] += 1e-6
    assert function_fingerprint(model(1)) == function_fingerprint(model(1))
    assert function_fingerprint(model(1)) != function_fingerprint(other)
    check_different(["a", "b", "c"], [model(1), model(2), other], tokens)
    check_different(["a", "b"], [model(1), model(1).to(torch.bfloat16).float()], tokens)
    check_different(["a", "b"], [model(1), model(1, hidden_size=24)], tokens)
    same = "b and d are one model: their weights are the same"
    with pytest.raises(Unusable, match=same):
        check_different(["a", "b", "c", "d"], [model(1), model(2), model(3), model(2)], tokens)
    renamed = model(2)
    renamed.config.initializer_range = 0.5  # of no start that is made here
    with pytest.raises(Unusable, match=same):
        check_different(["a", "b", "c", "d"], [model(1), model(2), model(3), renamed], tokens)


def test_a_tokenizer_is_what_it_makes_of_a_text(tmp_path: Path) -> None:
    first = tokenizer()
    own = tokenizer_fingerprint(first)
    first("of one call", padding="max_length", max_length=30, truncation=True) if (
        first.pad_token
    ) else first("of one call", max_length=3, truncation=True)
    assert tokenizer_fingerprint(first) == own  # calls leave settings behind
    assert tokenizer_fingerprint(tokenizer()) == own != tokenizer_fingerprint(tokenizer("other"))
    state = json.loads(first.backend_tokenizer.to_str())
    changes: dict[str, Any] = {
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                          "use_regex": True},
    }  # fmt: skip
    for name, value in changes.items():
        other = tokenizer()
        other._tokenizer = type(other._tokenizer).from_str(json.dumps({**state, name: value}))
        assert tokenizer_fingerprint(other) != own
    marked = tokenizer()
    marked.add_special_tokens({"bos_token": "<|endoftext|>"})
    assert tokenizer_fingerprint(marked) != own


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeds of a cohort and steps of a run, and a text. Read only."""
    made = tmp_path_factory.mktemp("seeds")
    for seed in (1, 2):
        save(made / f"seed{seed}", model(seed, 1))
    for i in range(2):
        save(made / "seed1" / f"step{i}", model(10 + i, 1))
    write_text(made / "text", 1200)
    return made


def of_pair(folder: Path) -> str:
    def splits(words: Any) -> Any:
        return sequences_from_text(folder / "text", words, CONTEXT, SIZES)

    names = str(folder / "seed1"), str(folder / "seed2")
    return pair.load(*names, splits).cohort().fingerprint


def of_pythia(folder: Path) -> str:
    source = pythia.local(folder)
    words = pythia.tokenizer_of(source)
    tokens = sequences_from_text(folder / "text", words, CONTEXT, SIZES)
    return pythia.load(source, tokens, words).cohort().fingerprint


def of_run(folder: Path) -> str:
    source = pythia.local(folder)
    words = pythia.tokenizer_of(source)
    tokens = sequences_from_text(folder / "text", words, CONTEXT, SIZES)
    return pythia.load_run(source, tokens).fingerprint


@pytest.mark.parametrize("of", [of_pair, of_pythia, of_run])
def test_a_cohort_knows_function_tokenizer_and_text(
    of: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pythia, "CURVE", 2)
    own = of(folder)
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    for file in moved.rglob("config.json"):
        said = json.loads(file.read_text())
        file.write_text(json.dumps({**said, **ALIKE}))
    assert of(moved) == own
    for file in moved.rglob("config.json"):
        said = json.loads(file.read_text())
        file.write_text(json.dumps({**said, "layer_norm_eps": 1e-2}))
    assert of(moved) != own
    monkeypatch.setitem(text.PREPARATION, "version", 99)
    assert of(folder) != own


def test_a_text_is_prepared_by_a_tokenizer_in_a_way(monkeypatch: pytest.MonkeyPatch) -> None:
    own = text.fingerprint(tokenizer())
    assert text.fingerprint(tokenizer()) == own != text.fingerprint(tokenizer("other"))
    monkeypatch.setitem(text.PREPARATION, "ends of lines", "as they are")
    assert text.fingerprint(tokenizer()) != own
