"""Toys whose lenses' answers are known: what is read, attended to and used was put there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from polyrot.dictionaries.sae import Dictionary
from polyrot.measures import component_effects
from polyrot.measures.lenses import (
    circuits,
    graph,
    patching,
    regions,
    specification,
    transcoders,
)
from polyrot.measures.lenses.neurons import Neurons, measure_neurons
from polyrot.measures.lenses.transcoders import TranscoderQuality
from polyrot.runtime.seeding import torch_generator
from polyrot.toy import task
from polyrot.toy.cohort import ToyCohort, split_tokens
from polyrot.toy.folding import Folded, fold
from polyrot.toy.transformer import D_MLP, D_MODEL, N_LAYERS, Params
from tests_unit.maps.rotated_pair import strong_params
from tests_unit.worlds.evidence import Keeping

SEQUENCES, FEW = 80, 8
Change = Callable[[Folded], Folded]


def gained() -> Params:
    """Strong weights behind gains that are not 1, so that folding has something to do."""
    generator = torch_generator(9, "gains")
    return {
        name: x * (0.5 + torch.rand(x.shape, generator=generator)) if name.startswith("norm") else x
        for name, x in strong_params().items()
    }


def unchanged(model: Folded) -> Folded:
    return model


def louder_readers(model: Folded) -> Folded:
    """Another model than the parameters: its output heads read twice as much."""
    return model.replace({f"unembed_{h}": 2 * model[f"unembed_{h}"] for h in task.HEADS})


def blind(model: Folded) -> Folded:
    """Queries of 0: attention is uniform."""
    return model.replace({f"w_q_{i}": torch.zeros_like(model["w_q_0"]) for i in range(N_LAYERS)})


def sharp(model: Folded) -> Folded:
    """Queries so large that each position attends to one."""
    return model.replace({f"w_q_{i}": 1e4 * model[f"w_q_{i}"] for i in range(N_LAYERS)})


def one_head_reads_nothing(model: Folded) -> Folded:
    """The first head's values are of directions that neither embedding nor positions have, at the
    size that they had: its norm is ordinary, and it writes 0."""
    first = torch.cat([model["embed"][0], model["position"][0]]).double()
    unused = torch.linalg.svd(first).Vh[torch.linalg.matrix_rank(first) :].float()
    values = model["w_v_0"].clone()
    inside = values[0, :, :16]
    turned = unused.T @ (unused @ inside)
    values[0, :, :16] = turned * inside.norm() / turned.norm()
    return model.replace({"w_v_0": values})


def every_neuron_fires(model: Folded) -> Folded:
    """Each neuron reads along what comes in at one position of the dictionary split."""
    tokens = split_tokens()["dictionary"][:SEQUENCES]
    for layer in range(N_LAYERS):
        name = f"mlp_in_{layer}"
        x = model.run(tokens, capture=[name]).captured[name][0, tokens != task.PAD]
        drawn = torch.randperm(len(x), generator=torch_generator(3, name))[:D_MLP]
        model = model.replace({f"w_in_{layer}": x[drawn].T[None] / 8})
    return model


def one_neuron(
    tensor: str, column: bool, model: Folded, neuron: int = 17, layer: int = 1
) -> Folded:
    """Its weights of that tensor are 0."""
    weights = model[f"{tensor}_{layer}"].clone()
    (weights[0, :, neuron] if column else weights[0, neuron]).zero_()
    return model.replace({f"{tensor}_{layer}": weights})


def never_fires(model: Folded) -> Folded:
    """One neuron reads nothing."""
    return one_neuron("w_in", True, every_neuron_fires(model))


def writes_nothing(model: Folded) -> Folded:
    """One neuron fires, and writes nothing."""
    return one_neuron("w_out", False, every_neuron_fires(model), layer=0)


class Lensed(ToyCohort):
    """One toy; change: what `folded` makes of it."""

    def __init__(self, change: Change) -> None:
        super().__init__("toy_a", (0,), gained(), [f"lensed, {change.__name__}"])
        self._tokens = {split: x[:SEQUENCES] for split, x in self._tokens.items()}
        self.change = change

    def folded(self, model: int) -> Folded:
        return self.change(super().folded(model))


class Readable:
    """What `measure_readouts` asks of a cohort, and of the one model that it is: at every site and
    component a code of the token's task features, or none, and noise."""

    def __init__(self, code: float) -> None:
        self.code, self.noise = code, torch_generator(0, "noise of a readout")
        self.columns = torch.randn(40, D_MODEL, generator=torch_generator(0, "columns"))

    def __len__(self) -> int:
        return 1

    def folded(self, model: int) -> Readable:
        return self

    def tokens(self, split: str) -> Tensor:
        return task.sequences(200, torch_generator(0, "readouts", split), content_range=(2, 48))

    def run(self, tokens: Tensor, capture: Sequence[str]) -> Any:
        labels = task.label(tokens)
        one_hot = torch.nn.functional.one_hot
        features = [
            labels.depth[..., None].float() / 2,
            one_hot(labels.validity).float(),
            one_hot(tokens, 20).float(),
        ]
        x = torch.cat(features, -1)
        shape = (*tokens.shape, D_MODEL)
        found = {}
        for name in capture:
            noise = torch.randn(shape, generator=self.noise)
            found[name] = (self.code * x @ self.columns[: x.shape[-1]] + noise)[None]
        return SimpleNamespace(captured=found)


