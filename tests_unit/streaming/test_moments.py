"""The streaming command: end to end on tiny checkpoints, killed and resumed, what it refuses."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from polyrot.dictionaries.loading import save_sae
from polyrot.dictionaries.sae import Dictionary
from polyrot.language.sites import capture
from polyrot.maps.explained_variance import explained_variance
from polyrot.maps.procrustes import affine_least_squares, fit_rotation, shift_only
from polyrot.store import fingerprint
from polyrot.store.file import read
from polyrot.streaming import __main__ as command
from polyrot.streaming.ranks import Ranks
from tests_unit.language.tiny_language import rotated, rotation
from tests_unit.streaming.streaming_checkpoints import (
    CONTEXT,
    SITES,
    artifacts,
    checkpoints,
    covered,
    model,
    run_until_killed,
    save,
    tokenizer,
    write_text,
)

FIT, HELD_OUT, BATCH = 6400, 1600, 320


@dataclass(frozen=True)
class Place:
    """An anchor, a rotated copy of it and a stranger; `q` carries the anchor to the copy."""

    root: Path
    q: torch.Tensor

    def arguments(self, *models: str, store: str = "store", **options: object) -> list[str]:
        given = {
            "text": self.root / "text.txt",
            "context": CONTEXT,
            "tokens": FIT,
            "held-out": HELD_OUT,
            "batch-tokens": BATCH,
            "artifacts": self.root / store,
            "device": "cpu",
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        named = [str(self.root / name) for name in models]
        return named + [f"--{name}={value}" for name, value in given.items()]

    def store(self, name: str = "store") -> Path:
        return self.root / name


def principal_dictionary(x: torch.Tensor, axes: int) -> Dictionary:
    """Rebuilds x [tokens, d] from its first principal axes, each as two features of either sign."""
    mean = x.mean(0)
    found = torch.linalg.eigh(torch.cov(x.T)).eigenvectors[:, -axes:]
    w_enc = torch.cat([found, -found], dim=1)
    return Dictionary(w_enc, torch.zeros(2 * axes), w_enc.T.contiguous(), mean, mean)


def activations(seed: int, text: Path) -> dict[str, torch.Tensor]:
    """Of one model on the fit and score tokens, at every site, [tokens, d]."""
    rows = tokenizer()(text.read_text())["input_ids"]
    tokens = torch.tensor(rows[: FIT + HELD_OUT]).reshape(-1, CONTEXT)
    return {site: x.flatten(0, 1) for site, x in capture(model(seed), tokens, SITES).items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root, q = tmp_path_factory.mktemp("language"), rotation()
    save(model(0), root / "anchor")
    save(rotated(model(0), q), root / "copy")
    save(model(1), root / "stranger")
    x = activations(0, write_text(root / "text.txt", 9000))["resid_post_0"]
    save_sae(root / "sae", principal_dictionary(x, 8), "resid_post_0")
    return Place(root, q)


def run(place: Place, *models: str, **options: object) -> dict[str, dict[str, torch.Tensor]]:
    """The command on a store of its own; its artifacts."""
    store = str(options.setdefault("store", "-".join(models)))
    assert command.main(place.arguments(*models, **options)) == 0
    return artifacts(place.store(store))


@pytest.fixture(scope="module")
def whole(place: Place) -> dict[str, dict[str, torch.Tensor]]:
    """An uninterrupted run over the copy and the stranger."""
    return run(place, "anchor", "copy", "stranger", sae=place.root / "sae")


def scores(store: Path) -> dict:
    (path,) = (p for p in (store / "language-scores").glob("*.safetensors"))
    return read(path)[0]["meta"]


# ------------------------------------------------------------------------------------ findings


def test_a_planted_rotation_is_found_and_a_stranger_is_not_one(place, whole):
    found = scores(place.store("anchor-copy-stranger"))
    assert found["sites"] == list(SITES)
    for site in SITES:
        r = whole["language-maps"][f"{site}/0/r"]
        torch.testing.assert_close(r, place.q.T, atol=1e-4, rtol=0)
        copy, stranger = found["scores"][site]
        assert copy["rotation"]["ev"] > 1 - 1e-6
        assert copy["untouched"]["ev"] < 0.5
        assert stranger["rotation"]["ev"] < 0.8


def test_scores_are_those_of_the_same_tokens_held_in_memory(place, whole):
    found = scores(place.store("anchor-copy-stranger"))["scores"]
    a, b = (activations(seed, place.root / "text.txt") for seed in (1, 0))
    sae = principal_dictionary(b["resid_post_0"], 8)
    for site in SITES:
        fit = a[site][:FIT], b[site][:FIT]
        maps = {
            "shift": shift_only(*fit),
            "rotation": fit_rotation(*fit),
            "affine": affine_least_squares(*fit),
        }
        x, y = a[site][FIT:], b[site][FIT:]
        mapped = {"untouched": x} | {name: each.apply(x) for name, each in maps.items()}
        wanted = {name: explained_variance(y, m) for name, m in mapped.items()}
        if site == "resid_post_0":
            own = {
                "self": y,
                "naive": x,
                "shifted": mapped["shift"],
                "rotated": mapped["rotation"],
            }
            wanted |= {name: explained_variance(z, sae(z)) for name, z in own.items()}
        got = {name: value["ev"] for name, value in found[site][1].items()}
        assert got == pytest.approx(wanted, abs=1e-5)


def test_the_anchors_dictionary_works_through_the_planted_rotation(place, whole):
    copy = scores(place.store("anchor-copy-stranger"))["scores"]["resid_post_0"][0]
    assert copy["rotated"]["ev"] == pytest.approx(copy["self"]["ev"], abs=1e-4)
    assert copy["naive"]["ev"] < copy["self"]["ev"] - 0.05


def test_the_table_has_a_line_for_each_sibling_and_site(place, whole, capsys, monkeypatch):
    # A second run finds everything in the store, and runs the models to look them over alone.
    monkeypatch.setattr(command, "reader", lambda *_: None)
    run(place, "anchor", "copy", "stranger", sae=place.root / "sae")
    lines = capsys.readouterr().out.splitlines()
    head, rule, *body = (line for line in lines if line.startswith("|"))
    assert len({len(line) for line in (head, rule, *body)}) == 1
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in body]
    assert [row[:2] for row in cells] == [[b, s] for b in ("copy", "stranger") for s in SITES]
    assert head.split("|")[9].strip() == "EV rotation"
    assert cells[0][8] == "1.0000"
    assert 0.3 < float(cells[0][5]) < 3  # norm of the first position over the median
    assert cells[0][-1] == ""
    assert cells[1][-1] != ""
    assert sum(line.startswith("language-") for line in lines) == 3


def test_fewer_sites_no_affine_map_and_half_precision(place):
    arguments = place.arguments("anchor", "copy", store="few", sites="resid_post_1")
    more = ["--no-affine", "--dtype=bfloat16", "--precision=float32"]
    assert command.main([*arguments, *more]) == 0
    found = artifacts(place.store("few"))
    assert not [name for name in found["language-moments"] if "covariance" in name]
    assert {name.split("/")[0] for name in found["language-maps"]} == {"resid_post_1"}
    ((copy,),) = scores(place.store("few"))["scores"].values()
    assert set(copy) == {"untouched", "shift", "rotation"}
    assert 0.99 < copy["rotation"]["ev"] < 1 - 1e-6  # bfloat16 keeps 8 bits


# ------------------------------------------------------------------------------ killed, resumed


@pytest.mark.slow  # a process of its own for each
@pytest.mark.parametrize("stage", ["pass 1", "pass 2"])
def test_killed_and_resumed_equals_uninterrupted(place, whole, stage, tmp_path):
    name = stage.replace(" ", "-")
    models = ("anchor", "copy", "stranger")
    arguments = place.arguments(*models, store=name, sae=place.root / "sae", save_every=0)
    killed = run_until_killed(tmp_path, stage, arguments)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    store = place.store(name)
    (left,) = checkpoints(store)
    done, kind = covered(left), left.parent.name
    assert kind == {"pass 1": "language-moments", "pass 2": "language-scores"}[stage]
    assert 0 < done < (FIT if stage == "pass 1" else HELD_OUT) / CONTEXT
    assert kind not in artifacts(store)

    assert command.main(arguments) == 0
    assert not checkpoints(store)
    for kind, tensors in artifacts(store).items():
        for tensor_name, tensor in tensors.items():
            torch.testing.assert_close(
                tensor, whole[kind][tensor_name], rtol=1e-9, atol=1e-9, msg=tensor_name
            )


# -------------------------------------------------------------------------------------- refused


def refused(place: Place, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one line of a refusal; nothing may be left in the store."""
    capsys.readouterr()
    assert command.main(arguments) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(error) == 1
    assert not list(place.root.glob("refused/**/*.safetensors"))
    return error[0]


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        (["anchor"], {}, "one model"),
        (["anchor", "again"], {}, "are one model"),
        (["anchor", "wide"], {}, "width 16 against 24"),
        (["anchor", "deep"], {}, "depth 2 against 3"),
        (["anchor", "foreign"], {}, "different tokenizers"),
        (["anchor", "nowhere"], {}, "nowhere"),
        (["anchor", "copy"], {"tokens": 90_000}, "8992 tokens in 281 sequences of 32"),
        (["anchor", "copy"], {"tokens": 15}, "15 tokens for 16 dimensions"),
        (["anchor", "copy"], {"context": 65}, "--context 65: the models know 64"),
        (["anchor", "copy"], {"sites": "resid_mid_0"}, "no site 'resid_mid_0'; the models have"),
        (["anchor", "copy"], {"sae": "narrow"}, "reads width 8, the models have 16"),
        (["anchor", "copy"], {"sae": "sae", "sites": "resid_pre_0"}, "is of resid_post_0"),
        (["anchor", "copy"], {"text": "absent.txt"}, "absent.txt cannot be read"),
        (["anchor", "copy"], {"text": "latin.txt"}, "not UTF-8 text: byte 3"),
    ],
)
def test_what_cannot_be_judged_is_refused(place, capsys, models, options, message):
    made = {
        "again": lambda path: shutil.copytree(place.root / "anchor", path),
        "wide": lambda path: save(model(0, hidden_size=24), path),
        "deep": lambda path: save(model(0, 3), path),
        "foreign": lambda path: save(model(1), path, reverse=True),
        "narrow": lambda path: save_sae(
            path, principal_dictionary(torch.eye(8), 2), "resid_post_0"
        ),
        "latin.txt": lambda path: path.write_bytes("für".encode("latin-1")[:1] + b"ab\xfc" * 9),
    }
    for name in [*models, *options.values()]:
        if name in made and not (place.root / name).exists():
            made[name](place.root / name)
    for name in ("sae", "text"):
        if name in options:
            options = {**options, name: place.root / options[name]}
    arguments = place.arguments(*models, store="refused", **options)
    assert message in refused(place, capsys, arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_that_is_not_there_is_refused(place, capsys):
    arguments = place.arguments("anchor", "copy", store="refused", device="cuda")
    assert "sees no CUDA device; use --device cpu" in refused(place, capsys, arguments)


def test_a_device_map_without_accelerate_names_the_extra(place, capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "accelerate" else found(name)
    )
    arguments = place.arguments("anchor", "copy", store="refused", device_map="auto")
    assert "pip install polyrot[large]" in refused(place, capsys, arguments)


def test_a_device_map_under_torchrun_is_refused(place, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    arguments = place.arguments("anchor", "copy", store="refused", device_map="auto")
    assert "2 ranks would each do so" in refused(place, capsys, arguments)


def test_models_spread_by_a_device_map_give_the_same_moments(place, whole):
    pytest.importorskip("accelerate", reason="the extra polyrot[large] is not installed")
    spread = '{"gpt_neox": "disk", "lm_head": "cpu"}'
    found = run(place, "anchor", "copy", "stranger", store="spread", device_map=spread)
    for name, tensor in whole["language-moments"].items():
        torch.testing.assert_close(found["language-moments"][name], tensor, rtol=1e-9, atol=1e-9)


def sinking(root: Path) -> None:
    """Two unrelated models whose first position is large."""
    for seed, name in enumerate(("sink_a", "sink_b")):
        torch.manual_seed(seed)
        made = GPT2LMHeadModel(GPT2Config(vocab_size=256, n_embd=16, n_layer=1, n_head=2))
        with torch.no_grad():
            made.transformer.wte.weight.normal_()
            made.transformer.wpe.weight[0] *= 2000
        save(made, root / name)


def test_a_large_first_position_is_said_and_both_figures_are_shown(place, capsys):
    sinking(place.root)
    evs = {}
    for skip, other in ((0, "[1:]"), (1, "[0:]")):
        given = {"sites": "resid_pre_0,resid_post_0", "skip_positions": skip}
        assert command.main(place.arguments("sink_a", "sink_b", store="sinks", **given)) == 0
        shown = capsys.readouterr()
        assert "an attention sink, which may decide every figure that includes it" in shown.err
        assert "text: sequences are cut from a running text, and no special token" in shown.err
        rows = [[cell.strip() for cell in x.split("|")] for x in shown.out.splitlines() if "|" in x]
        head = rows[0]
        for row in rows[2:]:
            cells = dict(zip(head, row, strict=True))
            evs[skip, cells["site"]] = float(cells["EV rotation"])
            assert float(cells["first/median"]) > 3
        assert {site for _, site in evs if _ == skip} == {
            "resid_pre_0",
            "resid_post_0",
            f"resid_pre_0{other}",
            f"resid_post_0{other}",
        }
    for site in ("resid_pre_0", "resid_post_0"):
        assert evs[0, site] == evs[1, f"{site}[0:]"] > 0.8
        assert evs[1, site] == evs[0, f"{site}[1:]"] < 0.5


def test_another_function_or_tokenizer_is_another_artifact(place):
    names = ["anchor", "stranger"]
    options = command.parser().parse_args(place.arguments(*names, sites="resid_post_0"))

    def recipe() -> str:
        job = command.make_job(options, Ranks(), torch.device("cpu"))
        return fingerprint("language-moments", job.recipes()["language-moments"])

    own, config = recipe(), place.root / "stranger" / "config.json"
    before = config.read_text()
    try:
        config.write_text(json.dumps({**json.loads(before), "transformers_version": "9.9.9"}))
        assert recipe() == own
        config.write_text(json.dumps({**json.loads(before), "layer_norm_eps": 0.1}))
        assert recipe() != own
    finally:
        config.write_text(before)


def test_help_explains_every_option():
    for action in command.parser()._actions:
        assert action.help, action.option_strings
    text = command.parser().format_help()
    assert "torchrun --nproc-per-node 2" in text
    assert "||R - I||_F / sqrt(2 d)" in text
