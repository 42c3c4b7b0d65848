"""The table of docs/frontier.md: what two models of a size need."""

from __future__ import annotations

from polyrot.report.markdown import row
from polyrot.streaming.budget import Budget, Models, Rates, budget

GIB = 2**30
PEAK_FORWARD, PEAK_PRODUCTS = 989e12, 67e12
"""Published dense peaks of an H100 (SXM), operations a second: in bfloat16; in float64 by tensor
cores, and in float32 without them."""
FORWARD, BARE = 0.4, 0.5
"""Assumed: what models' forward passes and bare products reach of these peaks."""
PASS = {
    (4096, "float64"): 0.92,
    (4096, "float32"): 0.89,
    (8192, "float64"): 0.92,
    (8192, "float32"): 0.81,
}
"""Measured: what a pass reaches of the rate of bare products, by width and precision of products,
with batches of 4,096 tokens and covariances. A test holds these and FIT against the page's rows of
what was run."""
FIT = {True: 0.66, False: 0.75}
"""Measured: what a fit reaches of the rate of bare products, with covariances and without, at the
largest width that was run."""
DISK, LINK = 1e9, 50e9
"""Assumed, bytes a second: a disk, and the sha256 of what it reads; a card's link to the others
(400 Gbit/s, the published rate of a network card; within a machine it is several times that)."""
TOKENS, HELD_OUT = 2**20, 2**18
EIGHT, SEVENTY = Models(8e9, 4096, 33), Models(70e9, 8192, 81)
ASKED = (
    ("two 8B, 1 rank", 1, "all 33", EIGHT),
    ("two 8B, 8 ranks", 8, "all 33", EIGHT),
    ("two 8B, 1 rank", 1, "5", Models(8e9, 4096, 5)),
    ("two 8B, 8 ranks", 8, "5", Models(8e9, 4096, 5)),
    ("two 70B, 1 rank on 8 cards", 1, "all 81", SEVENTY),
    ("two 70B, 1 rank on 8 cards", 1, "5", Models(70e9, 8192, 5)),
)


def needed(
    models: Models, ranks: int, *, covariances: bool = True, precision: str = "float64"
) -> Budget:
    """What the page says of a run on H100 cards. precision: of the products, see PASS."""
    bare = BARE * PEAK_PRODUCTS
    rates = Rates(
        forward=FORWARD * PEAK_FORWARD,
        products=PASS[models.width, precision] * bare,
        fit=FIT[covariances] * bare,
        disk=DISK,
        link=LINK,
    )
    return budget(models, TOKENS, HELD_OUT, rates, covariances=covariances, ranks=ranks)


def frontier() -> str:
    """Rows of Markdown, one for each of ASKED with covariances and without; then a line on products
    in float32."""
    names = ("models", "sites", "covariances", "sums, GiB", "memory, GiB", "PFLOP")
    lines = [row((*names, "passes, min", "fit, min", "moving, min", "hours")), "|---" * 10 + "|"]
    for name, ranks, sites, models in ASKED:
        for covariances in (True, False):
            found = needed(models, ranks, covariances=covariances)
            figures = (
                f"{found.sums / GIB:.1f}",
                f"{found.memory / GIB:.0f}",
                f"{found.forward / 1e15:.0f} + {found.products / 1e15:.1f}",
                *(f"{60 * h:.1f}" for h in (found.passes, found.fitting, found.moving)),
                f"{found.hours:.2f}",
            )
            lines.append(row((name, sites, "yes" if covariances else "no", *figures)))
    wide, narrow = (3600 * needed(EIGHT, 1, precision=p).passes for p in ("float64", "float32"))
    lines += [
        "",
        f"With `--precision float32` the passes of two 8B on one rank, all 33 sites, take "
        f"{narrow:.0f} s\ninstead of {wide:.0f}: this card's peaks in float32 and float64 are "
        "the same.",
    ]
    return "\n".join(lines)
