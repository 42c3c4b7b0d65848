"""Lenses on toys whose answers were put there: world x claim -> verdict."""

from __future__ import annotations

from functools import cache

import pytest

from polyrot.toy.folding import largest_logit_change
from tests_unit.worlds.asked import HELD, REFUTED, UNDECIDED, Case, claim_tests, parameters
from tests_unit.worlds.lensed import LENSES, Lensed, Lenses, one_head_reads_nothing, refolded

CASES = [
    Case("lenses.folding_is_exact", "toy", HELD, "gains are multiplied in"),
    Case("lenses.folding_is_exact", "toy, folded into another", REFUTED, "read twice as much"),
    Case("lenses.roles_regress", "toy", HELD, "planted so"),
    Case("lenses.roles_regress", "no task features", REFUTED, "noise alone"),
    Case("lenses.weights_name_the_depth_counter", "uniform attention", HELD, "planted so"),
    Case("lenses.weights_name_the_depth_counter", "attention to one position", REFUTED, "so"),
    Case("lenses.transcoder", "toy", HELD, "it is the MLP"),
    Case("lenses.transcoder", "transcoders that are half the MLP", REFUTED, "a quarter is left"),
    Case("lenses.causal_agrees_with_norms", "a head that reads nothing", HELD, "planted so"),
    Case("lenses.causal_agrees_with_norms", "every head costs a nat", REFUTED, "planted so"),
    Case("lenses.regions_are_affine", "toy", HELD, "ReLU is"),
    Case("lenses.regions_are_affine", "points beyond the border", REFUTED, "another map holds"),
    Case("lenses.heads_kept", "two heads pruned", HELD, "six of eight are left"),
    Case("lenses.heads_kept", "toy", REFUTED, "all eight are kept"),
    Case("lenses.vestigial_heads", "a head that reads nothing", HELD, "it writes nothing"),
    Case("lenses.vestigial_heads", "every head costs a nat", REFUTED, "planted so"),
    Case(
        "lenses.vestigial_heads", "every head costs little or nothing", UNDECIDED, "few sequences"
    ),
    Case("lenses.all_neurons_alive", "every neuron fires", HELD, "planted so"),
    Case("lenses.all_neurons_alive", "a neuron that never fires", REFUTED, "planted so"),
    Case("lenses.all_neurons_alive", "a neuron that writes nothing", REFUTED, "planted so"),
]


@cache
def measured(world: str) -> Lenses:
    return LENSES[world]


@pytest.mark.slow  # every lens of every toy: a quarter of a minute and more
@pytest.mark.parametrize("case", parameters(CASES))
def test_the_verdict_is_the_planted_one(case: Case) -> None:
    case.check(measured(case.world))


def test_every_claim_of_the_lenses_is_asked_in_worlds_with_either_answer() -> None:
    wanted = {claim for claim in claim_tests() if claim.startswith("lenses.")}
    assert {case.claim for case in CASES} == wanted
    for claim in wanted:
        assert {HELD, REFUTED} <= {case.expected for case in CASES if case.claim == claim}


def test_the_head_that_reads_nothing_is_of_ordinary_norm_and_writes_nothing() -> None:
    model = refolded()
    changed = one_head_reads_nothing(model)
    norms = [float(m["w_v_0"][0, :, :16].norm()) for m in (model, changed)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    tokens = Lensed(one_head_reads_nothing).tokens("score")[:4]
    write = changed.run(tokens, capture=["head_0_0"]).captured["head_0_0"]
    assert float(write.abs().max()) < 1e-3
    runs = [m.run(tokens) for m in (model, changed)]
    assert float(largest_logit_change(*runs, tokens > 0)) > 1e-2
