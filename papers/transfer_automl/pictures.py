"""Picture of a search over several tasks: how alike it holds them, and how it went on each of them."""

import io
from typing import Any

import numpy as np

EMBEDDED, SERIES = "embedding_correlation_", "top_validation_"
COLOURS = ("#0b63c4", "#b8480b", "#2a7f3f", "#7a3fb5", "#b5123f", "#0b7f86", "#8a6d00", "#57606a")
PALE, INK, GRID = "#8b949e", "#1c2024", "#dfe3e8"
LOW, HIGH = "_low", "_high"


def picture(result: dict[str, Any]) -> str | None:
    """The SVG of a search's result (as in `result.json`); None where it learned no embeddings of tasks."""
    metrics = result.get("metrics", {})
    cosines = metrics.get("embedding_cosines")
    if not cosines:
        return None
    tasks = [name.removeprefix(EMBEDDED) for name in metrics if name.startswith(EMBEDDED)]
    return draw(tasks, np.array(cosines).reshape(len(tasks), -1), result.get("history", {}))


def draw(tasks: list[str], cosines: np.ndarray, history: dict[str, list[float | None]]) -> str:
    """SVG: the cosines of the tasks' embeddings as a table, as a map, and the search on each task.

    Args:
        tasks: their names, T.
        cosines: [T, T].
        history: of the search, with the mean of the best trials so far of each task, `top_validation_TASK`,
            and where there are several replicates its 95% interval over them, with `_low` and `_high`.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "reprise", "font.size": 8}):
        canvas = Figure(figsize=(9.6, 3.6), facecolor="white")
        _table(canvas.add_axes((0.1, 0.26, 0.21, 0.56)), tasks, cosines)
        _map(canvas.add_axes((0.36, 0.14, 0.24, 0.7)), tasks, cosines)
        _curves(canvas.add_axes((0.69, 0.14, 0.29, 0.7)), tasks, history)
        canvas.text(0.01, 0.93, "tasks as the controller holds them", fontsize=9, weight="bold")
        file = io.StringIO()
        canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def places(cosines: np.ndarray) -> np.ndarray:
    """Points of the plane whose squared distances come nearest to 2 - 2 cos (classical scaling): [T, 2].

    Each axis points to the side on which its largest coordinate lies.
    """
    n = len(cosines)
    centring = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(centring @ cosines @ centring)
    found = vectors[:, ::-1][:, :2] * np.sqrt(np.maximum(values[::-1][:2], 0.0))
    signs = np.sign(found[np.abs(found).argmax(0), range(found.shape[1])])
    return np.pad(found * np.where(signs == 0, 1.0, signs), ((0, 0), (0, 2 - found.shape[1])))


def _table(axes: Any, tasks: list[str], cosines: np.ndarray) -> None:
    axes.imshow(cosines, cmap="RdBu", vmin=-1, vmax=1)
    axes.set_xticks(range(len(tasks)), tasks, rotation=90, fontsize=6.5)
    axes.set_yticks(range(len(tasks)), tasks, fontsize=6.5)
    for i, row in enumerate(cosines):
        for j, value in enumerate(row):
            colour = "white" if abs(value) > 0.6 else INK
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=5, color=colour)
    axes.set_title("cosines of embeddings", fontsize=8, color=PALE)


def _map(axes: Any, tasks: list[str], cosines: np.ndarray) -> None:
    for number, (task, (x, y)) in enumerate(zip(tasks, places(cosines), strict=True)):
        axes.scatter([x], [y], s=24, color=COLOURS[number % len(COLOURS)], zorder=2)
        axes.annotate(task, (x, y), (3, 3), textcoords="offset points", fontsize=6.5)
    axes.margins(0.25)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title("near: alike", fontsize=8, color=PALE)


def _curves(axes: Any, tasks: list[str], history: dict[str, list[float | None]]) -> None:
    steps = history.get("step", [])
    for number, task in enumerate(tasks):
        colour, name = COLOURS[number % len(COLOURS)], SERIES + task
        line = _known(steps, history.get(name, []))
        if line:
            axes.plot(*zip(*line, strict=True), color=colour, linewidth=1.2, label=task)
        low, high = (_known(steps, history.get(name + end, [])) for end in (LOW, HIGH))
        if low:
            x, bottom = zip(*low, strict=True)
            axes.fill_between(x, bottom, [y for _, y in high], color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel("trials over all tasks")
    axes.set_ylabel("mean of the best so far")
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_title("best trials of each task, 95% over replicates", fontsize=8, color=PALE)


def _known(steps: list[float | None], values: list[float | None]) -> list[tuple[float, float]]:
    pairs = zip(steps, values, strict=False)
    return [(x, y) for x, y in pairs if x is not None and y is not None]
