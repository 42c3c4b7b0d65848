"""The paper's public pipeline in a directory, and our weights in its classes.

Nothing of it is copied here: `NAMES` says by which names it is asked, and its own code answers.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from polyrot.dictionaries.sae import Dictionary
from polyrot.toy.transformer import D_HEAD, D_MODEL, N_HEADS, N_LAYERS, Params

PACKAGE = "polymorphism"
PLACES = (Path("src") / PACKAGE, Path(PACKAGE), Path())
"""Where the package is looked for: in a checkout of the pipeline, in its src, or it is itself the
directory."""


@dataclass(frozen=True)
class Name:
    """Something of the pipeline: the module below its package, the attribute, how it is called."""

    module: str
    attribute: str
    called: str

    def __str__(self) -> str:
        return f"{PACKAGE}.{self.module}.{self.attribute}"


_TRANSFER = "experiments.cross_seed.exp1d_rotation_audit"
_SPECTRUM = "experiments.scale.eigenvalue_spectrum"
NAMES: Mapping[str, Name] = {
    "model": Name("model", "make_model", "() -> module: tokens -> logits by tok, depth, valid"),
    "fold": Name("rmsnorm_fold", "fold_rmsnorm", "(model) -> model whose gains are 1"),
    "labels": Name("task", "label_sequence", "(tokens) -> tok, depth, valid, mask"),
    "accuracy": Name(
        "experiments.cross_seed.utils", "evaluate_outputs", "(model, batch, device) -> acc_tok, ..."
    ),
    "activations": Name(
        "experiments.cross_seed.utils",
        "collect_acts_flat",
        "(model, sites, batch, device) -> site -> [tokens, d]",
    ),
    "sae": Name("analysis.lens2_saes", "SAE", "(config) -> module with W_enc, W_dec, ..."),
    "sae_config": Name("analysis.lens2_saes", "SAEConfig", "(d_in=, expansion=) -> config"),
    "ev": Name(_TRANSFER, "sae_metrics", "(sae, activations) -> explained_var"),
    "rotation": Name(_TRANSFER, "best_orthogonal", "(sibling, anchor) -> R [d, d]"),
    "match": Name(
        "analysis.lens2_saes",
        "cross_seed_feature_stability",
        "(state of a, state of b) -> fraction_stable, mean_max_cos",
    ),
    "phases": Name(_SPECTRUM, "eigen_angles", "(R) -> [d]"),
    "ks": Name(_SPECTRUM, "ks_test_uniform", "(phases, reference) -> ks_stat, ks_pvalue"),
    "permutation": Name(_SPECTRUM, "best_permutation_distance", "(R) -> distance"),
    "patching": Name(
        "analysis.lens3_causal", "attribution_patch", "(model, batch, means) -> predicted_effects"
    ),
    "gradients": Name(
        "analysis.lens3_causal",
        "integrated_gradients_patch",
        "(model, batch, means, n_steps=, per_component=) -> effect by component",
    ),
    "mse": Name(
        "verification.bar_parametric", "per_tensor_mse", "(tensors, tensors) -> tensor -> mse"
    ),
}
"""What is asked of the pipeline."""

HEADS = {"token": "tok", "depth": "depth", "validity": "valid"}
"""Our name of an output head -> the pipeline's."""


class NoPipeline(ValueError):
    """The directory holds no pipeline; the message says where it was looked for."""


class Missing(LookupError):
    """The pipeline lacks something it is asked for, or has it in another form."""


@dataclass(frozen=True)
class Pipeline:
    """An imported pipeline; `pipeline["labels"]` is the function of `NAMES` of that key.

    folder: of its package.
    """

    folder: Path
    _modules: dict[str, ModuleType | str] = field(default_factory=dict, repr=False)

    def __getitem__(self, key: str) -> Any:
        """Raises Missing: no such module, one that cannot be imported, no such attribute."""
        name = NAMES[key]
        module = self._module(f"{PACKAGE}.{name.module}")
        if not hasattr(module, name.attribute):
            raise Missing(f"{PACKAGE}.{name.module} has no {name.attribute}{name.called}")
        return getattr(module, name.attribute)

    def _module(self, dotted: str) -> ModuleType:
        if dotted not in self._modules:
            try:
                self._modules[dotted] = importlib.import_module(dotted)
            except (Exception, SystemExit) as error:  # any code may stand there
                self._modules[dotted] = f"{dotted} cannot be imported: {error}"
        found = self._modules[dotted]
        if isinstance(found, str):
            raise Missing(found)
        return found

    def model(self, params: Params, model: int) -> torch.nn.Module:
        """The pipeline's model with our weights of number `model`; its buffers are its own.

        Raises Missing where its parameters are others, naming them.
        """
        made: torch.nn.Module = self["model"]()
        _fill(made, weights({name: p[model].cpu() for name, p in params.items()}), NAMES["model"])
        return made.eval()

    def sae(self, dictionary: Dictionary) -> torch.nn.Module:
        """The pipeline's SAE with our weights. Raises Missing as `model`."""
        config = self["sae_config"](
            d_in=dictionary.d_in, expansion=dictionary.n_features // dictionary.d_in
        )
        made: torch.nn.Module = self["sae"](config)
        _fill(made, sae_state(dictionary), NAMES["sae"])
        return made.eval()


