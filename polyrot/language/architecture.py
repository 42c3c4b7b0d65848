"""The architecture of the paper's language models, from Pythia-70m's public configuration."""

from __future__ import annotations

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM


def pythia_70m_config() -> GPTNeoXConfig:
    """Pythia-70m (Biderman et al. 2023, arXiv 2304.01373, table 1; its published config.json)."""
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


def pythia_70m_parameters() -> int:
    """Parameters of that model, counted on a model built without memory for its weights."""
    with torch.device("meta"):
        model = GPTNeoXForCausalLM(pythia_70m_config())
    return sum(p.numel() for p in model.parameters())
