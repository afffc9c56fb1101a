"""Pictures of a search: the network that it found, the best score so far, distance against score, a t-SNE
map."""

import io
from typing import Any

from papers.nasbot.drawing import STYLE, draw_network, height_for
from papers.nasbot.graph import Network

EDGE, INK, GRID = "#0b63c4", "#1c2024", "#dfe3e8"


def picture(result: dict[str, Any]) -> str | None:
    """The SVG of a search's result (as in `result.json`); None where it is no search."""
    metrics = result.get("metrics", {})
    if metrics.get("found") is None or "curve" not in metrics:
        return None
    return draw(Network.decoded(metrics["found"]), metrics, result["choices"]["method"].split("/")[-1])


def draw(network: Network, metrics: dict[str, Any], method: str) -> str:
    """SVG: the found network as a graph; beside it the three plots.

    Args:
        network: what was found.
        metrics: of the run, see `NetworkSearchModule.results`.
        method: the searcher's name.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        height = max(height_for(network), 6.0)
        canvas = Figure(figsize=(9.0, height), facecolor="white")
        graph = canvas.add_axes((0.01, 0.02, 0.46, 0.9))
        graph.set_xlim(-0.05, 1.05)
        draw_network(graph, network)
        parts = (_curve, _scatter, _map)
        for place, part in enumerate(parts):
            part(canvas.add_axes((0.57, 0.71 - 0.315 * place, 0.4, 0.21)), metrics)
        canvas.text(0.02, 0.96, f"found by {method}, {_told(metrics)}", fontsize=9, weight="bold")
        file = io.StringIO()
        canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def _told(metrics: dict[str, Any]) -> str:
    """How good the found network is: on the test split, or where there is none by what was searched for."""
    if metrics.get("found_error") is not None:
        return f"test error {metrics['found_error']:.4g}"
    return f"value {metrics['best_validation']:.4g}"


def _curve(axes: Any, metrics: dict[str, Any]) -> None:
    known = [(n, value) for n, value in enumerate(metrics["curve"], 1) if value is not None]
    axes.step(*zip(*known, strict=True), where="post", color=EDGE)
    axes.set_xlabel("networks evaluated")
    trained = metrics.get("found_error") is not None
    axes.set_ylabel("least validation error so far" if trained else "largest value so far")
    axes.grid(color=GRID, linewidth=0.6)


def _scatter(axes: Any, metrics: dict[str, Any]) -> None:
    axes.scatter(metrics["pair_distance"], metrics["pair_difference"], s=6, color=EDGE, alpha=0.5)
    rho = metrics.get("spearman_normalised")
    axes.set_title("" if rho is None else f"rank correlation {rho:.2f}", fontsize=8)
    axes.set_xlabel("normalised OTMANN distance")
    axes.set_ylabel("|difference of scores|")
    axes.grid(color=GRID, linewidth=0.6)


def _map(axes: Any, metrics: dict[str, Any]) -> None:
    """Networks by t-SNE of their distances, dark where the score is high; nothing of very few."""
    axes.set_title("t-SNE of the networks' distances, dark: better", fontsize=8)
    if "embedding_x" in metrics:
        # a few failures with huge errors would make all others equal
        scores = metrics["embedding_score"]
        ranks = [sorted(scores).index(score) for score in scores]
        axes.scatter(
            metrics["embedding_x"], metrics["embedding_y"], c=ranks, cmap="Blues", s=18, edgecolor=INK,
            linewidth=0.3,
        )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
