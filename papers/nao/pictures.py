"""Pictures of a search: the cells that it found as graphs, and its scores, evaluation by evaluation."""

import io
from typing import Any

from papers.nao.cell import INPUTS, Cell, loose_ends
from papers.nao.space import ConvSpace

INK, PALE, EDGE, FILL = "#1c2024", "#8b949e", "#0b63c4", "#eef2f7"
BEST, EXPECTED = "#b8480b", "#2a7f3f"
# what is maximised, by `paper.score`
SCORES = {"loss": "-{} loss (nats)", "accuracy": "{} accuracy (%)"}


def picture(result: dict[str, Any]) -> str | None:
    """The SVG of a search's result (as in `result.json`); None where it is no search for cells."""
    code, method = result.get("metrics", {}).get("found"), result.get("config", {}).get("method", {})
    if code is None or "operations" not in method:
        return None
    space = ConvSpace(method["nodes"], tuple(method["operations"]), method["one_cell"], method["tokens"])
    found = space.decode(tuple(code))
    cells = (
        {"cell": found.normal} if space.one_cell else {"normal": found.normal, "reduction": found.reduction}
    )
    history, method = result.get("history", {}), result["choices"]["method"].split("/")[-1]
    return draw(cells, history, method, _labels(history, result["config"].get("paper", {})))


def _labels(history: dict[str, list[float | None]], settings: dict[str, Any]) -> tuple[str, str]:
    """What the steps of a search count, and what its scores are, with their unit."""
    if "pool_mean" in history:
        return "steps of the shared network", "validation accuracy (%)"
    score = SCORES.get(settings.get("score", ""), "{} score")
    return "networks evaluated", score.format(settings.get("score_split", "validation"))


def draw(
    cells: dict[str, Cell], history: dict[str, list[float | None]], method: str, labels: tuple[str, str]
) -> str:
    """SVG: a graph for each cell; below them scores by evaluation, their best so far, and what was expected.

    Args:
        cells: by name.
        history: of the search, with `score`, `best` and, of planned ones, `expected` of each evaluation; of
            shared weights `pool_mean` and `pool_best` of each scoring.
        method: the searcher's name.
        labels: what its steps and its scores are.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "reprise", "font.size": 8}):
        height = 3.2 * len(cells) + 2.6
        canvas = Figure(figsize=(8.2, height), facecolor="white")
        for number, (name, cell) in enumerate(cells.items(), 1):
            axes = canvas.add_axes((0.01, 1 - (0.4 + 3.2 * number) / height, 0.98, 2.9 / height))
            _graph(axes, cell)
            axes.set_title(name, fontsize=8, color=PALE)
        _curve(canvas.add_axes((0.09, 0.5 / height, 0.88, 1.6 / height)), history, labels)
        canvas.text(0.02, 1 - 0.25 / height, f"found by {method}", fontsize=9, weight="bold")
        file = io.StringIO()
        canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def places(cell: Cell) -> dict[int, tuple[float, float]]:
    """Where inputs (0, 1) and nodes (2, ...) stand: y by the longest way from an input, x side by side."""
    depth = {0: 0, 1: 0}
    for number, node in enumerate(cell, INPUTS):
        depth[number] = 1 + max(depth[branch.source] for branch in node)
    rows: dict[int, list[int]] = {}
    for state, level in depth.items():
        rows.setdefault(level, []).append(state)
    return {
        state: ((2 * at + 1) / (2 * len(row)), -float(level))
        for level, row in rows.items()
        for at, state in enumerate(row)
    }


def _graph(axes: Any, cell: Cell) -> None:
    where = places(cell)
    last = min(y for _, y in where.values()) - 1
    end = INPUTS + len(cell)
    where[end] = (0.5, last)
    labels = {0: "h-2", 1: "h-1", end: "concat"} | {k: str(k - INPUTS + 1) for k in range(INPUTS, end)}
    texts = dict(labels)
    for number, node in enumerate(cell, INPUTS):
        for half, branch in enumerate(node):
            _arrow(axes, where[branch.source], where[number], EDGE, 0.12 if half else -0.12)
        first, second = (f"{b.operation.replace('_', ' ')} of {labels[b.source]}" for b in node)
        texts[number] = f"{labels[number]}\n{first}\n+ {second}"
    for state in loose_ends(cell):
        _arrow(axes, where[state], where[end], PALE, 0.0)
    for number, (x, y) in where.items():
        box = {"boxstyle": "round,pad=0.3", "facecolor": FILL, "edgecolor": INK, "linewidth": 0.8}
        axes.text(x, y, texts[number], ha="center", va="center", fontsize=6.5, color=INK, bbox=box, zorder=3)
    axes.set_xlim(-0.05, 1.05)
    axes.set_ylim(last - 0.4, 0.4)
    axes.axis("off")


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], colour: str, bend: float) -> None:
    shape = {"arrowstyle": "-|>", "color": colour, "linewidth": 0.9, "shrinkA": 9, "shrinkB": 13}
    shape["connectionstyle"] = f"arc3,rad={bend}"
    axes.annotate("", xy=end, xytext=start, arrowprops=shape, zorder=1)


def _curve(axes: Any, history: dict[str, list[float | None]], labels: tuple[str, str]) -> None:
    steps = history.get("step", [])
    shown = {
        "score": (EDGE, "evaluated", "o"), "pool_mean": (EDGE, "mean of the pool", "o"),
        "expected": (EXPECTED, "expected by the predictor", "x"),
    }  # fmt: skip
    for name, (colour, label, marker) in shown.items():
        pairs = zip(steps, history.get(name, []), strict=False)
        points = [(step, value) for step, value in pairs if value is not None]
        if points:
            axes.scatter(*zip(*points, strict=True), s=12, color=colour, marker=marker, label=label, zorder=2)
    for name, label in (("best", "best so far"), ("pool_best", "best of the pool")):
        pairs = zip(steps, history.get(name, []), strict=False)
        points = [(step, value) for step, value in pairs if value is not None]
        if points:
            axes.step(*zip(*points, strict=True), where="post", color=BEST, linewidth=1.2, label=label)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(color="#dfe3e8", linewidth=0.6)
    if axes.get_legend_handles_labels()[0]:
        # above the axes, where it hides no point
        axes.legend(frameon=False, fontsize=7.5, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3)
