"""A picture of a problem in the plane: the set, level lines, the path, the saddle and the minima."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from hydra.utils import instantiate

from papers.saddle.method import Programme
from papers.saddle.problems import Array

INK, PALE, PATH, SADDLE, MINIMUM = "#1c2024", "#8b949e", "#0b63c4", "#b5123f", "#157a3c"
# of the grid on which f is evaluated, each way
GRID = 121


def picture(result: dict[str, Any]) -> str | None:
    """The SVG of a result (as in `result.json`); None where it is not of a problem in the plane."""
    history = result.get("history", {})
    if "x1" not in history:
        return None
    config = result["config"]
    data = instantiate(config["dataset"], _convert_="all")
    region = instantiate(config["model"], shape=data.shape, classes=None, _convert_="all")
    L, M = data.lipschitz(region)
    programme = Programme(data, region, L, M, region.diameter)
    return draw(programme, history, result["choices"]["method"].split("/")[-1])


def pictures(results: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """(title, SVG) of every result that has a picture."""
    for result in results:
        svg = picture(result)
        if svg is not None:
            choices = result["choices"]
            words = f"{choices['dataset']}, {choices['model']}, {choices['method'].split('/')[-1]}"
            yield f"{words}, seed {result['seed']}", svg


def draw(programme: Programme, history: dict[str, list[float | None]], method: str) -> str:
    """SVG of a path given by its coordinates, history["x1"] and ["x2"]."""
    import matplotlib
    from matplotlib.figure import Figure

    problem, region = programme.problem, programme.region
    path = np.array([[a, b] for a, b in zip(history["x1"], history["x2"], strict=True) if a is not None])
    outline = _outline(programme)
    # a set that is flat along an axis is drawn with a margin all the same
    reach = 1.08 * np.maximum(region.reach, 1e-9 * region.reach.max())
    xs, ys = (np.linspace(-r, r, GRID) for r in reach)
    values = np.array([[problem.value(np.array([x, y])) for x in xs] for y in ys])
    inside = np.array([[region.contains(np.array([x, y])) for x in xs] for y in ys])
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "reprise", "font.size": 8}):
        canvas = Figure(figsize=(4.6, 4.9), facecolor="white")
        axes = canvas.add_axes((0.11, 0.17, 0.86, 0.75))
        (area,) = axes.fill(*outline.T, color="#eef2f7", zorder=0)
        lines = axes.contour(xs, ys, values, levels=_levels(values[inside]), colors=PALE, linewidths=0.6)
        lines.set_clip_path(area)
        axes.plot(*outline.T, color=INK, linewidth=1.2, zorder=2, label=f"the {region.name}")
        axes.plot(*path.T, color=PATH, linewidth=1.3, marker=".", markersize=3, zorder=3, label="path")
        axes.plot(
            *path[0], color=PATH, marker="o", fillstyle="none", markersize=7, zorder=4, ls="", label="start"
        )
        axes.plot(*path[-1], color=PATH, marker="s", markersize=6, zorder=4, ls="", label="end")
        axes.plot(*problem.saddle, color=SADDLE, marker="X", markersize=7, zorder=5, ls="", label="saddle")
        minima = np.array([x for x in _minima(programme) if region.contains(x)]).reshape(-1, 2)
        if len(minima):
            axes.plot(*minima.T, color=MINIMUM, marker="*", markersize=9, zorder=3.5, ls="", label="minimum")
        axes.set_xlim(-reach[0], reach[0])
        axes.set_ylim(-reach[1], reach[1])
        axes.set_aspect("equal")
        axes.set_xlabel("x1")
        axes.set_ylabel("x2", labelpad=1)
        steps = int(history["step"][-1] or 0)
        canvas.text(0.02, 0.965, f"{problem.NAME}, {method}, iterations: {steps}", fontsize=9, weight="bold")
        canvas.legend(loc="lower center", ncols=3, frameon=False, fontsize=7.5)
        file = io.StringIO()
        canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def _levels(values: Array) -> Array:
    """About 24 levels, even in rank, so that flat regions have lines too."""
    return np.unique(np.quantile(values, np.linspace(0.005, 0.995, 24)))


def _outline(programme: Programme) -> Array:
    """The boundary, [k, 2]: along rays from an inner point."""
    region = programme.region
    inner = np.mean([region.lmo(np.array([np.cos(t), np.sin(t)])) for t in np.linspace(0, 6.2, 60)], axis=0)
    angles = list(np.linspace(0, 2 * np.pi, 361))
    if region.vertices is not None:
        angles += [float(np.arctan2(*(v - inner)[::-1])) % (2 * np.pi) for v in region.vertices]
    rays = [np.array([np.cos(t), np.sin(t)]) for t in sorted(angles)]
    return np.array([inner + region.longest(inner, ray) * ray for ray in rays])


def _minima(programme: Programme) -> Array:
    """The known minimisers, or for a known least value the points of the boundary that have it."""
    problem, least = programme.problem, programme.problem.minimum(programme.region)
    if len(problem.minimisers) or least is None:
        return problem.minimisers
    points = _outline(programme)
    values = np.array([problem.value(x) for x in points])
    size = abs(least) or float(np.ptp(values))
    local = (values <= np.roll(values, 1)) & (values < np.roll(values, -1)) & (values <= least + 1e-3 * size)
    return points[local]
