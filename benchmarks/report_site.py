"""The whole report from 2,000 results: seconds to read them, to judge and count, and to write the site.

    python -m benchmarks.report_site [into=DIR]

The results are made up from the real entries (at the paper's scale and at laptop scale, several seeds each)
and from the runs of the claims, with curves of 200 points. Goal: under 20 s, with the start of Python.
"""

import json
import math
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, command
from common.claims.claims import all_claims
from common.report.model import build
from common.report.site import write
from common.runs.catalogue import nested
from common.runs.evidence import Evidence, asked
from common.tables.tables import Entry, metric_keys, papers, runnable

RESULTS, POINTS = 2_000, 200


def made_up(entry: Entry, scale: str, seed: int) -> dict[str, Any]:
    """A result as a run of the entry would write it, with random numbers and falling curves."""
    chance = random.Random(f"{entry.name} {scale} {seed}")
    level = chance.uniform(0.2, 5.0)
    keys = metric_keys(entry.paper, entry.table).values()
    metrics: dict[str, Any] = {key: level * chance.uniform(0.9, 1.1) for key in keys}
    config = nested({"seed": seed, "paper.repeats": 1} | entry.values | entry.budget.get(scale, {}))
    words = [f"entry={entry.name}", f"scale={scale}", f"seed={seed}"]
    result = _result(entry.paper, words, scale, seed, metrics | {"n": 1000}, level)
    choices = {"dataset": "digits", "model": "mlp", "method": "optimizer/adam", "schedule": "constant"}
    return result | {"entries": [entry.name], "choices": choices | entry.choose, "config": config}


def _result(
    paper: str, words: list[str], scale: str, seed: int, metrics: dict[str, Any], level: float
) -> dict[str, Any]:
    chance = random.Random(" ".join(words))
    steps = [float(1 + 10 * i) for i in range(POINTS)]
    curve = [level * (1 + 20 * math.exp(-i / 40)) * chance.uniform(0.97, 1.03) for i in range(POINTS)]
    return {
        "entries": [],
        "overrides": words,
        "asked": [list(asked(words))],
        "paper": paper,
        "choices": {"dataset": "digits", "model": "mlp", "method": "optimizer/adam", "schedule": "constant"},
        "scale": scale,
        "seed": seed,
        "metrics": metrics,
        "reported": {},
        "wall_seconds": 1.0,
        "device": "cpu",
        "threads": 1,
        "versions": {},
        "commit": "0" * 40,
        "finished": "2026-01-01T00:00:00Z",
        "code": "000000000000",
        "config": {},
        "history": {"step": steps, "epoch": [step / 100 for step in steps], "loss": curve},
    }


def of_claims() -> Iterator[dict[str, Any]]:
    """A made-up result for each run of each claim."""
    for claim in all_claims().values():
        for run in claim.all_runs():
            chance = random.Random(" ".join(run.words))
            value = (run.x or 1.0) ** -0.5 * chance.uniform(0.9, 1.1) * (2 if run.side == "b" else 1)
            names = {claim.rule.metric, getattr(claim.rule, "equals", None)}
            names |= {getattr(claim.rule, "at_most", None), getattr(claim.rule, "at_least", None)}
            metrics = {name: value for name in names if isinstance(name, str)}
            yield _result(claim.paper, list(run.words), "paper", run.seed, metrics, value)


def results() -> Iterator[dict[str, Any]]:
    """All made-up results: the claims' runs, then as many of the entries as are asked for."""
    yield from of_claims()
    for seed in range(RESULTS):
        for scale in ("laptop", "paper"):
            for paper in papers():
                for entry in runnable(paper):
                    yield made_up(entry, scale, seed)


def write_results(folder: Path, count: int = RESULTS) -> None:
    """Write so many made-up results as `results/` holds them."""
    for index, result in zip(range(count), results(), strict=False):
        path = folder / result["paper"] / f"{index:012x}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result))


def main(tiny: bool = False, into: str = "") -> dict[str, Figure]:
    """Make results, build the site into a folder (a temporary one if none is given), measure each part."""
    count = 20 if tiny else RESULTS
    with tempfile.TemporaryDirectory() as scratch:
        folder, site = Path(scratch, "results"), Path(into or f"{scratch}/report")
        write_results(folder, count)
        started = time.perf_counter()
        evidence = Evidence.read(Path(scratch, "none"), folder)
        read = time.perf_counter()
        report = build(evidence)
        judged = time.perf_counter()
        write(report, site, papers())
        ended = time.perf_counter()
        files = [path for path in site.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files) / 2**20
    print(f"{report.results} results, {sum(paper.counts.run for paper in report.papers)} entries with runs")
    print(f"read {read - started:.2f} s, judged and counted {judged - read:.2f} s, ", end="")
    print(f"drawn and written {ended - judged:.2f} s; {len(files)} files, {size:.1f} MiB")
    what = f"the whole report from {count:,} results"
    return {"seconds": Figure(ended - started, "s", what, at_most=20.0)}


if __name__ == "__main__":
    command(main)
