"""Measure all benchmarks, or those that are named; their figures go into results.json and docs/benchmarks.md.

    python -m benchmarks [--tiny] [name ...]

Each is measured in a process of its own, one after the other; its figures are kept as soon as it has ended.
One whose peer is not installed is left out and said. Ends with 1 if a figure misses its goal. With `--tiny`
sizes are tiny, and nothing is kept: it shows that all of them run.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks.figures import measure, merge, names, records
from common.runs.environment import commit


def main(words: list[str]) -> int:
    """Measure, keep and print; the exit code."""
    tiny, wanted = "--tiny" in words, [word for word in words if word != "--tiny"]
    unknown = set(wanted) - set(names())
    if unknown:
        print(f"error: unknown {', '.join(sorted(unknown))}; valid: {', '.join(names())}", file=sys.stderr)
        return 1
    # before the page changes, which would make it a commit with changes
    code, passed = commit(), True
    for name in wanted or names():
        print(f"== {name}", flush=True)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            found = process.submit(measure, name, tiny).result()
        if isinstance(found, str):
            print(f"not measured: {found} is not installed (make setup-full)")
            continue
        figures, threads = found
        for figure in figures.values():
            print(figure.line(), flush=True)
        if not tiny:
            merge(name, records(name, figures, code, threads))
            passed &= all(figure.passed for figure in figures.values())
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
