"""A saved pipeline on new rows: `predict.py RUN rows.csv`."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from common.base.errors import UserError
from common.data.shared.text_file import shown
from common.data.tables.sheet import Read, table_of
from papers.pmf_automl.own_table import matched
from papers.pmf_automl.pipelines import trusted
from papers.pmf_automl.preparation import Plan, prepared, unknown_cells
from papers.pmf_automl.saved_files import ABOUT, PIPELINE

PREDICTIONS = "predictions.csv"


def load(folder: Path) -> tuple[Pipeline, dict[str, Any]]:
    """The pipeline of a run's folder, and what must be known to use it; no pickle is read.

    Raises:
        UserError: a file is missing or damaged, or holds types that no pipeline of ours has.
    """
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        about: dict[str, Any] = json.loads((folder / ABOUT).read_text())
        known = set(trusted())
        foreign = [name for name in skops.io.get_untrusted_types(file=folder / PIPELINE) if name not in known]
        if foreign:
            raise UserError(
                f"{folder / PIPELINE}: it holds {foreign[0]}, which no pipeline of this project has; it is "
                "not loaded "
                "(valid: the file that the run wrote)"
            )
        return skops.io.load(folder / PIPELINE, trusted=sorted(known)), about
    except (OSError, ValueError, KeyError, UntrustedTypesFoundException) as error:
        raise UserError(
            f"{folder}: its pipeline is missing or damaged ({type(error).__name__}); valid: a folder as a "
            "run of "
            "paper=pmf_automl dataset=table leaves it"
        ) from error


def predict_rows(folder: Path, path: Path, to: Path) -> Path:
    """Write what a run's pipeline says of each row of a table: predictions.csv in the folder `to`.

    Columns are found by their names; what training has not is counted and said. Beside the answer stands, of
    classes, the probability of each, where the pipeline gives one.

    Raises:
        UserError: a file that cannot be read, or one that lacks columns.
    """
    pipeline, about = load(folder)
    plans = [Plan.of(told) for told in about["plans"]]
    read = _read(path, about["encoding"], [about["target"], *(plan.name for plan in plans)])
    taken, others = matched(plans, read, str(path))
    others = [name for name in others if name != about["target"]]
    if others:
        print(
            f"{path}: {len(others)} columns left out, as training has not got them: {shown(others)}",
            file=sys.stderr,
        )
    for plan, cells in zip(plans, taken, strict=True):
        unknown = unknown_cells(plan, cells)
        if unknown:
            print(
                f"{path}: {unknown} cells of column {plan.name!r} are nothing that training has",
                file=sys.stderr,
            )
    rows = len(read.lines)
    if not rows:
        raise UserError(f"{path}: it has no rows (valid: a row of names, and at least one below it)")
    X = prepared(plans, taken, rows).X
    answers = pipeline.predict(X)
    labels = about["labels"]
    header, table = [about["target"]], [[labels[int(a)] if labels else f"{a:.10g}"] for a in answers]
    probabilities = _probabilities(pipeline, X) if labels else None
    if probabilities is not None:
        known = [labels[int(c)] for c in pipeline.classes_]
        header += [f"probability of {name}" for name in known]
        table = [[*row, *(f"{p:.6f}" for p in own)] for row, own in zip(table, probabilities, strict=True)]
    to.mkdir(parents=True, exist_ok=True)
    with (to / PREDICTIONS).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(table)
    return to / PREDICTIONS


def _probabilities(pipeline: Pipeline, X: np.ndarray) -> np.ndarray | None:
    try:
        return np.asarray(pipeline.predict_proba(X))
    except AttributeError:
        return None


def _read(path: Path, encoding: str, names: list[str]) -> Read:
    """The new rows, as UTF-8 or as training was written."""
    try:
        return table_of(str(path), "utf-8", names)
    except UserError:
        if encoding.lower() in ("utf-8", "utf8"):
            raise
        return table_of(str(path), encoding, names)
