"""The residual stream of any causal language model of `transformers`, by named site.

`resid_pre_0` is what the first block reads, `resid_post_i` what block i hands on. They are taken
with hooks on the blocks: a model's own `hidden_states` end behind the last norm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Edit = Callable[[Tensor], Tensor]
"""From a site's value [batch, position, width] to what is to stand in its place."""


def blocks(model: nn.Module) -> nn.ModuleList:
    """The model's decoder blocks, in order.

    Raises ValueError if there is no one list of as many modules as the configuration names layers.
    """
    config: Any = model.config
    n = int(config.get_text_config().num_hidden_layers)
    found = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == n]
    if not found:
        raise ValueError(
            f"no list of {n} blocks in {type(model).__name__}: only decoder-only models can be read"
        )
    return found[0]  # outermost first: a list inside of a block comes later


def site_names(n_layers: int) -> tuple[str, ...]:
    """`resid_pre_0` and every `resid_post_i`."""
    return ("resid_pre_0", *(f"resid_post_{i}" for i in range(n_layers)))


def width_of(model: nn.Module) -> int:
    """Dimensions of the residual stream."""
    config: Any = model.config
    return int(config.get_text_config().hidden_size)


@contextmanager
def hooked(model: nn.Module, edits: Mapping[str, Edit]) -> Iterator[None]:
    """While open, every run of `model` has the sites in `edits` passed through their function.

    A function that returns its argument only looks. Raises KeyError for an unknown site.
    """
    stack = blocks(model)
    known = site_names(len(stack))
    handles = []
    try:
        for site, edit in edits.items():
            if site not in known:
                raise KeyError(f"no such site: {site}; have {', '.join(known)}")
            if site == "resid_pre_0":
                handle = stack[0].register_forward_pre_hook(_before(edit), with_kwargs=True)
            else:
                handle = stack[int(site.rsplit("_", 1)[1])].register_forward_hook(_after(edit))
            handles.append(handle)
        yield
    finally:
        for handle in handles:
            handle.remove()


def _before(edit: Edit) -> Callable[..., Any]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (edit(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

    return hook


def _after(edit: Edit) -> Callable[..., Any]:
    def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, tuple):
            return (edit(output[0]), *output[1:])
        return edit(output)

    return hook


@torch.no_grad()
def capture(model: nn.Module, tokens: Tensor, sites: Sequence[str]) -> dict[str, Tensor]:
    """One run on tokens int64 [batch, position]: site -> [batch, position, width]."""
    found: dict[str, Tensor] = {}

    def keep(site: str) -> Edit:
        def look(x: Tensor) -> Tensor:
            found[site] = x.detach()
            return x

        return look

    with hooked(model, {site: keep(site) for site in sites}):
        model(input_ids=tokens, use_cache=False)
    return found
