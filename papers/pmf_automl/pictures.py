"""The picture of a latent variable model: a map of pipelines, near one another where they do alike."""

import io
from typing import Any

PALE, GRID = "#8b949e", "#dfe3e8"


def picture(result: dict[str, Any]) -> str | None:
    """The SVG of a run's result (as in `result.json`); None where it has learnt no latent points."""
    metrics = result.get("metrics", {})
    return draw(metrics) if metrics.get("latent_x") else None


def draw(metrics: dict[str, Any]) -> str:
    """SVG: pipelines by the first two principal components of their latent points, coloured by algorithm.

    Beside them the same points by their mean score, dark where it is high. Where the algorithms are not known
    the second map stands alone.

    Args:
        metrics: of the run, see `latent_map.described`.
    """
    import matplotlib
    from matplotlib.figure import Figure

    kind: list[str] = metrics.get("latent_kind", [])
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "reprise", "font.size": 8}):
        canvas = Figure(figsize=(9.0 if kind else 4.6, 4.2), facecolor="white")
        places = [(0.02, 0.03, 0.43, 0.86), (0.55, 0.03, 0.43, 0.86)] if kind else [(0.03, 0.03, 0.94, 0.86)]
        axes = [canvas.add_axes(place) for place in places]
        if kind:
            _by_kind(axes[0], metrics, kind)
        _by_score(axes[-1], metrics)
        file = io.StringIO()
        canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def _by_kind(axes: Any, metrics: dict[str, Any], kind: list[str]) -> None:
    from matplotlib import color_sequences

    colours = color_sequences["Paired"]
    # rare kinds together are pale, and below the others
    names = sorted(set(kind), key=lambda name: (name != "other", name))
    for number, name in enumerate(names):
        points = [
            (x, y)
            for x, y, own in zip(metrics["latent_x"], metrics["latent_y"], kind, strict=True)
            if own == name
        ]
        colour = PALE if name == "other" else colours[number % len(colours)]
        axes.scatter(
            *zip(*points, strict=True), s=14, color=colour, label=name, edgecolor=PALE, linewidth=0.2
        )
    share, chance = metrics["neighbours_alike"], metrics["neighbours_alike_by_chance"]
    axes.set_title(
        f"algorithm; the nearest is of the same one for {share:.0%} (chance {chance:.0%})", fontsize=8
    )
    axes.legend(frameon=False, fontsize=6.5, loc="center left", bbox_to_anchor=(1.0, 0.5), handletextpad=0.1)
    _bare(axes)


def _by_score(axes: Any, metrics: dict[str, Any]) -> None:
    known = [
        point
        for point in zip(metrics["latent_x"], metrics["latent_y"], metrics["latent_score"], strict=True)
        if point[2] is not None
    ]
    x, y, score = zip(*known, strict=True)
    # a few pipelines that fail everywhere would make all others equal
    rank = {value: place for place, value in enumerate(sorted(set(score)))}
    axes.scatter(x, y, s=14, c=[rank[value] for value in score], cmap="Blues", edgecolor=PALE, linewidth=0.3)
    axes.set_title("mean score over the training data sets, dark: better", fontsize=8)
    _bare(axes)


def _bare(axes: Any) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color(GRID)
