"""What other tools call the sites of the residual stream, and what it is called here."""

from __future__ import annotations

import re

from polyrot.dictionaries.loading.values import BadDictionary

BLOCK = r"(?!.*(?:vision|visual|audio|encoder))(?:\w+\.)*?(?:layers|h|blocks)\.(\d+)"
"""A block among a model's modules: gpt_neox.layers.3, transformer.h.3, model.layers.3,
model.language_model.layers.3, blocks.3 of a bridge; none of what reads pictures or sound."""
BEHIND = (
    rf"{BLOCK}(?:\.output|\.hook_out|\.hook_resid_post)?",
    r"resid_post(?:_layer)?_(\d+)",
)
"""Of what block N hands on, every spelling; resid_post_layer_3 is dictionary_learning's."""
BEFORE = (
    rf"{BLOCK}(?:\.input|\.hook_in|\.hook_resid_pre)",
    r"resid_pre(?:_layer)?_(\d+)",
)
EMBEDDED = r"(?:gpt_neox\.)?embed_in"
"""What the first block of a GPT-NeoX reads; others scale or add positions in between."""


def site_of(hook: str) -> str:
    """Our site of a hook name: blocks.0.hook_resid_pre is resid_pre_0, blocks.3.hook_resid_pre and
    blocks.2.hook_resid_post are resid_post_2, as are the modules transformer.h.2, model.layers.2
    and gpt_neox.layers.2, what they hand on. Raises BadDictionary for any other.

    >>> site_of("blocks.3.hook_resid_pre"), site_of("model.layers.2"), site_of("blocks.2.hook_out")
    ('resid_post_2', 'resid_post_2', 'resid_post_2')
    """
    if re.fullmatch(EMBEDDED, hook):
        return "resid_pre_0"
    for pattern in BEHIND:
        if found := re.fullmatch(pattern, hook):
            return f"resid_post_{int(found[1])}"
    for pattern in BEFORE:
        if found := re.fullmatch(pattern, hook):
            block = int(found[1])
            return f"resid_post_{block - 1}" if block else "resid_pre_0"
    raise BadDictionary(
        f"hook {hook} is no residual site between blocks (blocks.N.hook_resid_pre, "
        "blocks.N.hook_resid_post, or a block such as model.layers.N)"
    )


def hook_of(site: str) -> str:
    """The inverse of `site_of`. Raises BadDictionary for a site that has no such hook."""
    found = re.fullmatch(r"resid_(pre|post)_(\d+)", site)
    if found is None:
        raise BadDictionary(f"site {site} has no name in SAELens between blocks")
    return f"blocks.{found[2]}.hook_resid_{found[1]}"
