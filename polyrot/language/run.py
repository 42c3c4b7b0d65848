"""One language model on one batch: a GPT-NeoX as a `polyrot.cohorts.interventions.CleanRun`, any
other as an `OpenRun`.

The components are the residual stream itself at each block's output (protocol, section 9). A
variant differs from the clean run only after the site of the intervention, so that it is computed
from there on, by the model's own blocks; of an architecture that is not known here it is computed
from the start, and its stream exchanged at the site.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from polyrot.language.sites import blocks, capture, hooked, site_names

if TYPE_CHECKING:
    from transformers import GPTNeoXForCausalLM

HEAD = "next_token"
LOGITS = 2**25
"""Logits that are held at once: 128 MiB in float32."""


def _causal_mask(length: int, like: Tensor) -> Tensor:
    """What is added to attention scores, [1, 1, length, length]: without padding one sequence's
    mask is everyone's. (The maker in transformers takes other arguments in each release.)"""
    never = torch.finfo(like.dtype).min
    full = torch.full((length, length), never, dtype=like.dtype, device=like.device)
    return full.triu(1)[None, None]


def _kept(tokens: Tensor, skip: int) -> Tensor:
    """Where there is a next token and the position is not skipped, bool [batch, position]."""
    kept = torch.ones_like(tokens, dtype=torch.bool)
    kept[:, -1] = False
    kept[:, :skip] = False
    return kept


def _but_first(shift: Tensor, skip: int) -> Tensor:
    """`shift` [.., position, width], and nothing at the first positions."""
    return shift if not skip else torch.cat([0 * shift[..., :skip, :], shift[..., skip:, :]], -2)


