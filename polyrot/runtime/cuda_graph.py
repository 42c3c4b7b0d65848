"""A training step on a GPU as one CUDA graph: recorded once, replayed without its launches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
WARM_UP = 3
"""Calls before the recording, in which compilers, allocators and optimisers set themselves up."""


class CudaGraph(Generic[Result]):
    """`step` of tensors on a GPU whose shapes stay the same, which does not look at their values.

    It may write in place to tensors that live outside of it, such as weights and moments. The first
    `WARM_UP` calls run as they are. What later calls return is overwritten by the next.
    """

    def __init__(self, step: Callable[..., Result]) -> None:
        self._step = step
        self._stream = torch.cuda.Stream()
        self._calls = 0
        self._graph = torch.cuda.CUDAGraph()
        self._inputs: list[Tensor] = []
        self._result: Result

    def __call__(self, *inputs: Tensor) -> Result:
        """The step on these inputs; what a later call returns overwrites it."""
        if not self._inputs:  # held from the first call on: other strides would compile anew
            self._inputs = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in inputs]
        for held, x in zip(self._inputs, inputs, strict=True):
            held.copy_(x)
        if self._calls < WARM_UP:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                self._result = self._step(*self._inputs)
            torch.cuda.current_stream().wait_stream(self._stream)
        elif self._calls == WARM_UP:
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._result = self._step(*self._inputs)
        if self._calls >= WARM_UP:
            self._graph.replay()
        self._calls += 1
        return self._result
