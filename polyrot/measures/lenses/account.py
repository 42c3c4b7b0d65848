"""A readable account of one seed through the five lenses, as plain text."""

from __future__ import annotations

from collections.abc import Iterator

from polyrot.measures.lenses.graph import EDGES, edge_name
from polyrot.measures.lenses.lenses import Lenses
from polyrot.measures.lenses.specification import FEATURES
from polyrot.measures.lenses.transcoders import TranscoderQuality
from polyrot.toy import task
from polyrot.toy.transformer import COMPONENTS, HEAD_NAMES, SITES


def account(found: Lenses, transcoders: TranscoderQuality | None) -> str:
    """The whole account; without transcoders where none are to be trained."""
    lines = [f"Seed {found.seed} through five lenses", ""]
    for part in (_weights, _interventions, _regions, _specification):
        if part is _interventions:
            lines += [*_dictionaries(transcoders), ""]
        lines += [*part(found), ""]
    return "\n".join(lines)


def _weights(found: Lenses) -> Iterator[str]:
    yield "1. Weights: QK and OV circuits of the folded model"
    yield "   head       |QK|    |OV|  leading singular values of OV   attention entropy"
    circuits = found.circuits
    for i, name in enumerate(HEAD_NAMES):
        leading = " ".join(f"{s:6.2f}" for s in circuits.ov[i, :4].tolist())
        yield (
            f"   {name}  {float(circuits.qk_norm[i]):6.2f}  {float(circuits.ov_norm[i]):6.2f}"
            f"  {leading}      {float(circuits.entropy[i]):.3f} of uniform"
        )


def _dictionaries(found: TranscoderQuality | None) -> Iterator[str]:
    yield "2. Dictionaries: transcoders, normed MLP input to MLP output"
    if found is None:
        yield "   not asked for: run without --no-transcoders"
        return
    for layer, (ev, l0, dead) in enumerate(zip(found.ev, found.l0, found.dead, strict=True)):
        yield f"   mlp_{layer}: EV {ev:.4f}, {l0:.1f} features active a token, {dead:.0%} dead"


def _interventions(found: Lenses) -> Iterator[str]:
    yield "3. Interventions: loss rise in nats by output head; mean ablation | resample ablation"
    yield (
        "   component  "
        + "".join(f"{h:>10}" for h in task.HEADS)
        + "  |"
        + "".join(f"{h:>10}" for h in task.HEADS)
    )
    patching = found.patching
    for i, name in enumerate(COMPONENTS):
        mean, resampled = (
            "".join(f"{x:10.4f}" for x in table[i].tolist())
            for table in (patching.mean, patching.resampled)
        )
        yield f"   {name:<10} {mean}  |{resampled}"
    strongest = sorted(zip(patching.paths.tolist(), EDGES, strict=True), reverse=True)[:8]
    yield "   paths whose cut costs most (KL): " + ", ".join(
        f"{edge_name(edge)} {kl:.2f}" for kl, edge in strongest
    )
    kept = patching.kept.tolist()
    cut = [edge_name(edge) for edge, keep in zip(EDGES, kept, strict=True) if not keep]
    yield (
        f"   greedy pruning at 1e-3 keeps {sum(kept)} of {len(EDGES)} edges, "
        f"KL {float(patching.left):.4f}; it cuts: {', '.join(cut) or 'none'}"
    )


def _regions(found: Lenses) -> Iterator[str]:
    yield "4. Regions: distinct activation patterns among the inputs seen"
    regions = found.regions
    yield "   inputs " + "".join(f"{n:>9,}" for n in regions.inputs.tolist())
    for layer, row in enumerate(regions.patterns):
        yield f"   mlp_{layer}  " + "".join(f"{n:>9,}" for n in row.tolist())
    yield f"   largest relative error of a region's map: {float(regions.error.max()):.1e}"


def _specification(found: Lenses) -> Iterator[str]:
    yield "5. Specification: what linear readouts find (R^2 of depth, accuracy of the others)"
    yield "   site         " + "".join(f"{f:>10}" for f in FEATURES)
    readouts = found.readouts
    for name, row in zip(SITES, readouts.sites.tolist(), strict=True):
        yield f"   {name:<13}" + "".join(f"{x:10.4f}" for x in row)
    yield "   constant     " + "".join(f"{x:10.4f}" for x in readouts.chance.tolist())
    yield "   roles:"
    for name, role in zip(COMPONENTS, found.roles(), strict=True):
        yield f"     {name:<9} {role}"
