"""GPT-NeoX models small enough for tests, and an exact rotated copy of one.

A rotation of the residual stream that leaves the all-ones direction where it is commutes with
LayerNorm's centring, so that with gains of one and biases of zero in the norms a model whose every
reader and writer of the stream is rotated computes the same function.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from polyrot.language.cohort import LanguageCohort
from polyrot.language.directions import Tokenised
from polyrot.runtime.seeding import torch_generator

WIDTH, VOCABULARY, POSITIONS = 16, 61, 12


def tiny(
    seed: int, layers: int = 4, *, plain_norms: bool = False, **options: object
) -> GPTNeoXForCausalLM:
    """Random weights far from the linear regime, in evaluation mode, frozen."""
    config = GPTNeoXConfig(
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": WIDTH,
            "num_hidden_layers": layers,
            "num_attention_heads": 2,
            "intermediate_size": 2 * WIDTH,
            "max_position_embeddings": 2 * POSITIONS,
            "attn_implementation": "sdpa",
            **options,
        }
    )
    model = GPTNeoXForCausalLM(config).eval().requires_grad_(False)
    generator = torch_generator(seed, "tiny language model")
    for name, p in model.named_parameters():
        drawn = torch.randn(p.shape, generator=generator)
        if "norm" in name:
            start = float(name.endswith("weight"))
            p.copy_(start + (0.0 if plain_norms else 0.2) * drawn)
        else:
            p.copy_(drawn * (0.35 if p.ndim == 2 else 0.2))
    return model


def rotation(width: int = WIDTH, seed: int = 0) -> Tensor:
    """Orthogonal q [width, width], float64, with ones @ q = ones; else random."""
    generator = torch_generator(seed, "planted rotation")
    drawn = torch.randn(width, width, generator=generator, dtype=torch.float64)
    drawn[:, 0] = 1
    basis = torch.linalg.qr(drawn).Q
    inner = torch.randn(width - 1, width - 1, generator=generator, dtype=torch.float64)
    turned = torch.block_diag(torch.ones(1, 1).double(), torch.linalg.qr(inner).Q)
    return basis @ turned @ basis.T


def rotated(model: GPTNeoXForCausalLM, q: Tensor) -> GPTNeoXForCausalLM:
    """The same function in another basis: every residual stream x becomes x @ q."""
    made = copy.deepcopy(model).double()
    core = made.gpt_neox
    readers = [made.lm_head]
    for block in core.layers:
        readers += [block.attention.query_key_value, block.mlp.dense_h_to_4h]
        for writer in (block.attention.dense, block.mlp.dense_4h_to_h):
            writer.weight.copy_(q.T @ writer.weight)
            writer.bias.copy_(writer.bias @ q)
    for reader in readers:
        reader.weight.copy_(reader.weight @ q)
    core.embed_in.weight.copy_(core.embed_in.weight @ q)
    return made.float()


def some_tokens(n: int, seed: int, positions: int = POSITIONS) -> Tensor:
    """int64 [n, positions]."""
    generator = torch_generator(seed, "tiny language tokens")
    return torch.randint(VOCABULARY, (n, positions), generator=generator)


def some_phrases(seed: int = 0, length: int = 5) -> dict[str, Tokenised]:
    """Three contrasts of random phrases of unequal lengths, the second by last tokens."""
    made = {}
    for i, name in enumerate(("sentiment", "names", "magnitude")):
        rows = some_tokens(12, 100 * seed + i, length).tolist()
        phrases = tuple(tuple(row[: 2 + j % (length - 1)]) for j, row in enumerate(rows))
        low = 20 * i
        made[name] = Tokenised(
            name,
            phrases[:6],
            phrases[6:],
            tuple(range(low, low + 6)),
            tuple(range(low + 10, low + 14)),
            last_token_only=i == 1,
        )
    return made


def tiny_cohort(
    models: Sequence[GPTNeoXForCausalLM], *, sequences: int = 48, **options: object
) -> LanguageCohort:
    """Of these models, seeds 0 on, with contrasts."""
    splits = ("dictionary", "fit", "score")
    tokens = {split: some_tokens(sequences, i) for i, split in enumerate(splits)}
    given = {
        "seeds": tuple(range(len(models))),
        "tokens": tokens,
        "made_by": ["by hand"],
        "phrases": some_phrases(),
        **options,
    }
    return LanguageCohort("neox", models=models, **given)
