"""Pictures of a search: the cell that it found as a graph, and mIoU of all cells against their cost."""

import io
from typing import Any

from common.architectures.record import pareto_front
from papers.dpc.cell import FEATURES, Cell
from papers.dpc.space import CellSpace

INK, PALE, EDGE, FILL = "#1c2024", "#8b949e", "#0b63c4", "#eef2f7"
FRONT, FOUND = "#b8480b", "#b5123f"


def picture(result: dict[str, Any]) -> str | None:
    """The SVG of a search's result (as in `result.json`); None where it is no search."""
    code = result.get("metrics", {}).get("found")
    if code is None:
        return None
    method = result["config"]["method"]
    cell = CellSpace(method["branches"], method["rates"], method["grids"]).decode(tuple(code))
    return draw(cell, result["history"], result["metrics"], result["choices"]["method"].split("/")[-1])


def draw(cell: Cell, history: dict[str, list[float | None]], metrics: dict[str, Any], method: str) -> str:
    """SVG: the graph of a cell; beside it scores against parameters, with the Pareto front.

    Args:
        cell: what was found.
        history: of the search, with `score` and `parameters` of each evaluation.
        metrics: of the run, of which found_test and winner_proxy_rank are told.
        method: the searcher's name.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "reprise", "font.size": 8}):
        canvas = Figure(figsize=(8.2, 4.2), facecolor="white")
        graph, scatter = canvas.add_axes((0.01, 0.03, 0.44, 0.85)), canvas.add_axes((0.54, 0.13, 0.44, 0.75))
        _graph(graph, cell)
        _scatter(scatter, history)
        tested = metrics.get("found_test")
        told = "" if tested is None else f", mIoU {tested:.1f} % on the test split"
        canvas.text(0.02, 0.94, f"found by {method} search{told}", fontsize=9, weight="bold")
        file = io.StringIO()
        canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def places(cell: Cell) -> dict[int, tuple[float, float]]:
    """Where the branches stand, F (-1) at the top: x from 0 to 1 by the leaves below, y by the depth.

    A cell is a tree: each branch stands over the middle of what reads it.
    """
    children: dict[int, list[int]] = {number: [] for number in range(FEATURES, len(cell.branches))}
    for number, (source, _) in enumerate(cell.branches):
        children[source].append(number)
    leaves = [number for number in _downwards(children, FEATURES) if not children[number]]
    across = {number: (2 * place + 1) / (2 * len(leaves)) for place, number in enumerate(leaves)}
    depth = {FEATURES: 0}
    for number, (source, _) in enumerate(cell.branches):
        depth[number] = depth[source] + 1
    for number in reversed(range(FEATURES, len(cell.branches))):
        if children[number]:
            across[number] = sum(across[child] for child in children[number]) / len(children[number])
    return {number: (across[number], -float(depth[number])) for number in children}


def _downwards(children: dict[int, list[int]], number: int) -> list[int]:
    return [number, *(below for child in children[number] for below in _downwards(children, child))]


def _graph(axes: Any, cell: Cell) -> None:
    where = places(cell)
    last = min(y for _, y in where.values()) - 1
    where[len(cell.branches)] = (0.5, last)
    for number, (source, _) in enumerate(cell.branches):
        _arrow(axes, where[source], where[number], EDGE, 1.3)
        _arrow(axes, where[number], where[len(cell.branches)], PALE, 0.6)
    labels = {FEATURES: "F", len(cell.branches): "concat, 1x1"}
    labels |= {number: f"{number}: {operator.label}" for number, (_, operator) in enumerate(cell.branches)}
    for number, (x, y) in where.items():
        box = {"boxstyle": "round,pad=0.35", "facecolor": FILL, "edgecolor": INK, "linewidth": 0.8}
        axes.text(x, y, labels[number], ha="center", va="center", fontsize=7.5, color=INK, bbox=box, zorder=3)
    axes.set_xlim(-0.05, 1.05)
    axes.set_ylim(last - 0.5, 0.5)
    axes.axis("off")


def _arrow(
    axes: Any, start: tuple[float, float], end: tuple[float, float], colour: str, width: float
) -> None:
    shape = {"arrowstyle": "-|>", "color": colour, "linewidth": width, "shrinkA": 9, "shrinkB": 9}
    axes.annotate("", xy=end, xytext=start, arrowprops=shape, zorder=1)


def _scatter(axes: Any, history: dict[str, list[float | None]]) -> None:
    empty: list[float | None] = []
    pairs = zip(history.get("parameters", empty), history.get("score", empty), strict=False)
    points = [(cost, score) for cost, score in pairs if cost is not None and score is not None]
    axes.scatter(*zip(*points, strict=True), s=16, color=EDGE, alpha=0.7, label="cells", zorder=2)
    front = [points[number] for number in pareto_front(points)]
    axes.step(
        *zip(*front, strict=True), where="post", color=FRONT, linewidth=1.2, zorder=1, label="Pareto front"
    )
    axes.scatter(*zip(*front, strict=True), s=22, color=FRONT, zorder=3)
    axes.set_xlabel("parameters of the branches")
    axes.set_ylabel("mIoU in % (validation, stopped early)")
    axes.grid(color="#dfe3e8", linewidth=0.6)
    # above the axes, where it hides no cell
    axes.legend(frameon=False, fontsize=7.5, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
