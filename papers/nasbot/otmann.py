"""The distance of two networks of a user's own, with the matching told and drawn.

    python -m papers.nasbot.otmann a.json b.json [--weight 0.25] [--picture matching.svg]

The distance itself stands in `papers.nasbot.distances`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.base.errors import UserError
from papers.nasbot.distances import LEAST_SHARE, STRUCTURAL_WEIGHTS, Matching, Otmann
from papers.nasbot.drawing import matching_svg
from papers.nasbot.graph import Network, read_network


def main(words: Sequence[str] | None = None) -> int:
    """Print the distances of two networks and how their layers are matched; 1 where something is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m papers.nasbot.otmann",
        description="OTMANN distances of two networks, each a JSON file as found.json of a search.",
    )
    parser.add_argument("one", type=Path, help="a network as JSON")
    parser.add_argument("other", type=Path, help="another")
    parser.add_argument("--weight", type=float, default=STRUCTURAL_WEIGHTS[1], help="of the matching (0.25)")
    parser.add_argument("--picture", type=Path, default=None, help="an SVG file to write (matching.svg)")
    chosen = parser.parse_args(words)
    try:
        print(told(chosen.one, chosen.other, chosen.weight, chosen.picture or Path("matching.svg")))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def told(first: Path, second: Path, weight: float, picture: Path) -> str:
    """What the command prints; writes the picture.

    Raises:
        UserError: a file that is no network, two kinds, a weight out of range, a picture that is not written.
    """
    one, other = read_network(first), read_network(second)
    weights = (*STRUCTURAL_WEIGHTS, *([] if weight in STRUCTURAL_WEIGHTS else [weight]))
    otmann = Otmann(weights)
    d, normalised = otmann.pair(one, other)
    matching = otmann.match(one, other, weight)
    lines = [
        f"{first.name}: {_summary(one)}",
        f"{second.name}: {_summary(other)}",
        "structural weight   distance d   normalised",
        *(f"{nu:>17g} {a:>12.6g} {b:>12.6g}" for nu, a, b in zip(weights, d, normalised, strict=True)),
        f"matching at weight {weight:g} (mass, and its cost a unit; layers in topological order from 0):",
        *_pairs(one, other, matching),
    ]
    title = f"{first.stem} and {second.stem}: d = {matching.distance:.5g} at structural weight {weight:g}"
    try:
        picture.write_text(matching_svg(one, other, matching, title))
    except OSError as error:
        raise UserError(f"--picture={picture} cannot be written ({error.strerror})") from error
    return "\n".join([*lines, f"drawn in {picture}"])


def _summary(network: Network) -> str:
    return (
        f"{network.kind}, {len(network)} layers, {len(network.edges)} edges, mass {network.masses.sum():.6g}"
    )


def _pairs(one: Network, other: Network, matching: Matching) -> list[str]:
    least = LEAST_SHARE * min(one.masses.sum(), other.masses.sum())
    lines = [
        f"  {i:>3} {one.layers[i].text:<16} -> {j:>3} {other.layers[j].text:<16} "
        f"{matching.plan[i, j]:>12.6g} {matching.costs[i, j]:>8.4g}"
        for i, j in np.argwhere(matching.plan > least)
    ]
    for network, side, alone in zip((one, other), ("first", "second"), matching.unmatched, strict=True):
        lines += [
            f"  {i:>3} {network.layers[i].text:<16} of the {side} stays alone {alone[i]:>6.6g} {1:>8}"
            for i in np.flatnonzero(alone > least)
        ]
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
