"""Runs of OpenML's bot (uploader 2702, random settings) on the tasks of the paper's experiments."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.base.errors import UserError
from common.base.files import whole
from common.data.shared.download import FetchError, fetch, folder_lock

API = "https://www.openml.org/api/v1/json"
UPLOADER, MEASURE = 2702, "area_under_roc_curve"
# setups of one request
CHUNK = 100
ADVICE = "run this once where there is a connection and copy the folder here, or use dataset.source=stand_in"


@dataclass(frozen=True)
class Flow:
    """An algorithm on OpenML: its number, tasks, settings (of words their values), and which are in log."""

    number: int
    tasks: tuple[int, ...]
    columns: tuple[str, ...]
    words: dict[str, tuple[str, ...]]
    logarithmic: tuple[str, ...]


FLOWS = {
    "svm": Flow(
        5891,
        (10101, 145878, 146064, 14951, 34537, 3485, 3492, 3493, 3494, 37, 3889, 3891, 3899, 3902, 3903, 3913,
         3918, 3950, 9889, 9914, 9946, 9952, 9967, 9971, 9976, 9978, 9980, 9983),
        ("cost", "degree", "gamma", "kernel"),
        {"kernel": ("linear", "polynomial", "radial", "sigmoid")},
        ("cost", "gamma"),
    ),
    "xgboost": Flow(
        6767,
        (10093, 10101, 125923, 145847, 145857, 145862, 145872, 145878, 145953, 145972, 145976, 145979, 146064,
         14951, 31, 3485, 3492, 3493, 37, 3896, 3903, 3913, 3917, 3918, 3, 49, 9914, 9946, 9952, 9967),
        ("alpha", "booster", "colsample_bylevel", "colsample_bytree", "eta", "lambda", "max_depth",
         "min_child_weight", "nrounds", "subsample"),
        {"booster": ("gbtree", "gblinear", "dart")},
        ("alpha", "lambda", "eta", "min_child_weight"),
    ),
}  # fmt: skip


def read_runs(flow: Flow, data_dir: Path, most: int) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs [M, p] and 1 - AUC [M] of each task; what is missing is downloaded once.

    Raises:
        UserError: a file is missing and cannot be fetched, or damaged.
    """
    inputs, errors = [], []
    for task in flow.tasks:
        path = data_dir / "openml_runs" / f"{flow.number}_{task}.json"
        try:
            if not path.exists():
                _fetch(flow, task, path, most)
            runs = json.loads(path.read_text())
            x, y = encoded(flow, runs)
        except FetchError as error:
            raise UserError(
                f"{path.resolve()} is missing, and {API}/{_listed(flow, task, most)} gave none ({error}): "
                f"{ADVICE}"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path.resolve()} is damaged ({type(error).__name__}): {ADVICE}") from error
        inputs.append(x[:most])
        errors.append(y[:most])
    return inputs, errors


def encoded(flow: Flow, runs: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """Runs, each {"value": AUC, "settings": {...}}, as inputs [M, p] and errors [M].

    A setting that a run has not is -1 once scaled to [0, 1]; one of words is a column a word.
    """
    columns = []
    for name in flow.columns:
        cells = [run["settings"].get(name) for run in runs]
        if name in flow.words:
            columns += [[float(cell == word) for cell in cells] for word in flow.words[name]]
            continue
        values = np.array([np.nan if cell is None else float(cell) for cell in cells])
        values = np.log(np.maximum(values, 1e-12)) if name in flow.logarithmic else values
        known = values[~np.isnan(values)]
        low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
        scaled = (values - low) / (high - low if high > low else 1.0)
        columns.append(list(np.where(np.isnan(values), -1.0, scaled)))
    errors = torch.tensor([1 - float(run["value"]) for run in runs], dtype=torch.float64)
    return torch.tensor(columns, dtype=torch.float64).T.contiguous(), errors


def _fetch(flow: Flow, task: int, path: Path, most: int) -> None:
    """Download the runs of one task: evaluations, then the settings of their setups."""
    with folder_lock(path.parent):
        if path.exists():
            return
        evaluations = _asked(f"{API}/{_listed(flow, task, most)}", path.parent)["evaluations"]["evaluation"]
        settings: dict[str, dict[str, str]] = {}
        numbers = [str(one["setup_id"]) for one in evaluations]
        for start in range(0, len(numbers), CHUNK):
            names = ",".join(numbers[start : start + CHUNK])
            for one in _asked(f"{API}/setup/list/setup/{names}", path.parent)["setups"]["setup"]:
                told = one.get("parameter", [])
                told = told if isinstance(told, list) else [told]
                settings[str(one["setup_id"])] = {part["parameter_name"]: part["value"] for part in told}
        runs = [
            {"value": one["value"], "settings": settings[str(one["setup_id"])]}
            for one in evaluations
            if str(one["setup_id"]) in settings
        ]
        with whole(path) as partial:
            partial.write_text(json.dumps(runs))


def _listed(flow: Flow, task: int, most: int) -> str:
    """Where OpenML lists the evaluations of a task."""
    where = f"function/{MEASURE}/task/{task}/flow/{flow.number}/uploader/{UPLOADER}/limit/{most}"
    return f"evaluation/list/{where}"


def _asked(url: str, folder: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
        target = Path(temporary) / "answer.json"
        fetch(url, target)
        answer: dict[str, Any] = json.loads(target.read_text())
    return answer
