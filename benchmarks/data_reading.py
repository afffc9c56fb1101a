"""Original files to tensors: what `setup` of a data set takes, training and test set, on one core.

    python -m benchmarks.data_reading

Files are read, their checksums compared, and everything else about them checked, as in every run. They
must lie under DATA_DIR (or `data`); a set that is not there is left out. Times are wall seconds, the median
over the turns, after one that brings the files into the system's cache. Exits with 1 if one is above its
limit.
"""

import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.utils import instantiate

from benchmarks.figures import Figure, command
from common.base.dataset import DataSet

ROOT = Path(__file__).resolve().parents[1]
TURNS = 5
# seconds by data set
LIMITS = {"digits": 1.0, "mnist": 2.0, "cifar10": 2.0, "ptb": 3.0, "wikitext2": 8.0}
# a file that shows whether it is there; digits are bundled
SIGNS = {
    "mnist": "mnist/train-images-idx3-ubyte.gz",
    "cifar10": "cifar-10-batches-bin/test_batch.bin",
    "ptb": "ptb/ptb.train.txt",
    "wikitext2": "wikitext-2/wiki.train.tokens",
}


def build(name: str, data_dir: Path) -> DataSet:
    """The data set as `dataset=NAME` gives it."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "conf" / "dataset" / f"{name}.yaml").read_text())
    own = {"data_dir": str(data_dir), "seed": 0}
    return instantiate(config | {key: value for key, value in own.items() if key in config})


def seconds(name: str, data_dir: Path) -> float:
    """Build it, and read both its sets."""
    start = time.perf_counter()
    data = build(name, data_dir)
    data.setup()
    data.size("test")
    return time.perf_counter() - start


def main(tiny: bool = False) -> dict[str, Figure]:
    """Measure every data set that is there."""
    torch.set_num_threads(1)
    data_dir = Path(os.environ.get("DATA_DIR", ROOT / "data"))
    figures = {}
    for name in ("digits", "ptb") if tiny else LIMITS:
        if name in SIGNS and not (data_dir / SIGNS[name]).exists():
            print(f"{name:12} {data_dir / SIGNS[name]} is missing: not measured")
            continue
        first, *others = [seconds(name, data_dir) for _ in range(2 if tiny else TURNS + 1)]
        print(f"{name:12} first {first:.2f} s", flush=True)
        what = f"{name} from its files to tensors, checksums included"
        figures[name] = Figure(statistics.median(others), "s", what, at_most=LIMITS[name])
    return figures


if __name__ == "__main__":
    command(main)
