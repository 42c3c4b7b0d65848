"""The architecture of the paper's language models, from Pythia-70m's public configuration, and the
same at other widths for models that are trained here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import GPTNeoXConfig


def pythia_70m_config() -> GPTNeoXConfig:
    """Pythia-70m (Biderman et al. 2023, arXiv 2304.01373, table 1; its published config.json)."""
    from transformers import GPTNeoXConfig

    return GPTNeoXConfig(
        vocab_size=50304,
        hidden_size=512,
        num_hidden_layers=6,
        num_attention_heads=8,
        intermediate_size=2048,
        hidden_act="gelu",
        max_position_embeddings=2048,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 0.25,
        },
        use_parallel_residual=True,
        tie_word_embeddings=False,
    )


def n_heads(width: int) -> int:
    """Of a model of this width: heads of 64 at width 512 and more, of 32 below.

    Raises ValueError for a width that is no multiple of the head.

    >>> n_heads(512), n_heads(128)
    (8, 4)
    """
    head = 64 if width >= 512 else 32
    if width < head or width % head:
        raise ValueError(f"a width is a multiple of its heads of {head}, not {width}")
    return width // head


def neox_config(width: int, vocabulary: int, context: int) -> GPTNeoXConfig:
    """Pythia-70m's choices at another width: 6 layers, heads as `n_heads` has them,
    rotary on a quarter of each, parallel residual, LayerNorm, GELU, input and output untied.

    Raises ValueError for a width that is no multiple of the head.
    """
    heads = n_heads(width)
    config = pythia_70m_config()
    config.vocab_size, config.max_position_embeddings = vocabulary, context
    config.hidden_size, config.intermediate_size = width, 4 * width
    config.num_attention_heads = heads
    config.use_cache = False
    config.bos_token_id = config.eos_token_id = 0
    return config


DECISIVE = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "rope_parameters",
    "use_parallel_residual",
    "tie_word_embeddings",
    "attention_bias",
    "layer_norm_eps",
    "initializer_range",
    "attention_dropout",
    "hidden_dropout",
)
"""Fields of a configuration that decide what a model computes and how it starts."""


def recipe(config: GPTNeoXConfig) -> dict[str, object]:
    """What a fingerprint needs to know of a configuration. Not all of it: that names the release of
    transformers too, and a new release would make every trained model a stranger."""
    return {name: getattr(config, name) for name in DECISIVE}


def pythia_70m_parameters() -> int:
    """Parameters of that model, counted on a model built without memory for its weights."""
    from transformers import GPTNeoXForCausalLM

    with torch.device("meta"):
        model = GPTNeoXForCausalLM(pythia_70m_config())
    return sum(p.numel() for p in model.parameters())
