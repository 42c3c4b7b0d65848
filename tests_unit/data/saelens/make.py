"""How the directories beside this file were made, with SAELens 6.54.12 in its own environment:

    python -m venv saelens && saelens/bin/pip install torch==2.13.0 sae-lens==6.54.12
    saelens/bin/python tests_unit/data/saelens/make.py

Each holds what `SAE.save_model` wrote for random weights, and in expected.safetensors inputs with
the features and reconstructions that SAELens's own `encode` and `forward` gave for them after
loading the files again. `topk-version-5` is how a TopK dictionary was written before version 6:
those keys are set by hand, and SAELens read the result.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import sae_lens
import torch
from sae_lens import SAE, JumpReLUSAEConfig, StandardSAEConfig, TopKSAEConfig
from safetensors.torch import save_file

HERE = Path(__file__).parent
WIDTH, FEATURES, TOKENS = 8, 16, 12
METADATA = {"model_name": "pythia-70m-deduped", "hook_name": "blocks.1.hook_resid_post"}

CASES = {
    "standard": StandardSAEConfig(WIDTH, FEATURES),
    "standard-no-input-bias": StandardSAEConfig(WIDTH, FEATURES, apply_b_dec_to_input=False),
    "standard-layer-norm": StandardSAEConfig(WIDTH, FEATURES, normalize_activations="layer_norm"),
    "standard-norm-rescale": StandardSAEConfig(
        WIDTH, FEATURES, normalize_activations="constant_norm_rescale"
    ),
    "jumprelu": JumpReLUSAEConfig(WIDTH, FEATURES),
    "topk": TopKSAEConfig(WIDTH, FEATURES, k=3),
    "topk-decoder-norm": TopKSAEConfig(WIDTH, FEATURES, k=3, rescale_acts_by_decoder_norm=True),
}


def main() -> None:
    for number, (name, config) in enumerate(CASES.items()):
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        for key, value in METADATA.items():
            config.metadata[key] = value
        made = SAE.get_sae_class_for_architecture(config.architecture())(config)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
            if hasattr(made, "threshold"):
                made.threshold.abs_()
        made.save_model(folder)
        expect(folder, generator)
    older(HERE / "topk", HERE / "topk-version-5")
    print(f"made with SAELens {sae_lens.__version__}, torch {torch.__version__}")


def older(source: Path, folder: Path) -> None:
    """The same dictionary as versions before 6 wrote it: TopK as an activation function."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    configuration = {
        "architecture": "standard",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 3},
        "d_in": WIDTH,
        "d_sae": FEATURES,
        "dtype": "torch.float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "finetuning_scaling_factor": False,
        "normalize_activations": "none",
        "hook_head_index": None,
        "hook_layer": 3,
        "sae_lens_training_version": "5.10.0",
        "model_name": "pythia-70m-deduped",
        "hook_name": "blocks.3.hook_resid_pre",
    }
    (folder / "cfg.json").write_text(json.dumps(configuration))
    expect(folder, torch.Generator().manual_seed(100))


def expect(folder: Path, generator: torch.Generator) -> None:
    """Write what SAELens makes of some inputs once it has read `folder`."""
    loaded = SAE.load_from_disk(folder)
    x = 2 * torch.randn(TOKENS, WIDTH, generator=generator) + 0.5
    with torch.no_grad():
        tensors = {"x": x, "features": loaded.encode(x), "reconstruction": loaded(x)}
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "expected.safetensors")


if __name__ == "__main__":
    main()