@dataclass(frozen=True)
class Lenses(Keeping):
    """The fixtures of `claims/test_lenses.py`.

    code: size of the task's features in what is read. reach: where a region's map is tried, in
    units of the way to its border. use: ablation loss of every head, where it is not measured; of
    one block of sequences 1 less than of the rest where it is `open`. pruned: heads whose every
    edge the pruning cuts. known: share of the MLP that its transcoder is.
    """

    change: Change = unchanged
    code: float = 1.0
    reach: float = 0.5
    use: float | None = None
    open: bool = False
    pruned: tuple[str, ...] = ()
    known: float = 1.0

    @cached_property
    def toy_cohort(self) -> Lensed:
        return Lensed(self.change)

    @property
    def cohort(self) -> Lensed:
        return self.toy_cohort

    @cached_property
    def lenses(self) -> Any:
        cohort = self.toy_cohort
        folded, means = cohort.folded(0), cohort.mean_writes(0)
        few = cohort.tokens("score")[:FEW]
        mean = patching.mean_ablation(folded, means, few)
        if self.use is not None:
            mean = torch.full_like(mean, self.use / len(task.HEADS))
        return SimpleNamespace(
            circuits=circuits.measure_circuits(folded, few),
            patching=SimpleNamespace(
                mean=mean,
                resampled=mean,
                kept=torch.tensor([graph.SENDERS[s] not in self.pruned for _, s in graph.EDGES]),
                left=torch.tensor([0.01]),
            ),
            readouts=specification.measure_readouts(Readable(self.code), 0),  # type: ignore[arg-type]
            regions=self._regions(folded),
        )

    @cached_property
    def attributions(self) -> Any:
        cohort = self.toy_cohort
        few = cohort.intervention_tokens(FEW)
        found = component_effects.mean_ablation_by_block(cohort, 0, few)
        measured, without = found.mean, found.without_each()
        if self.use is not None:
            measured, without = (torch.full_like(x, self.use) for x in (measured, without))
        if self.open:
            without[0] -= 1.0
        return SimpleNamespace(
            components=cohort.components,
            measured=measured[None].numpy(),
            effects_without=torch.stack([without, without], 1)[None].numpy(),
            sequences=(FEW, FEW),
        )

    @cached_property
    def neurons(self) -> Neurons:
        return measure_neurons(self.toy_cohort)

    def _regions(self, folded: Folded) -> Any:
        generator = torch_generator(0, "points of regions")
        x = torch.randn(30, D_MODEL, generator=generator)
        maps = [(folded[f"w_in_{i}"][0], folded[f"w_out_{i}"][0]) for i in range(N_LAYERS)]
        errors = [regions.map_errors(x, *each, generator, reach=self.reach) for each in maps]
        seen = torch.tensor([30])
        return SimpleNamespace(inputs=seen, patterns=seen.expand(2, 1), error=torch.stack(errors))

    @cached_property
    def transcoder_quality(self) -> TranscoderQuality:
        folded = self.toy_cohort.folded(0)
        zero = torch.zeros(D_MODEL)
        whole = [
            Dictionary(
                folded[f"w_in_{i}"][0], torch.zeros(D_MLP), folded[f"w_out_{i}"][0], zero, zero
            )
            for i in range(N_LAYERS)
        ]
        made = [replace(each, w_dec=self.known * each.w_dec) for each in whole]
        return transcoders.judge(self.toy_cohort, 0, made)


def refolded() -> Folded:
    """The gained toy, folded: for tests of what is planted here."""
    return fold(gained())


LENSES = {
    "toy": Lenses(),
    "toy, folded into another": Lenses(louder_readers),
    "no task features": Lenses(code=0.0),
    "uniform attention": Lenses(blind),
    "attention to one position": Lenses(sharp),
    "transcoders that are half the MLP": Lenses(known=0.5),
    "a head that reads nothing": Lenses(one_head_reads_nothing),
    "every head costs a nat": Lenses(use=1.0),
    "every head costs little or nothing": Lenses(use=2e-4, open=True),
    "two heads pruned": Lenses(pruned=("head_0_1", "head_1_3")),
    "every neuron fires": Lenses(every_neuron_fires),
    "a neuron that never fires": Lenses(never_fires),
    "a neuron that writes nothing": Lenses(writes_nothing),
    "points beyond the border": Lenses(reach=50.0),
}