@contextmanager
def opened(directory: Path) -> Iterator[Pipeline]:
    """The pipeline of a directory, importable inside of the block and forgotten after it.

    Runs the code that stands there; writes no bytecode beside it. Raises NoPipeline.
    """
    folder = _folder(Path(directory))
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if _belongs(name)}
    path, bytecode = list(sys.path), sys.dont_write_bytecode
    sys.path.insert(0, str(folder.parent))
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield Pipeline(folder)
    finally:
        for name in [name for name in sys.modules if _belongs(name)]:
            del sys.modules[name]
        sys.modules.update(hidden)
        sys.path[:] = path
        sys.dont_write_bytecode = bytecode


def _belongs(module: str) -> bool:
    return module.partition(".")[0] == PACKAGE


def _folder(directory: Path) -> Path:
    if not directory.is_dir():
        raise NoPipeline(f"{directory}: no such directory")
    for place in PLACES:
        folder = (directory / place).resolve()
        if folder.name == PACKAGE and (folder / "__init__.py").is_file():
            return folder
    looked = " or ".join((directory / place / "__init__.py").as_posix() for place in PLACES[:2])
    raise NoPipeline(
        f"{directory}: no package {PACKAGE!r} (looked for {looked}); name a checkout of the "
        "paper's public pipeline"
    )


def weights(params: Params) -> dict[str, Tensor]:
    """One model's weights, as in `polyrot.toy.transformer` without the leading dimension, by the
    pipeline's names and in its layout: weights act from the left, heads lead.

    W_Q, W_K, W_V [heads, d_head, d], W_O [heads, d, d_head], all others [out, in].
    """
    found = {"W_E": params["embed"], "ln_f.gain": params["norm_final"]}
    for ours, theirs in HEADS.items():
        found[f"W_U_{theirs}"] = params[f"unembed_{ours}"].T
    for layer in range(N_LAYERS):
        block = f"blocks.{layer}"
        found[f"{block}.ln1.gain"] = params[f"norm_attn_{layer}"]
        found[f"{block}.ln2.gain"] = params[f"norm_mlp_{layer}"]
        for name in "qkv":
            by_head = params[f"w_{name}_{layer}"].T.reshape(N_HEADS, D_HEAD, D_MODEL)
            found[f"{block}.attn.W_{name.upper()}"] = by_head
        by_head = params[f"w_o_{layer}"].reshape(N_HEADS, D_HEAD, D_MODEL)
        found[f"{block}.attn.W_O"] = by_head.transpose(1, 2)
        found[f"{block}.mlp.W_in"] = params[f"w_in_{layer}"].T
        found[f"{block}.mlp.W_out"] = params[f"w_out_{layer}"].T
    return found


def sae_state(dictionary: Dictionary) -> dict[str, Tensor]:
    """An SAE's weights by the pipeline's names: W_enc [features, d], W_dec [d, features]."""
    made = {
        "pre_bias": dictionary.b_in,
        "W_enc": dictionary.w_enc.T,
        "b_enc": dictionary.b_enc,
        "W_dec": dictionary.decoder,
    }
    return {name: x.float().cpu() for name, x in made.items()}


def component(ours: str) -> str:
    """The pipeline's name of a component: head_0_2 is attn_0_h2, MLPs have the same name."""
    kind, layer, *head = ours.split("_")
    return f"attn_{layer}_h{head[0]}" if kind == "head" else ours


def tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    """What the pipeline compares of two models: parameters and the position buffer."""
    found = {name: p.detach() for name, p in model.named_parameters()}
    return found | {name: b for name, b in model.named_buffers() if name == "W_pos"}


def _fill(module: torch.nn.Module, state: Mapping[str, Tensor], what: Name) -> None:
    """Put our weights in place of the parameters of a module of the pipeline."""
    there = {name: tuple(p.shape) for name, p in module.named_parameters()}
    given = {name: tuple(p.shape) for name, p in state.items()}
    if there != given:
        other = [
            f"{name} {there.get(name, 'is not there')} where {given.get(name, 'nothing')} is given"
            for name in sorted({*there, *given})
            if there.get(name) != given.get(name)
        ]
        raise Missing(f"{what} has other parameters: {'; '.join(other)}")
    module.load_state_dict({name: p.contiguous() for name, p in state.items()}, strict=False)
