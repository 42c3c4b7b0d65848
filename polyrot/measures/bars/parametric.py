"""Bar P beside its figure: before the refinement, by tensor, and of the anchor with itself.

Of two searches for an alignment, ours (`alignment`) and the pipeline's (`published_search`), claims
of what is left before the refinement take the favourable one. (arXiv 2605.24577, sections 7, 8.4.)
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from polyrot.cohorts.cohort import pair_labels
from polyrot.measured import Measured, favourable, interval_about
from polyrot.measures.bars.alignment import Alignment
from polyrot.measures.bars.bars import by_pair
from polyrot.measures.bars.kept import ALIGNMENT_SEED
from polyrot.measures.bars.published_search import PublishedSearch
from polyrot.toy.cohort import ToyCohort
from polyrot.toy.folding import TENSORS
from polyrot.toy.transformer import N_LAYERS

SECOND_MLP = (f"w_in_{N_LAYERS - 1}", f"w_out_{N_LAYERS - 1}")
OURS, PUBLISHED = "our search", "the pipeline's search"


def by_element(found: Tensor, cohort: ToyCohort) -> Measured:
    """Largest per-tensor MSE of the anchor aligned to itself, by the element that it was turned by:
    arithmetic on weights, without intervals."""
    return Measured(
        found.double().cpu().numpy(),
        tuple(f"element {i}" for i in range(1, len(found) + 1)),
        seeds={"model": cohort.seeds[0], "alignment": ALIGNMENT_SEED},
        counts={"elements": len(found)},
    )


def in_second_mlp(found: Alignment, cohort: ToyCohort) -> Measured:
    """Fraction of pairs whose largest per-tensor MSE, after the refinement, is that of the second
    MLP's weights. Beside, by pair: the tensor, its MSE, and the largest of all other tensors."""
    others = [i for i, name in enumerate(TENSORS) if name not in SECOND_MLP]
    beside: dict[str, float | str] = {}
    for i, label in enumerate(pair_labels(cohort)):
        rest = found.mse[i, others]
        beside |= {
            f"worst_{label}": found.worst_tensor(i),
            f"worst_mse_{label}": float(found.largest[i]),
            f"elsewhere_{label}": TENSORS[others[int(rest.argmax())]],
            f"elsewhere_mse_{label}": float(rest.max()),
        }
    worst = [found.worst_tensor(i) in SECOND_MLP for i in range(len(found.mse))]
    return Measured(
        np.array([float(np.mean(worst))]),
        ("",),
        beside=beside,
        seeds={"models": list(cohort.seeds), "alignment": ALIGNMENT_SEED},
        counts={"pairs": len(worst)},
        unit="fraction",
    )


def before_refinement(found: Alignment, published: PublishedSearch, cohort: ToyCohort) -> Measured:
    """Largest per-tensor MSE by pair before the refinement, by either search; beside it every pair
    of both, and of the pipeline's the best start whose residual stream stays as it is, with the
    tensor that decides there."""
    made = favourable(
        {
            PUBLISHED: by_pair(published.largest, cohort, "positive"),
            OURS: by_pair(found.searched, cohort, "positive"),
        }
    )
    return made.also(**_without_rotation(published, cohort))


def independent_over_shared(
    shared: tuple[Alignment, PublishedSearch],
    independent: tuple[Alignment, PublishedSearch],
    cohort: ToyCohort,
) -> Measured:
    """Mean over pairs of the largest per-tensor MSE before the refinement, of the cohort that
    shares nothing over that of the cohort which shares input and output; by either search.

    cohort: the former. Beside: the same where residual streams stay as they are.
    """
    by_search = {
        PUBLISHED: [x.largest for _, x in (independent, shared)],
        OURS: [x.searched for x, _ in (independent, shared)],
    }
    made = favourable({name: _ratio(*each) for name, each in by_search.items()})
    means = {
        f"{scale} by {name}": float(x.mean())
        for name, each in by_search.items()
        for scale, x in zip(("independent", "shared"), each, strict=True)
    }
    unturned = [x.without_rotation.amax(1) for _, x in (independent, shared)]
    means["ratio_without_rotation"] = float(unturned[0].mean() / unturned[1].mean())
    return made.also(**means, **_without_rotation(independent[1], cohort))


def _ratio(over: Tensor, under: Tensor) -> Measured:
    """Ratio of means, the pairs of either being its samples: their relative errors add up in
    squares, by Welch's degrees of freedom."""
    each = [x.double().cpu().numpy() for x in (over, under)]
    value = float(each[0].mean() / each[1].mean())
    interval = None
    if all(len(x) > 1 for x in each):
        parts = [float(x.var(ddof=1)) / len(x) / float(x.mean()) ** 2 for x in each]
        total = sum(parts)
        spread = sum(part**2 / (len(x) - 1) for part, x in zip(parts, each, strict=True))
        freedom = total**2 / spread if spread else np.inf
        interval = interval_about(value, value * total**0.5, "pairs", "positive", freedom)
    counts = {"pairs": sum(map(len, each))}
    return Measured(np.array([value]), ("",), counts=counts, intervals=(interval,), unit="positive")


def _without_rotation(published: PublishedSearch, cohort: ToyCohort) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    for label, mse in zip(pair_labels(cohort), published.without_rotation, strict=True):
        found[f"without_rotation_{label}"] = float(mse.max())
        found[f"set_by_without_rotation_{label}"] = TENSORS[int(mse.argmax())]
    each = zip(pair_labels(cohort), published.forward.amax(1).tolist(), strict=True)
    return found | {f"rotation_not_transposed_{label}": value for label, value in each}
