"""Dictionaries of dictionary_learning, sparsify and Gemma Scope; what a directory is.

The expected values are written out in other_formats.py from those tools' sources
(dictionary_learning 0.1.0, eai-sparsify 1.3.3, arXiv 2408.05147), not with the code under test.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from polyrot.dictionaries.loading import BadDictionary, load_sae, save_sae, site_of
from tests_unit.dictionaries.other_formats import (
    Weights,
    dictionary_learning,
    expected,
    gemma_scope,
    sparsify,
)
from tests_unit.dictionaries.test_loading import SAELENS

W = Weights.drawn()
X = 2 * torch.randn(30, 8, generator=torch.Generator().manual_seed(5)) + 0.5
CLASSES = (
    "AutoEncoder",
    "AutoEncoderNew",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "JumpReluAutoEncoder",
)


def written(folder: Path, made: str) -> Path:
    if made in CLASSES:
        return dictionary_learning(folder, W, made)
    return {"sparsify": sparsify, "gemma_scope": gemma_scope}[made](folder, W)


@pytest.mark.parametrize("made", [*CLASSES, "sparsify", "gemma_scope"])
def test_reconstructs_as_its_own_tool_does(tmp_path: Path, made: str) -> None:
    folder = written(tmp_path / "sae", made)
    saved = load_sae(folder)
    features, reconstruction = expected(W, X, made)
    torch.testing.assert_close(saved.dictionary.encode(X), features)
    torch.testing.assert_close(saved.dictionary(X), reconstruction)
    assert (saved.site, saved.otherwise) == ("resid_post_1", ())
    # The file itself names it, too.
    for file in saved.files:
        assert torch.equal(load_sae(file).dictionary(X), saved.dictionary(X))


@pytest.mark.parametrize("made", [*CLASSES, "sparsify", "gemma_scope"])
def test_what_was_read_is_saved_in_our_format(tmp_path: Path, made: str) -> None:
    saved = load_sae(written(tmp_path / "sae", made))
    save_sae(tmp_path / "out", saved.dictionary, saved.site, saved.model, {"ev": 0.5})
    again = load_sae(tmp_path / "out")
    torch.testing.assert_close(again.dictionary(X), saved.dictionary(X))
    assert (again.site, again.model) == (saved.site, saved.model)
    assert again.dictionary.architecture == saved.dictionary.architecture
    assert json.loads((tmp_path / "out" / "cfg.json").read_text())["metadata"]["ev"] == 0.5


def test_a_line_says_what_was_read(tmp_path: Path) -> None:
    found = {made: load_sae(written(tmp_path / made, made)) for made in (*CLASSES, "sparsify")}
    where = "16 features of width 8 at resid_post_1"
    assert found["AutoEncoder"].account() == f"standard (ReLU) of dictionary_learning, {where}"
    assert found["AutoEncoderTopK"].account() == f"TopK (k = 3) of dictionary_learning, {where}"
    assert found["BatchTopKSAE"].account() == f"JumpReLU of dictionary_learning, {where}"
    assert found["sparsify"].account() == f"TopK (k = 3) of sparsify, {where}"
    scope = load_sae(gemma_scope(tmp_path / "scope", W))
    assert scope.account() == f"JumpReLU of Gemma Scope, {where}"
    assert (found["AutoEncoder"].model, scope.model) == ("owner/A", "gemma-2-2b")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_files_of_other_precisions(tmp_path: Path, dtype: torch.dtype) -> None:
    def rounded(w: torch.Tensor) -> torch.Tensor:
        return w.to(dtype)

    w = Weights(*map(rounded, (W.w_enc, W.b_enc, W.w_dec, W.b_dec, W.threshold)))
    wide = Weights(*(t.float() for t in (w.w_enc, w.b_enc, w.w_dec, w.b_dec, w.threshold)))
    folders = [dictionary_learning(tmp_path / "d", w), sparsify(tmp_path / "s", w)]
    makers = ["AutoEncoder", "sparsify"]
    if dtype != torch.bfloat16:  # NumPy has none
        folders.append(gemma_scope(tmp_path / "g", w))
        makers.append("gemma_scope")
    saelens = tmp_path / "saelens"
    saelens.mkdir()
    (saelens / "cfg.json").write_text((SAELENS / "standard" / "cfg.json").read_text())
    tensors = {"W_enc": w.w_enc, "b_enc": w.b_enc, "W_dec": w.w_dec, "b_dec": w.b_dec}
    save_file(tensors, saelens / "sae_weights.safetensors")
    for folder, made in zip([*folders, saelens], [*makers, "AutoEncoder"], strict=True):
        found = load_sae(folder).dictionary
        assert found.w_enc.dtype == torch.float32
        torch.testing.assert_close(found(X), expected(wide, X, made)[1])


# ------------------------------------------------------------------------------ which site it is


@pytest.mark.parametrize(
    ("hook", "site"),
    [
        ("gpt_neox.layers.3", "resid_post_3"),
        ("transformer.h.3", "resid_post_3"),
        ("h.3", "resid_post_3"),
        ("model.layers.3", "resid_post_3"),
        ("model.layers.3.output", "resid_post_3"),
        ("model.language_model.layers.3", "resid_post_3"),
        ("model.layers.3.input", "resid_post_2"),
        ("blocks.3", "resid_post_3"),
        ("blocks.3.hook_out", "resid_post_3"),
        ("blocks.3.hook_in", "resid_post_2"),
        ("blocks.0.hook_in", "resid_pre_0"),
        ("gpt_neox.embed_in", "resid_pre_0"),
        ("resid_post_layer_3", "resid_post_3"),
    ],
)
def test_modules_and_bridges_are_sites(hook: str, site: str) -> None:
    assert site_of(hook) == site


@pytest.mark.parametrize(
    "hook",
    [
        "model.layers.3.mlp",
        "transformer.h.3.attn",
        "layers.3.mlp.output",
        "blocks.3.mlp.hook_out",
        "model.vision_tower.layers.3",
        "model.encoder.layers.3",
        "transformer.wte",
        "model.embed_tokens",
        "mlp_out_layer_3",
        "layers.x",
        "resid_post_layer_3.mlp",
    ],
)
def test_other_modules_are_refused(hook: str) -> None:
    with pytest.raises(BadDictionary, match="is no residual site"):
        site_of(hook)


def test_a_layer_without_a_module_is_taken_for_its_output_and_told(tmp_path: Path) -> None:
    saved = load_sae(dictionary_learning(tmp_path / "a", W, submodule_name=None, layer=2))
    assert saved.site == "resid_post_2"
    assert "layer 2, without a word of what of it" in saved.otherwise[0]
    with pytest.raises(BadDictionary, match="says neither submodule_name nor layer"):
        load_sae(dictionary_learning(tmp_path / "b", W, submodule_name=None, layer=None))


# ------------------------------------------------------------------------------ what it is instead


def test_what_a_directory_is(tmp_path: Path) -> None:
    run, many = tmp_path / "run", tmp_path / "many"
    for i in range(3):
        dictionary_learning(run / f"trainer_{i}", W)
        sparsify(many, W, hook=f"layers.{i}")
    gemma_scope(tmp_path / "scope", W)
    for name, file in (("model", "model.safetensors"), ("adapter", "adapter_model.safetensors")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
    (tmp_path / "text.txt").touch()
    below = "gemma-scope-2b-pt-res/layer_1/width_16k/average_l0_82"
    for folder, says in {
        run: "a parent of 3 dictionaries; name one: trainer_0 (dictionary_learning), trainer_1",
        many: "a parent of 3 dictionaries; name one: layers.0 (sparsify), layers.1",
        tmp_path / "scope": f"a parent of 1 dictionaries; name one: {below} (Gemma Scope)",
        tmp_path / "model": "is a model's checkpoint",
        tmp_path / "adapter": "is an adapter of a model",
        tmp_path / "text.txt": "is a file that is no dictionary's; read are directories with",
        tmp_path / "nowhere": "no such directory",
    }.items():
        with pytest.raises(BadDictionary) as caught:
            load_sae(folder)
        assert says in str(caught.value)
        assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda f: dictionary_learning(f, W, dict_class="GatedAutoEncoder"), "dict_class Gated"),
        (lambda f: dictionary_learning(f, W, submodule_name="mlp_out_layer_1"), "no residual site"),
        (lambda f: dictionary_learning(f, W, "AutoEncoderTopK", dict_class="AutoEncoder"),
         r"ae.pt holds b_dec, .* but AutoEncoder asks for bias"),
        (lambda f: dictionary_learning(f, W, "AutoEncoderTopK", k=17), "k = 17 of 16 features"),
        (lambda f: sparsify(f, W, k="3"), "k in cfg.json is '3', no whole number"),
        (lambda f: sparsify(f, W, transcode="false"), "is 'false', neither true nor false"),
        (lambda f: sparsify(f, W, transcode=True), "transcode is not supported"),
        (lambda f: sparsify(f, W, activation="groupmax"), "activation groupmax is not supported"),
        (lambda f: sparsify(f, W, hook="layers.1.mlp"), "layers.1.mlp is no residual site"),
        (lambda f: sparsify(f, W, d_in=9), "is 8 wide, but d_in is 9"),
        (lambda f: gemma_scope(f, W, layer="mine"), "no folder of its path names a layer"),
        (lambda f: gemma_scope(f, W, layer="embedding"), "Gemma scales it"),
        (lambda f: gemma_scope(f / "gemma-scope-2b-pt-mlp", W), "an MLP's output, no residual"),
    ],
)  # fmt: skip
def test_refusals_name_the_directory_and_the_reason(tmp_path: Path, made, says: str) -> None:
    folder = made(tmp_path / "sae")
    with pytest.raises(BadDictionary, match=says) as caught:
        load_sae(folder)
    assert str(caught.value).startswith(f"{folder}: ")


class Shouts:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("it ran",)


def test_nothing_that_can_run_code_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = dictionary_learning(tmp_path / "d", W)
    scope = gemma_scope(tmp_path, W)
    np.savez(scope / "params.npz", W_enc=np.array([Shouts()], dtype=object))
    for write in (
        lambda path: torch.save({"bias": Shouts()}, path),
        lambda path: torch.save(torch.nn.Linear(2, 2), path),
        lambda path: path.write_bytes(pickle.dumps(Shouts())),
        lambda path: path.write_bytes(b""),
        lambda path: torch.save([1, 2], path),
    ):
        write(folder / "ae.pt")
        with pytest.raises(BadDictionary, match=r"save (its|the module's) state_dict") as caught:
            load_sae(folder)
        assert "weights_only" not in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(BadDictionary, match="or holds more than arrays"):
        load_sae(scope)
    assert "it ran" not in capsys.readouterr().out


def test_damaged_weights(tmp_path: Path) -> None:
    folders = [written(tmp_path / m, m) for m in ("AutoEncoder", "sparsify", "gemma_scope")]
    for folder in folders:
        weights = load_sae(folder).files[0]
        weights.write_bytes(weights.read_bytes()[:-60])
        with pytest.raises(BadDictionary, match="is damaged"):
            load_sae(folder)
    sound = sparsify(tmp_path / "sound", W)
    tensors = load_file(sound / "sae.safetensors")
    for name, wrong, says in (
        ("b_dec", tensors["b_dec"] * float("nan"), "b_dec in sae.safetensors has values that"),
        ("b_dec", torch.ones(9), r"the decoder's bias is \[9\]"),
        ("b_dec", torch.ones(8, dtype=torch.int64), "is of torch.int64"),
        ("W_dec", torch.ones(16, 9), "do not belong together"),
        ("W_skip", torch.ones(8, 8), "but a TopK asks for"),
    ):
        save_file({**tensors, name: wrong}, sound / "sae.safetensors")
        with pytest.raises(BadDictionary, match=says):
            load_sae(sound)
