"""Where work is done: what every step that trains or measures needs to be handed, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from polyrot.runtime.progress import Progress, silent
from polyrot.store.store import Store


@dataclass(frozen=True)
class Runtime:
    """A store, the device to compute on ("cpu" or "cuda"), and who is shown how far work is.

    >>> from pathlib import Path
    >>> Runtime(Store(Path("artifacts"))).device
    'cpu'
    """

    store: Store
    device: str = "cpu"
    progress: Progress = silent
