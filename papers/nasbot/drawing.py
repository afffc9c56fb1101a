"""Networks as graphs, and the matching of two of them, as SVG."""

import io
from typing import Any

import numpy as np

from papers.nasbot.distances import LEAST_SHARE, Matching
from papers.nasbot.graph import DECISIONS, POOLS, Network

INK, PALE, EDGE = "#1c2024", "#8b949e", "#0b63c4"
FILLS = {"ip": "#e6f4ea", "op": "#e6f4ea", "fc": "#fff4d6", **dict.fromkeys(POOLS, "#f1e8fb")}
DECISION_FILL, LAYER_FILL = "#fde8e8", "#eef2f7"
STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "reprise", "font.size": 8}
# inches of a layer's row, and of the picture
ROW, LOWEST, HIGHEST = 0.24, 3.0, 14.0


def height_for(*networks: Network) -> float:
    """Inches that the deepest of some networks takes."""
    rows = max(float(network.path_lengths[-1, 0, 0, 1]) + 1 for network in networks)
    return float(np.clip(ROW * rows + 1.0, LOWEST, HIGHEST))


def places(network: Network) -> np.ndarray:
    """Where the layers stand, [n, 2]: x in (0, 1), layers of a depth side by side; y minus the depth.

    The depth is the longest path from the input. Layers of a row stand in the order of their parents.
    """
    depth = network.path_lengths[:, 0, 0, 1]
    found = np.zeros((len(network), 2))
    for level in np.unique(depth):
        row = [int(number) for number in np.flatnonzero(depth == level)]
        row.sort(key=lambda number: (_middle(network, number, found), number))
        for place, number in enumerate(row):
            found[number] = (2 * place + 1) / (2 * len(row)), -level
    return found


def _middle(network: Network, number: int, found: np.ndarray) -> float:
    parents = network.parents[number]
    return float(np.mean([found[parent, 0] for parent in parents])) if parents else 0.5


def draw_network(axes: Any, network: Network, left: float = 0.0, width: float = 1.0) -> np.ndarray:
    """Draw a network into axes, within [left, left + width]; where its layers stand."""
    where = places(network)
    where[:, 0] = left + width * where[:, 0]
    deepest = float(-where[:, 1].min())
    size = 7.0 if deepest < 30 else 5.0
    for u, v in network.edges:
        far = where[u, 1] - where[v, 1] > 1.5
        bend = f"arc3,rad={0.25 if far else 0.0}"
        shape = {"arrowstyle": "-|>", "color": EDGE if far else PALE, "linewidth": 0.8, "shrinkA": 5,
                 "shrinkB": 5, "connectionstyle": bend}  # fmt: skip
        axes.annotate("", xy=where[v], xytext=where[u], arrowprops=shape, zorder=1)
    for layer, (x, y) in zip(network.layers, where, strict=True):
        fill = FILLS.get(layer.label, DECISION_FILL if layer.label in DECISIONS else LAYER_FILL)
        box = {"boxstyle": "round,pad=0.2", "facecolor": fill, "edgecolor": INK, "linewidth": 0.5}
        axes.text(x, y, layer.text, ha="center", va="center", fontsize=size, color=INK, bbox=box, zorder=3)
    axes.set_ylim(min(-deepest - 0.7, axes.get_ylim()[0]), 0.7)
    axes.axis("off")
    return where


def matching_svg(one: Network, other: Network, matching: Matching, title: str) -> str:
    """SVG of two networks side by side: matched layers joined, a line's width by the mass that it carries.

    Lines are blue where the labels agree and red where they do not; layers whose mass stays without a
    partner, all or in part, have a red frame.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        canvas = Figure(figsize=(9.0, height_for(one, other)), facecolor="white")
        axes = canvas.add_axes((0.01, 0.01, 0.98, 0.9))
        axes.set_xlim(0, 1)
        left, right = draw_network(axes, one, 0.0, 0.4), draw_network(axes, other, 0.6, 0.4)
        largest = max(float(matching.plan.max()), 1e-300)
        for i, j in np.argwhere(matching.plan > LEAST_SHARE * largest):
            same = one.layers[i].label == other.layers[j].label
            thick = 0.4 + 3.0 * np.sqrt(matching.plan[i, j] / largest)
            axes.plot(*zip(left[i], right[j], strict=True), color="#0b63c4" if same else "#b5123f",
                      linewidth=thick, alpha=0.5, zorder=2)  # fmt: skip
        for where, network, alone in zip((left, right), (one, other), matching.unmatched, strict=True):
            lonely = alone > LEAST_SHARE * network.masses
            axes.scatter(
                where[lonely, 0],
                where[lonely, 1],
                s=260,
                facecolor="none",
                edgecolor="#b5123f",
                linewidth=1.0,
                zorder=4,
            )
        canvas.text(0.02, 0.95, title, fontsize=9, weight="bold")
        file = io.StringIO()
        canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
