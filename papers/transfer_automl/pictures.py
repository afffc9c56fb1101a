"""Picture of a search over several tasks: how alike it holds them, and how it went on each of them."""

import io
import math
from typing import Any

import numpy as np

EMBEDDED, SERIES = "embedding_correlation_", "top_validation_"
COLOURS = ("#0b63c4", "#b8480b", "#2a7f3f", "#7a3fb5", "#b5123f", "#0b7f86", "#8a6d00", "#57606a")
SOFT, INK, GRID = "#57606a", "#1c2024", "#dfe3e8"
LOW, HIGH = "_low", "_high"
# data sets whose rewards are shares, which results print in per cent; others have rewards of no unit
SHARES = ("text_table", "text_tasks", "image_tasks")
# inches: the picture, a side of the table, and the least height of the panels
WIDE, HIGH_OF, SIDE, TALL = 10.6, 4.0, 2.3, 2.8
# points between two labels below each other, and in an inch
APART, INCH = 9.0, 72.0


def picture(result: dict[str, Any]) -> str | None:
    """The SVG of a search's result (as in `result.json`); None where it learned no embeddings of tasks."""
    metrics = result.get("metrics", {})
    cosines = metrics.get("embedding_cosines")
    if not cosines:
        return None
    tasks = [name.removeprefix(EMBEDDED) for name in metrics if name.startswith(EMBEDDED)]
    top = result.get("config", {}).get("paper", {}).get("top")
    best = "best" if top is None else f"{top} best"
    unit = "%" if result.get("choices", {}).get("dataset") in SHARES else "reward"
    label = f"validation, mean of the {best} ({unit})"
    return draw(tasks, np.array(cosines).reshape(len(tasks), -1), result.get("history", {}), label)


def draw(tasks: list[str], cosines: np.ndarray, history: dict[str, list[float | None]], label: str) -> str:
    """SVG: the cosines of the tasks' embeddings as a table, as a map, and the search on each task.

    Points and curves have the names of their tasks beside them, so that none needs a legend.

    Args:
        tasks: their names, T.
        cosines: [T, T].
        history: of the search, with the mean of the best trials so far of each task, `top_validation_TASK`,
            and where there are several replicates its 95% interval over them, with `_low` and `_high`.
        label: what the curves are, with their unit.
    """
    import matplotlib
    from matplotlib.figure import Figure

    tall = max(TALL, len(tasks) * APART / INCH)
    height = HIGH_OF + tall - TALL
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "reprise", "font.size": 8}):
        canvas = Figure(figsize=(WIDE, height), facecolor="white")

        def panel(left: float, width: float, low: float, high: float) -> Any:
            return canvas.add_axes((left / WIDE, low / height, width / WIDE, high / height))

        _table(panel(1.15, SIDE, 0.5 + tall - SIDE, SIDE), tasks, cosines)
        _map(panel(3.8, 1.95, 0.5, tall), tasks, cosines)
        _curves(panel(7.4, 1.95, 0.5, tall), tasks, history, label)
        title = "how alike the controller holds its tasks, and how the search went on each"
        canvas.text(0.1 / WIDE, 1 - 0.22 / height, title, fontsize=9, weight="bold")
        file = io.StringIO()
        canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def spread(heights: list[float], least: float, top: float) -> list[float]:
    """Places of labels as near to their heights as the distance `least` between them lets them be.

    They keep their order, and stay between 0 and `top` where there is room.
    """
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    found = [0.0] * len(heights)
    below = -math.inf
    for place in order:
        below = found[place] = max(heights[place], below + least)
    above = max(top, (len(heights) - 1) * least) + least
    for place in reversed(order):
        above = found[place] = min(found[place], above - least)
    return found


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
    size = min(6.5, 0.36 * SIDE * INCH / len(tasks))
    for i, row in enumerate(cosines):
        for j, value in enumerate(row):
            colour = "white" if abs(value) > 0.6 else INK
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=size, color=colour)
    axes.set_title("cosine of two embeddings", fontsize=8, color=SOFT)


def _map(axes: Any, tasks: list[str], cosines: np.ndarray) -> None:
    points = [(float(x), float(y)) for x, y in places(cosines)]
    for number, point in enumerate(points):
        axes.scatter(*point, s=24, color=COLOURS[number % len(COLOURS)], zorder=2)
    axes.margins(0.12)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title("map: near is alike", fontsize=8, color=SOFT)
    _name(axes, dict(enumerate(points)), tasks)


def _curves(axes: Any, tasks: list[str], history: dict[str, list[float | None]], label: str) -> None:
    steps, ends = history.get("step", []), {}
    for number, task in enumerate(tasks):
        colour, name = COLOURS[number % len(COLOURS)], SERIES + task
        line = _known(steps, history.get(name, []))
        if line:
            axes.plot(*zip(*line, strict=True), color=colour, linewidth=1.2)
            ends[number] = line[-1]
        low, high = (_known(steps, history.get(name + end, [])) for end in (LOW, HIGH))
        if low:
            x, bottom = zip(*low, strict=True)
            axes.fill_between(x, bottom, [y for _, y in high], color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel("trials over all tasks")
    axes.set_ylabel(label)
    axes.grid(color=GRID, linewidth=0.6)
    spreads = any(SERIES + task + LOW in history for task in tasks)
    axes.set_title("best so far" + ", 95% over replicates" * spreads, fontsize=8, color=SOFT)
    _name(axes, ends, tasks)


def _name(axes: Any, points: dict[int, tuple[float, float]], tasks: list[str]) -> None:
    """The names of tasks to the right of a panel, each in the colour of its point and led to it."""
    axes.set_xlim(*axes.get_xlim())
    axes.set_ylim(*axes.get_ylim())
    shares = {number: axes.transAxes.inverted().transform(axes.transData.transform(at)) for number, at in
              points.items()}  # fmt: skip
    tall = INCH * axes.get_position().height * axes.figure.get_figheight()
    heights = spread([share[1] * tall for share in shares.values()], APART, tall)
    for (number, share), height in zip(shares.items(), heights, strict=True):
        colour = COLOURS[number % len(COLOURS)]
        lead = {
            "arrowstyle": "-",
            "color": colour,
            "linewidth": 0.5,
            "shrinkA": 1,
            "shrinkB": 3,
            "relpos": (0, 0.5),
        }
        axes.annotate(
            tasks[number], share, (1.06, height / tall), "axes fraction", "axes fraction", arrowprops=lead,
            fontsize=6.5, color=colour, va="center", annotation_clip=False,
        )  # fmt: skip


def _known(steps: list[float | None], values: list[float | None]) -> list[tuple[float, float]]:
    pairs = zip(steps, values, strict=False)
    return [(x, y) for x, y in pairs if x is not None and y is not None]
