"""The lenses on models whose answers are known."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from polyrot.dictionaries.training import Schedule
from polyrot.measures import component_effects
from polyrot.measures.lenses import (
    circuits,
    graph,
    lenses,
    patching,
    regions,
    specification,
    transcoders,
)
from polyrot.measures.lenses.__main__ import main
from polyrot.measures.lenses.account import account
from polyrot.runtime.seeding import torch_generator
from polyrot.store import Runtime, Store
from polyrot.toy import symmetry, task, transformer
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.folding import fold
from polyrot.toy.transformer import COMPONENTS, HEAD_NAMES
from polyrot.workshop.profiles import PROFILES


def lively(seeds):
    fresh = transformer.initialise(seeds)
    return {n: x if n.startswith("norm") else 8 * x for n, x in fresh.items()}


@pytest.fixture(scope="module")
def cohort():
    return ToyCohort("toy_a", (0, 1), lively([0, 1]), ["for a test"])


@pytest.fixture(scope="module")
def whole(cohort):
    """A graph of one model on a few sequences."""
    means = cohort.mean_writes(0)
    written = dict(zip(COMPONENTS, means, strict=True))
    written["embed"] = cohort.activations("fit", "resid_pre_0")[0].mean(0)
    stacked = torch.stack([written[name] for name in graph.SENDERS])
    return graph.Graph(cohort.folded(0), cohort.tokens("score")[:6], stacked)


def kept(whole):
    return whole.tokens != task.PAD


def test_circuits_are_those_of_the_products(cohort):
    folded = cohort.folded(0)
    found = circuits.measure_circuits(folded, cohort.tokens("score")[:4])
    part = slice(16, 32)
    qk = folded["w_q_1"][0][:, part] @ folded["w_k_1"][0][:, part].T
    ov = folded["w_v_1"][0][:, part] @ folded["w_o_1"][0][part]
    head = HEAD_NAMES.index("head_1_1")
    assert found.qk_norm[head].item() == pytest.approx(float(qk.norm()), rel=1e-5)
    assert found.ov_norm[head].item() == pytest.approx(float(ov.norm()), rel=1e-5)
    assert found.ov[head, 0].item() == pytest.approx(float(torch.linalg.matrix_norm(ov, 2)))


def test_circuits_do_not_depend_on_the_basis(cohort):
    folded, tokens = cohort.folded(0), cohort.tokens("score")[:4]
    parts = ("qk", "vo", "residual")
    turned = symmetry.act(symmetry.random(1, torch_generator(1, "turn"), parts), folded)
    before, after = (circuits.measure_circuits(f, tokens) for f in (folded, turned))
    assert torch.allclose(before.qk, after.qk, atol=1e-4)
    assert torch.allclose(before.ov, after.ov, atol=1e-4)
    assert torch.allclose(before.entropy, after.entropy, atol=1e-5)


def test_entropy_is_1_where_attention_is_uniform_and_0_where_it_is_fixed(cohort):
    folded, tokens = cohort.folded(0), cohort.tokens("score")[:4]
    blind = folded.replace({f"w_q_{i}": torch.zeros(1, 64, 64) for i in range(2)})
    assert torch.allclose(circuits.attention_entropy(blind, tokens), torch.ones(8).double())
    sharp = folded.replace({f"w_q_{i}": 1e4 * folded[f"w_q_{i}"] for i in range(2)})
    assert circuits.attention_entropy(sharp, tokens).max() < 0.05


def test_a_region_has_one_map_and_beyond_its_border_another_holds():
    generator = torch_generator(2, "mlp")
    x = torch.randn(50, 64, generator=generator)
    w_in = torch.randn(64, 256, generator=generator)
    w_out = torch.randn(256, 64, generator=generator)
    assert regions.map_errors(x, w_in, w_out, generator).max() < 1e-10
    assert regions.map_errors(x, w_in, w_out, generator, reach=50.0).min() > 1e-3


def test_patterns_are_counted_exactly():
    generator = torch_generator(3, "patterns")
    distinct = torch.rand(40, 256, generator=generator) < 0.5
    rows = torch.cat([torch.arange(40), torch.randint(40, (200,), generator=generator)])
    keys = regions.pattern_keys(distinct[rows])
    assert len(keys.unique()) == 40
    first = regions.first_of_each(keys)
    assert sorted(first.tolist()) == list(range(40))


def test_graph_is_the_model(cohort, whole):
    logits, run = whole.logits(), cohort.folded(0).run(whole.tokens)
    for head in task.HEADS:
        gap = (logits[head] - run.logits[head][0])[kept(whole)].abs().max()
        assert gap < 1e-4


def test_graph_has_every_edge_once():
    assert len(set(graph.EDGES)) == 54
    names = [graph.edge_name(edge) for edge in graph.EDGES]
    assert "embed -> head_0_2" in names
    assert "head_0_2 -> head_0_3" not in names
    assert "mlp_1 -> output" in names
    assert "mlp_1 -> mlp_0" not in names


def test_cutting_every_edge_out_of_a_component_is_mean_ablation(cohort, whole):
    i = COMPONENTS.index("head_0_1")
    sender = graph.SENDERS.index("head_0_1")
    cut = torch.zeros(11, 11, dtype=torch.bool)
    for r, s in graph.EDGES:
        cut[r, s] = s == sender
    ablated = cohort.folded(0).run(
        whole.tokens, edits={"head_0_1": lambda x: cohort.mean_writes(0)[i].expand_as(x)}
    )
    for head in task.HEADS:
        gap = whole.logits(cut)[head] - ablated.logits[head][0]
        assert gap[kept(whole)].abs().max() < 1e-4


def test_paths_and_pruning(whole):
    paths = graph.path_patching(whole)
    assert paths.min() > -1e-12
    keep, left = graph.prune(whole, threshold=math.inf)
    assert not keep.any()
    assert left > 0
    keep, left = graph.prune(whole, threshold=-math.inf)
    assert keep.all()
    assert left == 0
    some, left = graph.prune(whole, threshold=1e-3)
    assert left < 1e-3 * int((~some).sum()) + 1e-9


def test_mean_ablation_agrees_with_attribution(cohort):
    tokens = cohort.intervention_tokens(8)
    means = cohort.mean_writes(0)
    by_head = patching.mean_ablation(cohort.folded(0), means, tokens)
    expected = component_effects.mean_ablation_by_block(cohort, 0, tokens).mean
    assert torch.allclose(by_head.sum(1), expected.double(), atol=1e-4)


def test_resampling_from_oneself_does_nothing(cohort):
    tokens = cohort.intervention_tokens(1).expand(4, -1)
    found = patching.resample_ablation(cohort.folded(0), tokens, torch_generator(4, "resample"))
    assert found.abs().max() < 1e-5
    other = cohort.intervention_tokens(8)
    found = patching.resample_ablation(cohort.folded(0), other, torch_generator(4, "resample"))
    assert found.abs().max() > 1e-4


def test_readouts_find_what_is_there():
    generator = torch_generator(5, "features")
    tokens = torch.randint(3, 9, (2000,), generator=generator)
    depth = torch.randint(9, (2000,), generator=generator)
    validity = torch.randint(2, (2000,), generator=generator)
    x = torch.randn(2000, 64, generator=generator)
    code = torch.nn.functional.one_hot(tokens, 9).float()
    x[:, :9] += 20 * code
    x[:, 9] = depth
    data = specification.LabelledActivations({"site": x}, tokens, depth, validity)
    r2, valid, family, token = specification._readouts(data, data, "site")
    assert r2 == pytest.approx(1, abs=1e-3)
    assert valid < 0.65
    assert family > 0.99
    assert token > 0.99


def test_roles_tell_idle_from_used():
    chance = torch.tensor([0.0, 0.5, 0.3, 0.2])
    components = chance.expand(10, -1).clone()
    components[0, 0] = 0.9
    ablation = torch.zeros(10, 3)
    ablation[0, 1] = 2.0
    lines = specification.roles(
        specification.Readouts(torch.zeros(5, 4), components, chance), ablation
    )
    assert lines[0] == "writes depth (0.900); the depth head needs it (2.00 nats)"
    assert lines[1].startswith("idle")


def test_everything_is_measured_stored_and_accounted_for(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(patching, "SEQUENCES", 4)
    monkeypatch.setattr(patching, "GRAPH_SEQUENCES", 2)
    monkeypatch.setattr(lenses, "CIRCUIT_SEQUENCES", 4)
    monkeypatch.setattr(regions, "SAMPLED", 20)
    few = {name: tokens[:40] for name, tokens in cohort._tokens.items()}
    monkeypatch.setattr(cohort, "_tokens", few)
    workshop = SimpleNamespace(
        runtime=Runtime(Store(tmp_path)),
        profile=replace(
            PROFILES["tiny"], dictionaries=Schedule(steps=3, batch=8), other_dictionaries=None
        ),
    )
    found = lenses.measure_lenses(workshop, cohort)
    for name in ("circuits", "patching", "regions", "readouts"):
        monkeypatch.setattr(lenses, f"measure_{name}", None)
    again = lenses.measure_lenses(workshop, cohort)
    assert torch.equal(found.patching.paths, again.patching.paths)
    quality = lenses.transcoder_quality(workshop, cohort)
    text = account(again, quality)
    for piece in ("Seed 0", "head_1_3", "mlp_1: EV", "greedy pruning", "roles:"):
        assert piece in text
    assert lenses.transcoder_ev(quality).labels == ("mlp_0", "mlp_1")
    assert lenses.region_errors(again).values[0] < 1e-9
    assert lenses.folding_change(cohort).values.max() < 1e-3


def test_heads_are_chosen_by_what_they_do(cohort):
    folded, tokens = cohort.folded(0), cohort.tokens("score")[:4]
    heads = circuits.measure_circuits(folded, tokens)
    loss = torch.zeros(len(COMPONENTS), len(task.HEADS))
    loss[:8] = 1 + torch.arange(8.0)[:, None] @ torch.ones(1, 3)
    loss[2, task.HEADS.index("depth")] = 99  # the first-layer head that depth needs most
    ov = heads.ov.clone()
    ov[0] *= 1e-3  # the least used head writes next to nothing
    ablated = SimpleNamespace(mean=loss, resampled=2 * loss)
    found = SimpleNamespace(circuits=replace(heads, ov=ov), patching=ablated)
    counter = lenses.depth_counter_entropy(found)
    assert counter.labels == ("head_0_2",)
    assert counter.values[0] == pytest.approx(heads.entropy[2].item())
    least = lenses.least_used_of_ordinary_norm(found)
    assert least.labels == ("head_0_1",)
    assert least.values[0] == pytest.approx(6.0)
    assert least.beside["resample_ablation"] == pytest.approx(12.0)


def test_the_lowest_readout_is_named():
    last = {"depth": 0.99, "validity": 0.97, "family": 0.98, "position": 0.1}
    readouts = SimpleNamespace(last=lambda: last, chance=torch.tensor([0.0, 0.6, 0.3, 0.0]))
    found = lenses.lowest_readout(SimpleNamespace(readouts=readouts))
    assert found.labels == ("validity",)
    assert found.values.tolist() == [0.97]
    assert found.beside["chance_validity"] == pytest.approx(0.6)


def test_transcoders_read_the_normed_input_and_write_the_output(cohort, monkeypatch):
    """A dictionary that is the MLP itself scores 1."""
    from polyrot.dictionaries.sae import Dictionary

    few = {name: tokens[:40] for name, tokens in cohort._tokens.items()}
    monkeypatch.setattr(cohort, "_tokens", few)
    folded = cohort.folded(0)
    zero = torch.zeros
    perfect = [
        Dictionary(folded[f"w_in_{i}"][0], zero(256), folded[f"w_out_{i}"][0], zero(64), zero(64))
        for i in range(2)
    ]
    assert min(transcoders.judge(cohort, 0, perfect).ev) > 1 - 1e-6
    blank = [replace(d, w_dec=zero(256, 64)) for d in perfect]
    assert max(transcoders.judge(cohort, 0, blank).ev) <= 1e-6


def test_command_line_refuses_unknown_seeds(capsys):
    with pytest.raises(SystemExit):
        main(["--seed", "7"])
    assert "invalid choice" in capsys.readouterr().err


def test_one_model_at_a_time(cohort):
    with pytest.raises(ValueError, match="one model at a time"):
        specification.capture(fold(cohort.params), cohort.tokens("score")[:2], ["mlp_0"])
