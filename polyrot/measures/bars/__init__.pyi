from . import (
    across as across,
    alignment as alignment,
    bars as bars,
    behaviour as behaviour,
    causal as causal,
    joint as joint,
    kept as kept,
    overlap as overlap,
    parametric as parametric,
    published_search as published_search,
)
