"""A pair of checkpoints that know something: which word follows which in a text."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import GPTNeoXForCausalLM

from polyrot.runtime.seeding import torch_generator
from tests_unit.language.small_checkpoints import model, tokenizer, vocabulary

ORDER = 5
"""Each word is followed by the one so many further on."""
WORDS = 23


def ids() -> list[int]:
    """Tokens of the text's words, each one token with the space before it."""
    found = [i for word, i in tokenizer().get_vocab().items() if word.startswith("Ġ")]
    return sorted(found)[-WORDS:]


def chained(seed: int = 0, codes: int = WORDS) -> GPTNeoXForCausalLM:
    """Embeds each word by one of so many codes, and reads its successor's logit off that code; the
    blocks add a little. Its norms are plain: a rotation that keeps all-ones changes nothing."""
    made = model(seed, plain_norms=True)
    for name, p in made.named_parameters():
        if "norm" not in name:
            p.mul_(0.2)
    width, known = made.config.hidden_size, ids()
    drawn = torch.randn(codes, width, generator=torch_generator(seed, "codes"))
    drawn = drawn - drawn.mean(1, keepdim=True)
    each = drawn / drawn.square().mean(1, keepdim=True).sqrt()
    by_word = each[torch.arange(WORDS) % codes]
    made.gpt_neox.embed_in.weight[known] = by_word
    made.lm_head.weight.mul_(0)
    made.lm_head.weight[[known[(i + ORDER) % WORDS] for i in range(WORDS)]] = by_word
    return made


def write_chain(path: Path, words: int) -> Path:
    """A text in which every word is followed by its successor, from starts that are drawn."""
    texts = [tokenizer().decode([i]) for i in ids()]
    starts = torch.randint(WORDS, (words // 10,), generator=torch_generator(0, "starts")).tolist()
    lines = ("".join(texts[(s + ORDER * k) % WORDS] for k in range(10)) for s in starts)
    path.write_text("".join(lines), encoding="utf-8")
    return path


assert vocabulary() > WORDS
