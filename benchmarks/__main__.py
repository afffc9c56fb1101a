"""Measure all benchmarks, or those that are named, and write their figures into results.json and README.md.

    python -m benchmarks [name ...]

Each is measured in a process of its own, one after the other; its figures are kept as soon as it has ended.
One whose peer is not installed is left out and said. Ends with 1 if a figure misses its goal.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from typing import Any

from benchmarks.figures import Figure, merge, names, records
from common.runs.environment import commit


def measure(name: str, code: str | None) -> tuple[dict[str, Figure], dict[str, dict[str, Any]]] | str:
    """The figures of a benchmark and their records, or the module that it lacks."""
    try:
        module = import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        return str(error.name)
    figures = module.main()
    return figures, records(name, figures, code)


def main(wanted: list[str]) -> int:
    """Measure, keep and print; the exit code."""
    unknown = set(wanted) - set(names())
    if unknown:
        print(f"error: unknown {', '.join(sorted(unknown))}; valid: {', '.join(names())}", file=sys.stderr)
        return 1
    # before README changes, which would make it a commit with changes
    code, passed = commit(), True
    for name in wanted or names():
        print(f"== {name}", flush=True)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            found = process.submit(measure, name, code).result()
        if isinstance(found, str):
            print(f"not measured: {found} is not installed (make setup-full)")
            continue
        figures, kept = found
        merge(name, kept)
        for figure in figures.values():
            print(figure.line(), flush=True)
        passed &= all(figure.passed for figure in figures.values())
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