class LanguageRun:
    """A clean run on tokens int64 [batch, position], in the dtype of the model's weights.

    The model must be in evaluation mode. Nothing follows the last position, so that it has no
    label: `kept` is False there, and neither losses nor KLs nor targets count it. skip: so many
    first positions are not counted either, and what is put in the stream's place is not put there.
    writes: [blocks, batch, position, width], the stream's value at each block's output.
    """

    def __init__(self, model: GPTNeoXForCausalLM, tokens: Tensor, skip: int = 0) -> None:
        if tokens.ndim != 2 or not len(tokens) or tokens.shape[1] < 2:
            raise ValueError(
                f"tokens must be [batch, position] with two positions or more, not "
                f"{list(tokens.shape)}: the last one has no next token"
            )
        self._model, self._blocks = model, blocks(model)
        self._sites = site_names(len(self._blocks))
        self.tokens, self._skip = tokens, skip
        self.kept = _kept(tokens, skip)
        with torch.no_grad():
            x = model.gpt_neox.embed_in(tokens)
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
            self._shared: dict[str, Any] = {
                "position_ids": positions,
                "position_embeddings": model.gpt_neox.rotary_emb(x, position_ids=positions),
                "attention_mask": _causal_mask(tokens.shape[1], x),
            }
            stream = [x]
            for block in self._blocks:
                stream.append(block(stream[-1], **self._shared))
            self._stream = torch.stack(stream)
        self.writes = self._stream[1:]

    def site(self, name: str) -> Tensor:
        """The clean residual stream, [batch, position, width]. Raises KeyError: unknown site."""
        return self._stream[self._number(name)]

    def loss(self, components: Sequence[int], writes: Tensor) -> Tensor:
        """See `CleanRun.loss`: mean next-token cross-entropy, nats."""
        if len(components) != len(writes) or writes.shape[1:] != self.writes.shape[1:]:
            raise ValueError(
                f"{len(components)} components for writes {list(writes.shape)}; each variant needs "
                f"one component and {list(self.writes.shape[1:])}"
            )
        if self._skip:
            own = self.writes[torch.tensor(list(components), device=writes.device)]
            writes = torch.cat([own[:, :, : self._skip], writes[:, :, self._skip :]], dim=2)
        at_once = self._at_once()
        order, losses = [], []
        for component in sorted(set(components)):
            rows = [i for i, c in enumerate(components) if c == component]
            for start in range(0, len(rows), at_once):
                part = rows[start : start + at_once]
                losses.append(self._loss_from(writes[part], component + 1, len(rows) > at_once))
                order += part
        return torch.cat(losses)[torch.tensor(order, device=writes.device).argsort()]

    def outputs(self, site: str, shift: Tensor) -> dict[str, Tensor]:
        """See `CleanRun.outputs`: one head, "next_token". Raises KeyError: unknown site."""
        number = self._number(site)
        parts = [
            self._logits(self._tail(self._stream[number] + part.to(self._stream), number))
            for part in _but_first(shift, self._skip).split(self._at_once())
        ]
        return {HEAD: torch.cat(parts) if len(parts) > 1 else parts[0]}

    def answers(self) -> dict[str, Tensor]:
        """See `OpenRun.answers`: the next token."""
        return {HEAD: self.tokens.roll(-1, dims=1)}

    @torch.no_grad()
    def keys(self, mlp: str) -> Tensor:
        """See `CleanRun.keys`: the hidden activations, after the nonlinearity.

        One block is run again for them: those of all blocks would take four times the room of the
        stream. Raises KeyError: unknown MLP.
        """
        names = [f"mlp_{i}" for i in range(len(self._blocks))]
        if mlp not in names:
            raise KeyError(f"no MLP {mlp!r}; have {', '.join(names)}")
        layer = names.index(mlp)
        found: list[Tensor] = []
        weight = self._blocks[layer].get_submodule("mlp.dense_4h_to_h")
        handle = weight.register_forward_pre_hook(lambda _, args: found.append(args[0]))
        try:
            self._blocks[layer](self._stream[layer], **self._shared)
        finally:
            handle.remove()
        return found[0]

    def _number(self, site: str) -> int:
        if site not in self._sites:
            raise KeyError(f"no such site: {site}; have {', '.join(self._sites)}")
        return self._sites.index(site)

    def _at_once(self) -> int:
        """Variants whose logits may be held at once."""
        vocabulary = self._model.lm_head.weight.shape[0]
        return max(1, LOGITS // (self.tokens.numel() * vocabulary))

    def _tail(self, x: Tensor, site: int) -> Tensor:
        """The last site of x [variants, batch, position, width] given at site number `site`."""
        rows = x.flatten(0, 1)
        for block in list(self._blocks)[site:]:
            rows = block(rows, **self._shared)
        return rows.unflatten(0, x.shape[:2])

    def _logits(self, x: Tensor) -> Tensor:
        return self._model.lm_head(self._model.gpt_neox.final_layer_norm(x))

    def _loss_from(self, x: Tensor, site: int, sparingly: bool) -> Tensor:
        """[variants]. sparingly: what the gradient needs is computed again rather than kept."""
        if sparingly and torch.is_grad_enabled() and x.requires_grad:
            return checkpoint(self._loss_from, x, site, False, use_reentrant=False)
        logits = self._logits(self._tail(x, site)[:, :, self._skip : -1])
        labels = self.tokens[:, self._skip + 1 :].expand(len(x), -1, -1)
        entropy = F.cross_entropy(logits.flatten(0, 2), labels.flatten(), reduction="none")
        return entropy.unflatten(0, (len(x), -1)).mean(1)


class AnyModelRun:
    """See `polyrot.cohorts.interventions.OpenRun`: any causal language model on tokens int64
    [batch, position], in the dtype of its weights. `kept` is False at the last position, which
    nothing follows; skip as of `LanguageRun`.
    """

    def __init__(self, model: nn.Module, tokens: Tensor, skip: int = 0) -> None:
        self._model, self.tokens, self._skip = model, tokens, skip
        self.kept = _kept(tokens, skip)
        self._stream = capture(model, tokens, site_names(len(blocks(model))))

    def site(self, name: str) -> Tensor:
        """See `OpenRun.site`."""
        return self._stream[name]

    def outputs(self, site: str, shift: Tensor) -> dict[str, Tensor]:
        """See `OpenRun.outputs`: one head, "next_token"."""
        found = []
        for part in self.site(site) + _but_first(shift, self._skip).to(self.site(site)):
            with hooked(self._model, {site: lambda _, x=part: x}):  # type: ignore[misc]
                found.append(self._model(input_ids=self.tokens, use_cache=False).logits)
        return {HEAD: torch.stack(found)}

    def answers(self) -> dict[str, Tensor]:
        """See `OpenRun.answers`: the next token."""
        return {HEAD: self.tokens.roll(-1, dims=1)}
