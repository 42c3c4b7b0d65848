"""The table of docs/frontier.md: what two models of a size need."""

from __future__ import annotations

from polyrot.report.markdown import row
from polyrot.streaming.budget import Models, Rates, budget

GIB = 2**30
RATES = Rates(forward=0.4 * 989e12, products=0.5 * 67e12)
"""Of an H100: shares of its published dense peaks in bfloat16 and, by tensor cores, in float64."""
TOKENS, HELD_OUT = 2**20, 2**18
ASKED = (
    ("two 8B", "all 33", Models(8e9, 4096, 33)),
    ("two 8B", "5", Models(8e9, 4096, 5)),
    ("two 70B", "all 81", Models(70e9, 8192, 81)),
    ("two 70B", "5", Models(70e9, 8192, 5)),
)


def frontier() -> str:
    """Rows of Markdown, one for each of ASKED with covariances and without."""
    names = ("models", "sites", "covariances", "weights, GB", "sums, GiB", "batch, GiB")
    lines = [row((*names, "forward, PFLOP", "products, PFLOP", "hours")), "|---" * 9 + "|"]
    for name, sites, models in ASKED:
        for covariances in (True, False):
            found = budget(models, TOKENS, HELD_OUT, RATES, covariances=covariances)
            figures = (
                f"{models.weights / 1e9:.0f}",
                f"{found.sums / GIB:.1f}",
                f"{found.batch / GIB:.1f}",
                f"{found.forward / 1e15:.0f}",
                f"{found.products / 1e15:.1f}",
                f"{found.hours:.2f}",
            )
            lines.append(row((name, sites, "yes" if covariances else "no", *figures)))
    return "\n".join(lines)
