"""Dictionaries from directories: as SAELens reconstructs, this project's own, and refusals.

The files in data/saelens were written by SAELens; data/saelens/make.py says how.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from polyrot.dictionaries import __main__ as listing
from polyrot.dictionaries.loading import (
    BadDictionary,
    __main__ as exporting,
    hook_of,
    load_sae,
    saelens,
    save_sae,
    site_of,
)
from polyrot.dictionaries.sae import Dictionary, quality, stack
from polyrot.dictionaries.training import initialise
from polyrot.maps.matching import max_cosine
from polyrot.runtime.files import Unwritable
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Artifact, Store
from tests_unit.disks import mounted

SAELENS = Path(__file__).parents[1] / "data" / "saelens"
CASES = sorted(path.parent.name for path in SAELENS.glob("*/cfg.json"))


@pytest.mark.parametrize("case", CASES)
def test_reconstructs_as_saelens_does(case):
    expected = load_file(SAELENS / case / "expected.safetensors")
    saved = load_sae(SAELENS / case)
    found = saved.dictionary
    torch.testing.assert_close(found.encode(expected["x"]), expected["features"])
    torch.testing.assert_close(found(expected["x"]), expected["reconstruction"])
    torch.testing.assert_close(found(expected["x"], chunk=5), expected["reconstruction"])
    assert (saved.site, saved.model) == (
        "resid_post_2" if case == "topk-version-5" else "resid_post_1",
        "pythia-70m-deduped",
    )
    assert (found.d_in, found.n_features, tuple(found.decoder.shape)) == (8, 16, (8, 16))


def test_every_architecture_and_setting_is_among_the_files():
    assert len(CASES) == 8
    # What tells them apart matters: read as another, each file gives another reconstruction.
    x = load_file(SAELENS / "jumprelu" / "expected.safetensors")["x"]
    found = load_sae(SAELENS / "jumprelu").dictionary
    plain = Dictionary(found.w_enc, found.b_enc, found.w_dec, found.b_in, found.b_out)
    assert not torch.allclose(found(x), plain(x), atol=1e-2)
    assert (found.encode(x) > 0).sum() < (plain.encode(x) > 0).sum()


def test_a_loaded_dictionary_serves_as_one_of_ours():
    found = load_sae(SAELENS / "topk").dictionary.to("cpu")
    x = torch.randn(200, 8, generator=torch_generator(0, "x"))
    q = quality(found, x)
    assert q.l0 <= 3
    assert q.live.shape == (16,)
    torch.testing.assert_close(max_cosine(found.decoder, found.decoder), torch.ones(16))
    for call in (found, found.encode):
        with pytest.raises(ValueError, match="reads width 8, the activations have 9"):
            call(torch.zeros(3, 9))


def own(seed=3):
    w = {n: t[0] for n, t in initialise([seed], 8, 8, 16).items()}
    bias = torch.randn(8, generator=torch_generator(seed, "bias"))
    return Dictionary(w["w_enc"], w["b_enc"] + 0.1, w["w_dec"], bias, bias)


def test_own_dictionaries_come_back(tmp_path):
    save_sae(tmp_path / "new" / "sae", own(), "resid_post_3", model="cohort")
    saved = load_sae(tmp_path / "new" / "sae")
    assert (saved.site, saved.model) == ("resid_post_3", "cohort")
    x = torch.randn(20, 8, generator=torch_generator(0, "x"))
    torch.testing.assert_close(saved.dictionary(x), own()(x))
    assert not torch.allclose(saved.dictionary(x), own(4)(x))


def test_what_is_not_saved(tmp_path):
    d = own()
    transcoder = Dictionary(d.w_enc, d.b_enc, d.w_dec, d.b_in, d.b_in + 1)
    with pytest.raises(BadDictionary, match="only autoencoders"):
        save_sae(tmp_path, transcoder, "resid_pre_0")
    with pytest.raises(BadDictionary, match="site resid_last has no name"):
        save_sae(tmp_path / "x", own(), "resid_last")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("hook", "site"),
    [
        ("blocks.0.hook_resid_pre", "resid_pre_0"),
        ("blocks.3.hook_resid_pre", "resid_post_2"),
        ("blocks.11.hook_resid_post", "resid_post_11"),
    ],
)
def test_hooks_are_sites(hook, site):
    assert site_of(hook) == site
    assert site_of(hook_of(site)) == site


@pytest.mark.parametrize("hook", ["blocks.2.hook_mlp_out", "blocks.1.attn.hook_z", "", "None"])
def test_other_hooks_are_refused(hook):
    with pytest.raises(BadDictionary, match="is no residual site"):
        site_of(hook)


@pytest.fixture
def copy(tmp_path):
    """A directory that SAELens wrote, with keys of its configuration changed."""

    def make(case="standard", **changes):
        folder = tmp_path / case
        shutil.copytree(SAELENS / case, folder, dirs_exist_ok=True)
        path = folder / "cfg.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        return folder

    return make


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "gated"}, "architecture gated is not supported, only standard, jumprelu"),
        ({"activation_fn": "tanh-relu"}, "activation function tanh-relu is not supported"),
        ({"normalize_activations": "expected_average_only_in"}, "is not in the weights"),
        ({"normalize_activations": "covariance_whitening"}, "is not in the weights"),
        ({"normalize_activations": "minmax"}, "normalize_activations minmax is not supported"),
        ({"reshape_activations": "hook_z"}, "reads no residual site"),
        ({"metadata": {"hook_name": "blocks.1.hook_mlp_out"}}, "hook_mlp_out is no residual site"),
        ({"metadata": {}}, "hook None is no residual site"),
        ({"d_in": 9}, r"W_enc is \[8, 16\], but cfg.json says d_in and d_sae \[9, 16\]"),
        ({"d_sae": 15}, r"W_enc is \[8, 16\], but cfg.json says d_in and d_sae \[8, 15\]"),
        ({"architecture": "topk"}, "topk with k = None"),
        ({"architecture": "topk", "k": True}, "topk with k = True"),
        ({"architecture": "topk", "k": 17}, "topk with k = 17 of 16 features"),
        ({"metadata": 3}, r"metadata in cfg\.json is 3, not a table"),
        ({"activation_fn_kwargs": [3]}, r"activation_fn_kwargs in cfg\.json is \[3\], not a table"),
        ({"apply_b_dec_to_input": "false"}, r"_to_input in cfg\.json is 'false', neither true"),
        ({"rescale_acts_by_decoder_norm": "True"}, "is 'True', neither true nor false"),
        ({"prepend_bos": 1}, "prepend_bos in cfg.json is 1, neither true nor false"),
        ({"d_in": "8"}, r"d_in in cfg\.json is '8', no whole number above 0"),
        ({"architecture": "jumprelu"}, "but jumprelu asks for W_dec, W_enc, b_dec, b_enc, thresh"),
    ],
)
def test_refusals_name_the_directory_and_the_reason(copy, changes, message):
    folder = copy(**changes)
    with pytest.raises(BadDictionary, match=message) as caught:
        load_sae(folder)
    assert str(caught.value).startswith(f"{folder}: ")


def test_what_it_was_trained_on_and_is_otherwise_here_is_told(copy):
    assert load_sae(copy(metadata={"hook_name": "blocks.1.hook_resid_post"})).otherwise == ()
    described = {
        "hook_name": "blocks.1.hook_resid_post",
        "prepend_bos": True,
        "exclude_special_tokens": True,
        "seqpos_slice": [5, None],
        "model_from_pretrained_kwargs": {"center_writing_weights": True, "fold_ln": False},
    }
    bos, special, positions, model = load_sae(copy(metadata=described)).otherwise
    assert "begin with BOS" in bos
    assert "no special tokens" in special
    assert positions == "positions [5, None] (seqpos_slice); here every position counts"
    assert model == "a model loaded with center_writing_weights=True; here it is taken as it is"
    described |= {"seqpos_slice": [None], "model_from_pretrained_kwargs": {"fold_ln": False}}
    described |= {"prepend_bos": False, "exclude_special_tokens": False}
    assert load_sae(copy(metadata=described)).otherwise == ()


def test_missing_and_damaged_files(copy, tmp_path):
    with pytest.raises(BadDictionary, match=r"holds no dictionary; read are directories with"):
        load_sae(tmp_path)
    folder = copy()
    weights = folder / "sae_weights.safetensors"
    tensors = load_file(weights)
    save_file({**tensors, "b_enc": tensors["b_enc"] * float("nan")}, weights)
    with pytest.raises(BadDictionary, match=r"b_enc in sae_weights\.safetensors has values"):
        load_sae(folder)
    for name, wrong in (
        ("b_enc", torch.ones(1)),
        ("W_dec", torch.ones(16)),
        ("b_dec", torch.ones(9)),
    ):
        save_file({**tensors, name: wrong}, weights)
        with pytest.raises(BadDictionary, match=rf"{name} is \[\d+\], but cfg\.json says"):
            load_sae(folder)
    save_file({**tensors, "scaling_factor": torch.full((16,), 2.0)}, weights)
    with pytest.raises(BadDictionary, match="scaling_factor is not supported"):
        load_sae(folder)
    save_file({**tensors, "scaling_factor": torch.ones(16)}, weights)
    load_sae(folder)
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(BadDictionary, match="is damaged"):
        load_sae(folder)
    weights.unlink()
    with pytest.raises(BadDictionary, match=r"has cfg\.json and no weights"):
        load_sae(folder)
    save_file(tensors, weights)
    for text in ("{", "[" * 100_000, '{"d_in": ' + "9" * 5000 + "}"):
        (folder / "cfg.json").write_text(text)
        with pytest.raises(BadDictionary, match=r"no JSON|nested too deeply"):
            load_sae(folder)
    (folder / "cfg.json").unlink()
    with pytest.raises(BadDictionary, match=r"has no cfg\.json"):
        load_sae(folder)


@pytest.mark.parametrize("dies_at", [0, 1, 2])
def test_a_kill_leaves_the_old_the_new_or_none(dies_at, tmp_path, monkeypatch):
    """Killed before the weights, the configuration, or after both have their place."""
    save_sae(tmp_path, own(3), "resid_pre_0", "old")
    renamed, replace = [], saelens.os.replace

    def dying(source, target):
        if len(renamed) == dies_at:
            raise KeyboardInterrupt
        renamed.append(target)
        replace(source, target)

    monkeypatch.setattr(saelens.os, "replace", dying)
    if dies_at < 2:
        with pytest.raises(KeyboardInterrupt):
            save_sae(tmp_path, own(4), "resid_pre_0", "new")
        with pytest.raises(BadDictionary, match=r"holds no dictionary|has no cfg\.json"):
            load_sae(tmp_path)
    else:
        save_sae(tmp_path, own(4), "resid_pre_0", "new")
        assert load_sae(tmp_path).model == "new"
        torch.testing.assert_close(load_sae(tmp_path).dictionary.w_enc, own(4).w_enc)
    assert not list(tmp_path.glob(".*"))


def test_what_cannot_be_written_leaves_the_old(tmp_path, monkeypatch):
    def full_disk(path, blob):
        with path.open("wb") as file:
            file.write(blob[: len(blob) // 2])
        raise OSError(28, "No space left on device")

    save_sae(tmp_path, own(3), "resid_pre_0", "old")
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(Unwritable, match="no space left in"):
        save_sae(tmp_path, own(4), "resid_pre_0", "new")
    assert load_sae(tmp_path).model == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cfg.json", "sae_weights.safetensors"]


def test_a_full_disk_is_said(tmp_path):
    with mounted(tmp_path / "disk", "size=16k") as disk:
        (disk / "ballast").write_bytes(bytes(12_000))
        with pytest.raises(Unwritable, match="saved cannot be written: no space left"):
            save_sae(disk / "saved", own(3), "resid_pre_0", "new")
        assert not list((disk / "saved").iterdir())


@pytest.fixture
def group(tmp_path):
    """The file of a group of two dictionaries of a language model."""
    store, sites = Store(tmp_path / "store"), ("resid_pre_0", "resid_post_0", "resid_mid_0")
    quality_of = {"ev": 0.9, "l0": 12.0, "dead": 0.25}
    artifact = Artifact(stack([own(1), own(2), own(3)]), {"quality": [quality_of] * 3})
    recipe = {"specs": [[0, site, 0, 1e-5] for site in sites]}
    store.get_or_build("dictionaries", recipe, lambda _: artifact, name="neox-anchor")
    (file,) = (tmp_path / "store" / "dictionaries").glob("neox*.safetensors")
    return file


def refused(capsys, main, *arguments):
    """The last line of a refusal by a command."""
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_command_line_saves_one_of_a_group(group, tmp_path, capsys):
    exporting.main([str(group), str(tmp_path / "out"), "--site", "resid_post_0"])
    saved = load_sae(tmp_path / "out")
    torch.testing.assert_close(saved.dictionary.w_dec, own(2).w_dec)
    assert (saved.site, saved.model) == ("resid_post_0", "")
    message = refused(capsys, exporting.main, group, tmp_path / "out", "--site=resid_post_7")
    assert "has no dictionary of model 0 at resid_post_7" in message
    message = refused(capsys, exporting.main, group, tmp_path / "out", "--site=resid_mid_0")
    assert "site resid_mid_0 has no name in SAELens" in message


def test_the_list_shows_a_small_l1(group, capsys):
    listing.main([str(group.parents[1])])
    _, first, *_ = capsys.readouterr().out.splitlines()
    assert first.split() == ["neox-anchor", "0", "resid_pre_0", "0", "1e-05", "0.9000", "12.0",
                             "25.0%"]  # fmt: skip


def test_commands_name_a_file_that_is_damaged_or_foreign(group, tmp_path, capsys):
    out, store = tmp_path / "out", Store(tmp_path / "store")
    store.get_or_build("steering", {"a": 1}, lambda _: Artifact({}, {}), name="other")
    (foreign,) = (tmp_path / "store" / "steering").glob("other*.safetensors")
    message = refused(capsys, exporting.main, foreign, out, "--site=resid_pre_0")
    assert f"{foreign} is of kind steering, not dictionaries" in message
    message = refused(capsys, exporting.main, tmp_path / "nowhere", out, "--site=resid_pre_0")
    assert f"{tmp_path / 'nowhere'}: it cannot be read" in message
    group.write_bytes(group.read_bytes()[:-20])
    for main, arguments in (
        (exporting.main, (group, out, "--site=resid_pre_0")),
        (listing.main, (group.parents[1],)),
    ):
        message = refused(capsys, main, *arguments)
        assert f"{group}: it is no artifact of this suite" in message
    assert not out.exists()
