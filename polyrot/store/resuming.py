"""Resuming from a checkpoint, where it was made of what the build is made of now."""

from __future__ import annotations

import warnings

from polyrot.store import Artifact, Checkpoint, StoreWarning


def resume(checkpoint: Checkpoint | None, **made_with: str) -> Artifact | None:
    """The saved state, or None: there is none, or not all of `made_with` is the same in its meta.

    made_with: what decides the result without being in the recipe, such as the kind of device on
    which random numbers are drawn. A state that is not used is a StoreWarning.
    """
    saved = None if checkpoint is None else checkpoint.load()
    if checkpoint is None or saved is None:
        return None
    for name, now in made_with.items():
        then = saved.meta.get(name)
        if then != now:
            warnings.warn(
                f"{checkpoint.path} is not used: its {name} is {then}, that of this run {now}; "
                "the build starts from its beginning",
                StoreWarning,
                stacklevel=2,
            )
            return None
    return saved
