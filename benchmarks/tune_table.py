"""500 trainings of a small network on digits, once and for all: a table to try searchers on.

    python -m benchmarks.tune_table [workers]      make what is missing, then write the table

It can be stopped at any time: what is made lies in `outputs/`, as of any run.
"""

import gzip
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import torch

from common.runs.crew import LocalCrew
from common.runs.environment import environment
from common.runs.evidence import Evidence
from common.tables.tables import ROOT

PATH = ROOT / "papers" / "maxacq" / "digits_trainings.json.gz"
WORDS = "paper=yogi dataset=digits dataset.validation=0.2 model=mlp paper.epochs=4 trainer=cpu seed=0"
RATES = [f"{10 ** (-4 + 4 * i / 9):.6g}" for i in range(10)]
SETTINGS = {
    "method": ["optimizer/adam", "optimizer/sgd"],
    "method.lr": RATES,
    "dataset.batch_size": ["16", "32", "64", "128", "256"],
    "model.hidden": ["[8]", "[16]", "[32]", "[64]", "[128]"],
}
METRICS = ("validation_loss", "validation_accuracy")


def jobs() -> list[list[str]]:
    """The words of all trainings, the last setting varying fastest."""
    return [
        [*WORDS.split(), *(f"{key}={value}" for key, value in zip(SETTINGS, values, strict=True))]
        for values in itertools.product(*SETTINGS.values())
    ]


def make(workers: int) -> list[dict[str, Any] | None]:
    """The results of all trainings, None where one failed."""
    words = ["output_dir=outputs", "logger=none"]
    every = jobs()

    def command(number: int, _: torch.Tensor) -> list[str]:
        return every[number]

    evidence = Evidence.read(ROOT / "outputs", Path("none"))
    missing = [i for i, job in enumerate(every) if evidence.find(job) is None]
    crew = LocalCrew(workers, command, lambda metrics: 0.0, words, METRICS[0])
    busy, waiting = 0, iter(missing)
    nowhere = torch.zeros(0)
    try:
        for count in itertools.count():
            while busy < workers and (number := next(waiting, None)) is not None:
                crew.start(number, number, nowhere, 1.0)
                busy += 1
            if not busy:
                break
            for measured in crew.wait(60.0):
                busy -= 1
                if measured.said:
                    print(f"{' '.join(every[measured.number][-4:])}: {measured.said}", flush=True)
            if count % 50 == 0:
                print(f"{count} of {len(missing)}", flush=True)
    finally:
        crew.close()
    evidence = Evidence.read(ROOT / "outputs", Path("none"))
    return [evidence.find(job) for job in every]


def write(results: list[dict[str, Any] | None]) -> None:
    """The table: words, settings, and of each training its metrics (null where it failed) and seconds."""
    made = [one for one in results if one is not None]
    table = {
        "words": WORDS,
        "settings": SETTINGS,
        "commit": environment(torch.device("cpu"))["commit"],
        "code": sorted({one["code"] for one in made}),
        "metrics": {name: [_rounded(one, name) for one in results] for name in METRICS},
        "seconds": [None if one is None else one["wall_seconds"] for one in results],
    }
    PATH.write_bytes(gzip.compress(json.dumps(table).encode(), mtime=0))
    print(f"{len(made)} of {len(results)} trainings: {PATH} ({PATH.stat().st_size} bytes)")


def _rounded(result: dict[str, Any] | None, name: str) -> float | None:
    value = None if result is None else result["metrics"].get(name)
    return None if value is None else float(f"{value:.7g}")


def read() -> dict[str, Any]:
    """The table that was written."""
    table: dict[str, Any] = json.loads(gzip.decompress(PATH.read_bytes()))
    return table


if __name__ == "__main__":
    write(make(int(sys.argv[1]) if len(sys.argv) > 1 else 1))
