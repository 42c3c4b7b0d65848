"""Checkpoints: what is loaded is what was saved, and what cannot be judged says why."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
)

from polyrot.language import checks, loading
from polyrot.language.checks import check_runs
from polyrot.language.loading import (
    BadCheckpoint,
    DifferentFamilies,
    Unusable,
    WeightsMissing,
    check_one_family,
    load_causal_lm,
    load_tokenizer,
)
from polyrot.maps.checks import BadActivations
from tests_unit.language.small_checkpoints import model, save, tokenizer, vocabulary


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(x, theirs[n]) for n, x in mine.items())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One checkpoint, read only."""
    return save(tmp_path_factory.mktemp("saved") / "seed1", model(1))


@pytest.fixture
def checkpoint(saved: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As with HF_HUB_OFFLINE=1 and nothing in the hub's cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cached(hub: Path, name: str, commit: str, source: Path, branch: str) -> None:
    """Put a checkpoint into the hub's cache, as a download does."""
    repository = hub / f"models--{name.replace('/', '--')}"
    shutil.copytree(source, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / branch).write_text(commit)


# -------------------------------------------------------------------------------- what is loaded


def test_a_saved_model_comes_back_frozen(saved: Path) -> None:
    found, before = load_causal_lm(saved), model(1)
    ids = torch.arange(10)[None]
    torch.testing.assert_close(found(input_ids=ids).logits, before(input_ids=ids).logits)
    assert not found.training
    assert not any(p.requires_grad for p in found.parameters())
    assert load_causal_lm(saved, dtype=torch.float64).dtype == torch.float64
    assert load_tokenizer(saved).get_vocab() == tokenizer().get_vocab()


def test_a_revision_of_a_directory_is_a_folder_inside(checkpoint: Path) -> None:
    save(checkpoint / "step3000", model(2))
    early = load_causal_lm(checkpoint, revision="step3000")
    assert same_weights(early, model(2))
    assert not same_weights(early, load_causal_lm(checkpoint))
    with pytest.raises(WeightsMissing, match=r"at revision step9: .*step9 is not a directory"):
        load_causal_lm(checkpoint, revision="step9")


def test_a_checkpoint_of_the_hubs_cache(saved: Path, offline: Path) -> None:
    commit = "a" * 40
    cached(offline, "owner/name", commit, saved, "main")
    for revision in (None, "main", commit):
        assert same_weights(load_causal_lm("owner/name", revision=revision), model(1))
    with pytest.raises(WeightsMissing, match="owner/name at revision step3000: not in the hub's"):
        load_causal_lm("owner/name", revision="step3000")


def test_pickled_weights_are_read_as_tensors_alone(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    torch.save(weights, checkpoint / "pytorch_model.bin")
    asked = []
    load = torch.load
    monkeypatch.setattr(
        torch, "load", lambda *a, **k: asked.append(k["weights_only"]) or load(*a, **k)
    )
    assert same_weights(load_causal_lm(checkpoint), model(1))
    assert asked
    assert all(asked)
    bad = checkpoint / "pytorch_model.bin"
    for write in (  # each has another message of torch's
        lambda: torch.save({**weights, "code": Path}, bad),
        lambda: torch.save(model(1), bad),
        lambda: bad.write_bytes(pickle.dumps({"code": Path})),
        lambda: bad.write_bytes(b"version https://git-lfs.github.com/spec/v1"),
    ):
        write()
        with pytest.raises(BadCheckpoint, match=r"cannot be loaded.*is never loaded") as caught:
            load_causal_lm(checkpoint)
        for advice in ("weights_only", "trust", "can still be loaded", "likely succeed"):
            assert advice not in str(caught.value)


# ------------------------------------------------------------------------------ what is refused


def test_no_weights_and_no_hub(offline: Path) -> None:
    with pytest.raises(WeightsMissing) as caught:
        load_causal_lm("owner/name", revision="step1", instead="name a folder with --dir DIR")
    message = str(caught.value)
    assert "no weights of owner/name at revision step1: not in the hub's cache" in message
    assert str(offline) in message
    assert "HF_HUB_OFFLINE is set" in message
    assert "`hf download owner/name --revision step1`, or name a folder with --dir DIR" in message
    assert "\n" not in message
    with pytest.raises(WeightsMissing, match="no tokenizer of owner/name: not in the hub's cache"):
        load_tokenizer("owner/name")


@pytest.mark.parametrize("name", ["./nowhere", "a/b/c", "two words"])
def test_neither_a_directory_nor_a_name(name: str) -> None:
    with pytest.raises(WeightsMissing, match="neither a directory nor a hub name"):
        load_causal_lm(name)


def test_a_directory_without_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(WeightsMissing, match=r"no weights in .*: none of model\.safetensors, "):
        load_causal_lm(checkpoint)
    for file in checkpoint.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(WeightsMissing, match="no tokenizer in "):
        load_tokenizer(checkpoint)


def test_damaged_incomplete_and_foreign(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    weights = load_file(file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-200])
    with pytest.raises(BadCheckpoint, match=f"{checkpoint} cannot be loaded"):
        load_causal_lm(checkpoint)
    name = "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"
    save_file({n: t for n, t in weights.items() if n != name}, file, {"format": "pt"})
    with pytest.raises(BadCheckpoint, match=f"1 tensors are not in its files, the first {name}"):
        load_causal_lm(checkpoint)
    file.write_bytes(whole)
    load_causal_lm(checkpoint)
    path = checkpoint / "config.json"
    configuration = json.loads(path.read_text())
    path.write_text(json.dumps({**configuration, "model_type": "nothing_known"}))
    with pytest.raises(BadCheckpoint, match="cannot be loaded"):
        load_causal_lm(checkpoint)


def test_code_of_a_checkpoint_is_never_run(checkpoint: Path) -> None:
    path = checkpoint / "config.json"
    configuration = json.loads(path.read_text())
    names = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}
    path.write_text(json.dumps({**configuration, "model_type": "mine", "auto_map": names}))
    ran = checkpoint / "ran"
    (checkpoint / "mine.py").write_text(f"open({str(ran)!r}, 'w')")
    with pytest.raises(BadCheckpoint):
        load_causal_lm(checkpoint)
    assert not ran.exists()


# ---------------------------------------------------------------------------------- one family


def gpt2(**options: int) -> GPT2LMHeadModel:
    config = {"vocab_size": vocabulary(), "n_embd": 16, "n_layer": 3, "n_head": 2, **options}
    return GPT2LMHeadModel(GPT2Config(**config))


@pytest.mark.parametrize(
    ("other", "variant", "message"),
    [
        (lambda: gpt2(), "", "architecture GPTNeoXForCausalLM against GPT2LMHeadModel"),
        (lambda: model(2, hidden_size=24), "", "width 16 against 24"),
        (lambda: model(2, layers=2), "", "depth 3 against 2"),
        (lambda: model(2, vocab_size=950), "", r"vocabulary of the model \d+ against 950"),
        (lambda: model(2), "other", r"(different tokenizers|vocabulary of the tokenizer)"),
    ],
)
def test_two_families(other, variant: str, message: str) -> None:
    models, tokenizers = [model(1), other()], [tokenizer(), tokenizer(variant)]
    with pytest.raises(DifferentFamilies, match=f"first and second .*{message}"):
        check_one_family(["first", "second"], models, tokenizers)
    check_one_family(["first", "second"], [model(1), model(2)], [tokenizer(), tokenizer()])


def test_tokenizers_that_differ_in_order_or_in_merges_alone() -> None:
    pair = [model(1), model(2)]
    swapped, joined = tokenizer(), tokenizer()
    state = json.loads(swapped.backend_tokenizer.to_str())
    vocab = state["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    swapped._tokenizer = type(swapped._tokenizer).from_str(json.dumps(state))
    with pytest.raises(DifferentFamilies, match=r"'.' is token .* of one and .* of the other"):
        check_one_family(["x", "y"], pair, [tokenizer(), swapped])
    state = json.loads(joined.backend_tokenizer.to_str())
    state["model"]["merges"] = []
    joined._tokenizer = type(joined._tokenizer).from_str(json.dumps(state))
    with pytest.raises(DifferentFamilies, match=r"for one and .* for the other"):
        check_one_family(["x", "y"], pair, [tokenizer(), joined])


def test_what_a_directory_is_when_it_is_no_checkpoint(saved: Path, tmp_path: Path) -> None:
    held = {
        "adapter_config.json": r"adapter of owner/base alone \(adapter_config\.json\): merge the",
        "model.Q4_K_M.gguf": r"files of llama\.cpp \(GGUF\)",
        "consolidated.00.pth": "weights as Meta releases them: convert",
        "tf_model.h5": "weights of TensorFlow",
        "sae_weights.safetensors": "a dictionary .*it goes with --sae",
        "checkpoint-500": r"checkpoints of a training, in folders: name one of them \(check",
        "weights.safetensors": "other files than transformers looks for",
    }
    for name, message in held.items():
        folder = tmp_path / f"holds {name}"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / name).write_text('{"base_model_name_or_path": "owner/base"}')
        with pytest.raises(WeightsMissing, match=message):
            load_causal_lm(folder)
    with pytest.raises(WeightsMissing, match=r"is a file: name the folder that it is in"):
        load_causal_lm(saved / "model.safetensors")


def test_an_adapter_beside_weights_is_not_passed_over(checkpoint: Path) -> None:
    (checkpoint / "adapter_config.json").write_text("{}")
    with pytest.raises(BadCheckpoint, match=r"and an adapter .* not clear which is meant: merge"):
        load_causal_lm(checkpoint)


def test_encoders_with_and_without_a_decoder(tmp_path: Path) -> None:
    small = {"vocab_size": 50, "num_hidden_layers": 2, "hidden_size": 16}
    bart = BartConfig(vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1)
    distil = DistilBertConfig(vocab_size=50, dim=16, hidden_dim=32, n_layers=1, n_heads=2)
    for made, message in (
        (BartForConditionalGeneration(bart), r"an encoder and a decoder \(BartFor.*GPT, Llama"),
        (DistilBertForMaskedLM(distil),
         r"is no causal language model \(DistilBertForMaskedLM\): give decoder-only"),
    ):  # fmt: skip
        made.save_pretrained(tmp_path / type(made).__name__)
        with pytest.raises(BadCheckpoint, match=message) as raised:
            load_causal_lm(tmp_path / type(made).__name__)
        assert len(str(raised.value)) < 500
    # One that transformers loads as a causal model, and that looks at later tokens all the same.
    torch.manual_seed(0)
    bert = BertConfig(num_attention_heads=2, intermediate_size=32, **small)
    BertForMaskedLM(bert).save_pretrained(tmp_path / "bert")
    encoder = load_causal_lm(tmp_path / "bert")
    with pytest.raises(
        BadCheckpoint, match=r"bert is no causal language model: its resid_post_0 c"
    ):
        checks.check_causal("bert", encoder, torch.arange(8)[None])
    checks.check_causal("neox", model(1), torch.arange(8)[None])


def test_what_a_model_cannot_run() -> None:
    one, tokens = model(1), {"fit": torch.arange(64).view(8, 8)}
    check_runs("one", one, tokens)
    with pytest.raises(Unusable, match="one knows 24 positions, the sequences have 40: lower --co"):
        check_runs("one", one, {"fit": torch.zeros(2, 40, dtype=torch.int64)})
    with pytest.raises(Unusable, match=r"the score split holds number 5000: its tokenizer"):
        check_runs("one", one, {**tokens, "score": torch.full((1, 8), 5000)})
    with pytest.raises(Unusable, match=r"16 wide, so that 32 .* there are 24: give --tokens 32 or"):
        check_runs("one", one, {"fit": tokens["fit"][:3]})
    left_out = r"there are 24, the first 5 positions of each sequence left out: give --tokens 88 or"
    with pytest.raises(Unusable, match=left_out):
        check_runs("one", one, tokens, skip=5)
    check_runs("one", one, {"fit": torch.arange(88).view(11, 8)}, skip=5)
    with pytest.raises(
        Unusable, match="--skip-positions 7 leaves no two positions of sequences of"
    ):
        check_runs("one", one, tokens, skip=7)
    with torch.no_grad():
        one.gpt_neox.layers[1].mlp.dense_4h_to_h.bias[3] = float("nan")
    with pytest.raises(BadActivations, match=r"one, resid_post_1: .* NaN .*dimension 3"):
        check_runs("one", one, tokens)


def test_a_dimension_that_never_varies_is_told_from_one_that_varies_late(monkeypatch) -> None:
    monkeypatch.setattr(checks, "AT_ONCE", 16)
    rare = model(1)
    with torch.no_grad():
        rare.gpt_neox.embed_in.weight[:63, 5] = 2.0
    tokens = {"fit": torch.arange(64).view(8, 8)}
    check_runs("rare", rare, tokens)  # its last token alone has another value
    with pytest.raises(
        BadActivations, match=r"rare, resid_pre_0: dimension 5 is constant over all"
    ):
        check_runs("rare", rare, {"fit": torch.arange(56).view(7, 8)})


def test_out_of_memory_says_what_to_do(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(torch.OutOfMemoryError, match="does not fit on cuda: judge it with --devic"):
        loading.on_device(model(1), "cuda", "seed 1")
