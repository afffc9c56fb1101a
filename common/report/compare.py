"""Runs of a sweep side by side: a table of one metric, and a picture of one curve.

    python -m common.report.compare --metric gradient_calls --x step --y grad_norm [SWEEP]

SWEEP is a folder of `outputs/sweeps`, by default the newest.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from common.runs.result import number, read_result
from common.runs.sweep import read_statuses
from common.tables.tables import ROOT


def newest_sweep(outputs: Path) -> Path:
    """The newest folder of statuses.

    Raises:
        FileNotFoundError: no sweep was made.
    """
    folders = sorted((outputs / "sweeps").glob("*"))
    if not folders:
        raise FileNotFoundError(f"no sweep in {outputs / 'sweeps'}: run.py -m makes one")
    return folders[-1]


def results_of(sweep: Path) -> list[dict[str, Any]]:
    """The results of a sweep's finished jobs, in their order."""
    paths = [Path(status["result"]) for status in read_statuses(sweep) if "result" in status]
    return [result for path in paths if (result := read_result(path)) is not None]


def differing(results: list[dict[str, Any]]) -> list[str]:
    """A short name for each result: the choices and seed in which the results differ."""
    tags = [{**result["choices"], "seed": result["seed"]} for result in results]
    keys = [key for key in tags[0] if len({str(tag[key]) for tag in tags}) > 1] or ["method"]
    return [" ".join(str(tag[key]).split("/")[-1] for key in keys) for tag in tags]


def draw(results: list[dict[str, Any]], x: str, y: str, path: Path) -> Path:
    """Draw the curve y over x of each result, the x axis logarithmic, and y where all values allow it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    curves = [_curve(result, x, y) for result in results]
    for name, (xs, ys) in zip(differing(results), curves, strict=True):
        axes.plot(xs, ys, label=name, linewidth=1.6)
    if all(value > 0 for _, ys in curves for value in ys):
        axes.set_yscale("log")
    axes.set_xscale("log")
    axes.set(xlabel=x.replace("_", " ") if x != "step" else "gradient calls", ylabel=y.replace("_", " "))
    axes.set_title(f"{results[0]['paper']} on {results[0]['choices']['dataset']}")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def _curve(result: dict[str, Any], x: str, y: str) -> tuple[list[float], list[float]]:
    """The points of a curve that a logarithmic x axis can show: the start, at 0, moves to 1."""
    history = result["history"]
    points = [(max(a, 1.0), b) for a, b in zip(history[x], history[y], strict=True) if b is not None]
    return [a for a, _ in points], [b for _, b in points]


def main() -> int:
    """Print the table and the picture's path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sweep", nargs="?", type=Path)
    parser.add_argument("--metric", required=True)
    parser.add_argument("--x", required=True)
    parser.add_argument("--y", required=True)
    words = parser.parse_args()
    try:
        sweep = words.sweep or newest_sweep(ROOT / "outputs")
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    results = results_of(sweep)
    if not results:
        print(f"error: no finished job in {sweep}", file=sys.stderr)
        return 1
    table = Table("run", words.metric.replace("_", " "), f"final {words.y.replace('_', ' ')}", "seconds")
    for name, result in zip(differing(results), results, strict=True):
        final = result["history"][words.y][-1]
        table.add_row(
            name, number(result["metrics"].get(words.metric)), number(final), number(result["wall_seconds"])
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    print(f"picture: {draw(results, words.x, words.y, sweep / f'{words.y}.png')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
