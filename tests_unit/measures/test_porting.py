"""`polyrot pair A B --port OUT`: what belongs to A, carried to B and written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from polyrot.cli import main
from polyrot.dictionaries.carried import carried
from polyrot.dictionaries.loading import BadDictionary, LoadedDictionary, load_sae, save_sae
from polyrot.dictionaries.sae import Dictionary
from polyrot.haar.orthogonal import sample_haar
from polyrot.language.sites import capture
from polyrot.maps.explained_variance import explained_variance
from polyrot.maps.procrustes import fit_rotation
from tests_unit.dictionaries.other_formats import (
    Weights,
    dictionary_learning,
    gemma_scope,
    sparsify,
)
from tests_unit.disks import mounted
from tests_unit.language.small_checkpoints import (
    CONTEXT,
    model,
    save,
    vocabulary,
    write_text,
)
from tests_unit.language.test_pythia import claims
from tests_unit.language.tiny_language import rotated, rotation
from tests_unit.measures.test_frontier import axes_dictionary

SITE = "resid_post_1"


# ------------------------------------------------------------------------ a dictionary in B's basis


@pytest.fixture(scope="module")
def planted() -> tuple[Tensor, Tensor, Any, float]:
    """Activations a of A and b of B, a = 2 (b - mean) r + mean, the fit from b to a, and 2."""
    rng = np.random.default_rng(3)
    b = rng.standard_normal((400, 8)) * np.linspace(1, 2, 8) + 3
    r = sample_haar(8, 1, rng)[0]
    a = torch.from_numpy(2 * (b - 3) @ r - 1).float()
    return a, torch.from_numpy(b).float(), fit_rotation(torch.from_numpy(b), a.double()), 2.0


def dictionaries() -> dict[str, LoadedDictionary]:
    w = Weights.drawn()
    same: dict[str, Any] = {"w_enc": w.w_enc, "b_enc": w.b_enc, "w_dec": w.w_dec, "b_out": w.b_dec}
    zero = torch.zeros(8)
    return {
        "standard": LoadedDictionary(**same, b_in=w.b_dec),
        "no input bias": LoadedDictionary(**same, b_in=zero),
        "topk": LoadedDictionary(**same, b_in=w.b_dec, k=3),
        "jumprelu": LoadedDictionary(**same, b_in=zero, threshold=w.threshold),
    }


@pytest.mark.parametrize("kind", list(dictionaries()))
def test_it_makes_of_b_what_the_original_makes_of_b_carried_to_a(
    planted: tuple[Tensor, Tensor, Any, float], kind: str, tmp_path: Path
) -> None:
    a, b, fit, scale = planted
    original = dictionaries()[kind]
    for by in (1.0, scale):
        made = carried(original, fit, by)
        on_a = (b.double() - fit.mean_a) @ fit.r * by + fit.mean_b
        close = {"atol": 1e-3, "rtol": 1e-4}
        torch.testing.assert_close(made.encode(b), original.encode(on_a.float()), **close)
        wanted = (original(on_a.float()).double() - fit.mean_b) @ fit.r.T / by + fit.mean_a
        torch.testing.assert_close(made(b), wanted.float(), **close)
        save_sae(tmp_path / f"{by}", made, SITE)
        torch.testing.assert_close(load_sae(tmp_path / f"{by}").dictionary(b), made(b))
    # With the scale b is carried onto a itself, and explained variance is that of the original.
    there = explained_variance(b, carried(original, fit, scale)(b))
    assert there == pytest.approx(explained_variance(a, original(a)), abs=1e-4)


def test_what_cannot_be_carried(planted: tuple[Tensor, Tensor, Any, float]) -> None:
    fit, d = planted[2], dictionaries()["standard"]
    parts = (d.w_enc, d.b_enc, d.w_dec)
    with pytest.raises(BadDictionary, match=r"normalises every token .layer_norm. in A's basis"):
        carried(LoadedDictionary(*parts, d.b_in, d.b_out, norm="layer_norm"), fit)
    with pytest.raises(BadDictionary, match="only autoencoders"):
        carried(Dictionary(*parts, d.b_in, d.b_in + 1), fit)


# ------------------------------------------------------------------------------- tiny checkpoints


def uneven(made: Any, seed: int) -> Any:
    """Embeddings that are wide in the last dimensions, or of another seed in the first: what lies
    in A's largest axes is not what lies in B's."""
    widths = torch.linspace(0.1, 3, 16)
    with torch.no_grad():
        made.get_input_embeddings().weight.mul_(widths.flip(0) if seed else widths)
    return made


def gpt2(seed: int) -> Any:
    torch.manual_seed(seed)
    sizes = {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32}
    return uneven(GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary(), **sizes)), seed)


def llama(seed: int) -> Any:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    made = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary(), **sizes, **heads))
    return uneven(made, seed)


def neox(seed: int) -> Any:
    """B is A in another basis: its dictionary works there."""
    a = model(1, plain_norms=True)
    return a if seed == 0 else rotated(a, rotation())


FORMATS = ("saelens", "dictionary_learning", "sparsify", "gemma_scope")


def axes(made: Any) -> Dictionary:
    """Of half of the model's principal axes at SITE: it reconstructs most."""
    tokens = torch.randint(vocabulary(), (64, CONTEXT), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x = capture(made.eval(), tokens, [SITE])[SITE].flatten(0, 1)
    return axes_dictionary(x, k=12)


def write(folder: Path, sae: Dictionary, form: str) -> Path:
    """The same dictionary in another tool's format: TopK of as many as can be active at once, or a
    JumpReLU with thresholds of zero."""
    w = Weights.of(sae)
    if form == "dictionary_learning":
        return dictionary_learning(folder / form, w, "AutoEncoderTopK", k=12)
    if form == "sparsify":
        return sparsify(folder / form, w, k=12)
    if form == "gemma_scope":
        centred = w.b_enc - w.b_dec @ w.w_enc
        return gemma_scope(folder / form, Weights(w.w_enc, centred, w.w_dec, w.b_dec, w.threshold))
    save_sae(folder / form, sae, SITE, "A")
    return folder / form


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models A and B of every architecture, A's dictionary in every format, and a text."""
    made = tmp_path_factory.mktemp("checkpoints")
    for make in (gpt2, llama, neox):
        for seed, name in enumerate("AB"):
            save(made / make.__name__ / name, make(seed))
        sae = axes(make(0))
        for form in FORMATS:
            write(made / make.__name__ / "saes", sae, form)
    write_text(made / "text", 4500)
    return made


def found_in(folder: Path, form: str) -> Path:
    (weights,) = [
        path
        for name in ("sae_weights.safetensors", "ae.pt", "sae.safetensors", "params.npz")
        for path in (folder / "saes" / form).rglob(name)
    ] or [*(folder / "saes" / "gemma-scope-2b-pt-res").rglob("params.npz")]
    return weights.parent


def run(checkpoints: Path, make: Any, *more: object) -> int:
    folder = checkpoints / make.__name__
    options = ("--text", checkpoints / "text", "--tokens", 1024, "--context", CONTEXT)
    return main([str(x) for x in ("pair", folder / "A", folder / "B", *options, *more)])


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("make", [gpt2, llama, neox])
def test_any_architecture_with_any_format(
    checkpoints: Path, make: Any, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sae = found_in(checkpoints / make.__name__, form)
    assert run(checkpoints, make, "--sae", sae, "--port", tmp_path) == 0
    shown = capsys.readouterr().out
    (read,) = [line for line in shown.splitlines() if line.startswith("read: ")]
    assert f"24 features of width 16 at {SITE}; on A: L0 " in read
    account = json.loads((tmp_path / "port.json").read_text())
    verdict = account["verdict"][0]
    assert verdict in shown
    if make is neox:
        assert verdict.startswith("A's dictionary works on B through R: yes, because")
    for name in ("sae_rotated", "sae_scaled"):
        saved = load_sae(tmp_path / name)
        told = json.loads((tmp_path / name / "cfg.json").read_text())["metadata"]
        assert (saved.site, told["ported_from"]) == (SITE, str(checkpoints / make.__name__ / "A"))
        assert told["ev_on_b"] == account["written"][name]["ev_on_b"]
    line = next(x for x in shown.splitlines() if x.startswith("rotated_ev"))
    ev = account["written"]["sae_rotated"]["ev_on_b"]
    assert float(line.split()[1]) == pytest.approx(ev, abs=1e-3)


def test_everything_that_is_written_for_a_rotated_copy(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sae = found_in(checkpoints / "neox", "saelens")
    vector = torch.randn(16, generator=torch.Generator().manual_seed(1))
    np.savez(tmp_path / "v.npz", one=vector.numpy(), other=np.ones(3))
    given = ("--vector", tmp_path / "v.npz", "--vector-name", "one")
    assert run(checkpoints, neox, "--sae", sae, *given, "--port", tmp_path / "out") == 0
    q = rotation().float()  # B's stream is A's times q
    maps = load_file(tmp_path / "out" / "maps.safetensors")
    assert set(maps) == {"r", "scale", "affine", "mean_of_a", "mean_of_b"}
    torch.testing.assert_close(maps["r"], q.T, atol=2e-3, rtol=0)
    assert float(maps["scale"]) == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(maps["mean_of_a"] @ q, maps["mean_of_b"], atol=1e-3, rtol=1e-3)
    steering = load_file(tmp_path / "out" / "steering.safetensors")
    for name in ("rotated", "scaled"):
        torch.testing.assert_close(steering[name], vector @ q, atol=1e-2, rtol=1e-2)
    account = json.loads((tmp_path / "out" / "port.json").read_text())
    assert account["maps"]["pointwise_ev_rotated"] == pytest.approx(1, abs=1e-3)
    written = account["written"]["sae_rotated"]
    assert written["ev_on_b"] == pytest.approx(written["ev_on_a_of_the_original"], abs=1e-3)
    assert written["ev_on_b_of_the_original"] < written["ev_on_b"] - 0.1
    assert f"written to {tmp_path / 'out'}" in capsys.readouterr().out
    # B's basis is another: the original is no dictionary of B, the ported one is.
    ids = torch.randint(vocabulary(), (32, CONTEXT), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        x = capture(neox(1).eval(), ids, [SITE])[SITE].flatten(0, 1)
    ported = load_sae(tmp_path / "out" / "sae_rotated").dictionary
    original = load_sae(sae).dictionary
    assert explained_variance(x, ported(x)) > explained_variance(x, original(x)) + 0.1


def test_what_cannot_be_carried_is_one_line_and_nothing_is_written(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = checkpoints / "neox", tmp_path / "out"
    sae = found_in(folder, "saelens")
    np.save(tmp_path / "wide.npy", np.ones(9))
    np.save(tmp_path / "zero.npy", np.zeros(16))
    np.save(tmp_path / "whole.npy", np.ones(16, dtype=int))
    (tmp_path / "file").touch()
    site = ("--site", SITE)
    for more, says in (
        ((), "give --sae DIR, or --site SITE"),
        (("--sae", folder / "A", "--port", out), "is a model's checkpoint"),
        (("--sae", folder / "saes", "--port", out), "is a parent of 4 dictionaries"),
        (("--sae", sae, "--port", tmp_path / "file"), "it is a file where a directory should be"),
        (("--sae", sae, "--site", "resid_post_0"), "the dictionary is of resid_post_1"),
        (("--site", "resid_post_9", "--port", out), "has resid_pre_0 to resid_post_2"),
        ((*site, "--vector", tmp_path / "wide.npy"), "give --port OUT, too"),
        ((*site, "--vector", tmp_path / "wide.npy", "--port", out), "the vector is [9], where [16"),
        ((*site, "--vector", tmp_path / "zero.npy", "--port", out), "it has no direction"),
        ((*site, "--vector", tmp_path / "whole.npy", "--port", out), "of torch.int64, not of"),
        ((*site, "--text", tmp_path / "nowhere"), "nowhere"),
        ((*site, "--skip-positions", 15), "--skip-positions 15"),
    ):
        assert run(checkpoints, neox, *more) == 2, says
        told = capsys.readouterr()
        assert says in told.err
        assert told.out == ""
        *_, last = told.err.splitlines()  # behind the bars of what loads the weights
        assert last.startswith("error: ")
    assert not out.exists() or not list(out.iterdir())


def test_a_full_disk_is_one_line(checkpoints: Path, tmp_path: Path, capsys: Any) -> None:
    np.save(tmp_path / "many.npy", np.random.default_rng(0).standard_normal((300, 16)))
    given = ("--site", SITE, "--vector", tmp_path / "many.npy", "--port", tmp_path / "disk")
    with mounted(tmp_path / "disk", "size=16k") as disk:
        assert run(checkpoints, neox, *given) == 2
        *_, last = capsys.readouterr().err.splitlines()
        assert last.startswith(
            f"error: {disk / 'steering.safetensors'} cannot be written: no space"
        )
        assert [path.name for path in disk.iterdir()] == ["maps.safetensors"], "and no account"


@pytest.mark.slow  # runs of the claims
@pytest.mark.parametrize(
    ("make", "form"), [(gpt2, "dictionary_learning"), (llama, "sparsify"), (neox, "gemma_scope")]
)
def test_claims_of_a_pair_with_a_dictionary_of_another_tool(
    checkpoints: Path, make: Any, form: str, tmp_path: Path
) -> None:
    folder = checkpoints / make.__name__
    options = [f"--text={checkpoints / 'text'}", "--tokens=1024", f"--context={CONTEXT}"]
    options += ["--schedule=tiny", f"--artifacts={tmp_path}", f"--report={tmp_path}"]
    sae = found_in(folder, form)
    ran = claims(
        "--pair", str(folder / "A"), str(folder / "B"), f"--sae={sae}", *options, "-k", "frontier"
    )
    record = json.loads((tmp_path / "verdicts.json").read_text())
    found = {e["claim"]: e for e in record["verdicts"] if e["claim"].startswith("frontier.")}
    assert len(found) == 5
    assert {e["outcome"] for e in found.values()} <= {"held", "refuted", "undecided"}, ran.stdout
    assert found["frontier.dictionary_works_at_home_control"]["outcome"] == "held", ran.stdout
    assert found["frontier.dictionary_works_at_home_control"]["label"] == SITE
    assert "read: " in ran.stdout
    assert "A's dictionary works on B through R: " in ran.stdout
    assert (tmp_path / "figures" / "dictionary_on_b_pair.svg").is_file()
    if make is neox:
        assert "through R: yes, because" in ran.stdout
        assert found["frontier.beats_nulls_control"]["outcome"] == "held"
        # A rotation of shuffled tokens is as far from the identity: the magnitude tells nothing.
        assert found["frontier.magnitude_control"]["outcome"] == "refuted"
