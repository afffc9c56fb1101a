"""A table of the user's own as what pipelines are searched for: read, prepared, cut into parts."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
import torch

from common.base.dataset import check
from common.base.errors import UserError
from common.base.generated import Function
from common.data.shared.in_memory import Options
from common.data.shared.subsets import stratified_subset
from common.data.shared.text_file import shown
from common.data.tables.sheet import Read, Sheet, as_class, ordered, sheet, table_of
from common.data.tables.written import PLAIN, Cells, marked, missing, number
from papers.pmf_automl.preparation import Plan, counts_rows, plans, prepared

Array = np.ndarray

# rows that are taken of a longer table; and of which a part is held out
MOST_ROWS, FEWEST_TO_HOLD_OUT = 20_000, 50
# the seeds of what belongs to the data: which rows are taken, held out, and in which fold
ROWS_SEED, HOLDOUT_SEED, FOLDS_SEED = 0, 1, 2
SHOWN_COLUMNS = 30


class PipelineTable(Function):
    """A table for which the best pipeline is searched.

    What cannot be read as numbers is prepared column by column (`papers.pmf_automl.preparation`), which is
    said in one table. Rows without a target are left out and counted. Of longer tables 20,000 rows are taken
    (or `limit`), each class alike; a part of at least 50 rows is held out for the final score.

    Args:
        path, target, drop, encoding: see `common.data.tables.own_table`. test_path: a table alike whose rows
            are the part that is held out. test: the share that is, where there is none.
        minutes: the whole search may take. seconds: one pipeline may take; null: a fifth of `minutes`.
        memory: gigabytes that a process which trains may take. folds: of cross-validation, at least 2.
        jobs: pipelines that are trained at a time.
        The others as of every table; what they say of batches and networks counts for nothing here.

    Attributes:
        X, y, words: of the training rows, see `preparation.Prepared`; y classes as numbers, or numbers.
        X_test, y_test: of those that are held out; none where there are none.
        labels: the classes, in the order of their numbers; none for regression.
        plans: of all columns. folds_of: the fold of each row.

    Raises:
        UserError: a value out of range, a file that cannot be read, a target that is not there or of one
            class, or (regression) no number.
    """

    NAME: ClassVar = "table"
    KIND: ClassVar = "tabular_classification"

    def __init__(
        self,
        *,
        path: str,
        test_path: str | None,
        test: float,
        target: str | int,
        drop: list[str],
        encoding: str,
        minutes: float,
        seconds: float | None,
        memory: float,
        folds: int,
        jobs: int,
        **options: Unpack[Options],
    ) -> None:
        super().__init__()
        check("test", test, 0 < test < 1, "give a fraction above 0 and below 1")
        check("minutes", minutes, minutes > 0, "give a number above 0")
        check("seconds", seconds, seconds is None or seconds > 0, "give a number above 0, or null")
        check("memory", memory, memory > 0, "give gigabytes, above 0")
        check("folds", folds, folds >= 2, "give at least 2")
        check("jobs", jobs, jobs >= 1, "give at least 1")
        self.data_dir = Path(options["data_dir"])
        self.kind, self.source, self.limit = options["kind"], options["source"], options["limit"]
        check("limit", self.limit, self.limit is None or self.limit >= 2, "give at least 2, or null")
        self.path, self.test_path, self.test, self.folds, self.jobs = path, test_path, test, folds, jobs
        self.minutes, self.seconds, self.memory = minutes, seconds, int(memory * 2**30)
        self.target, self.drop, self.encoding_name = target, tuple(drop), encoding
        self.shape, self.classes, self.batch_size, self.normalise = (1,), None, 1, "none"
        self.regression = self.kind == "regression"
        self.labels: list[str] = []

    def sources(self) -> dict[str, Path]:
        """The file, and that of the rows that are held out if there is one."""
        files = {"table": self.path, "test_table": self.test_path}
        return {name: Path(path).expanduser() for name, path in files.items() if path}

    def class_names(self) -> list[str] | None:
        return self.labels or None

    def setup(self, stage: str | None = None) -> None:
        """Read the file and prepare its columns, once."""
        if hasattr(self, "X"):
            return
        found = made_up() if self.source == "synthetic" else self._read(self.path)
        self.target_name = found.target_name
        y = self._targets(found.target, found.lines)
        rows = self._taken(y)
        tested = self._held_out(y, rows)
        train = np.setdiff1d(rows, tested)
        columns = [[cells[i] for i in train] for cells in found.columns]
        counting = set() if self.regression else _counting(found)
        self.plans = plans(found.names, columns, found.written, counting)
        ready = prepared(self.plans, columns, len(train))
        self.X, self.words, self.y = ready.X, ready.words, y[train]
        if self.test_path is not None and self.source != "synthetic":
            self._second(self.test_path, found)
        else:
            held = [[cells[i] for i in tested] for cells in found.columns]
            self.X_test, self.y_test = prepared(self.plans, held, len(tested)).X, y[tested]
        self.shape, self.classes = (self.X.shape[1],), len(self.labels) or None
        self.folds_of = fold_of_rows(self.y, self.folds, not self.regression)
        self._say()

    def _read(self, path: str) -> Sheet:
        return sheet(path, self.target, self.drop, self.encoding_name, "number")

    def _targets(self, target: Cells, lines: Sequence[int]) -> Array:
        """Classes as numbers, or numbers.

        Raises:
            UserError: one class or one number alone, or no number.
        """
        if self.regression:
            y = self._numbers(target, lines)
            many = len(set(y.tolist())) > 1
            check(
                "target", self.target_name, many, f"it is {target[0]} in all rows (valid: at least 2 numbers)"
            )
            return y
        self.labels = ordered(target)
        check(
            "target",
            self.target_name,
            len(self.labels) >= 2,
            f"it has one class, {shown(self.labels)} (valid: at least 2)",
        )
        place = {as_class(name): i for i, name in enumerate(self.labels)}
        return np.array([place[as_class(cell)] for cell in target])

    def _numbers(self, target: Cells, lines: Sequence[int]) -> Array:
        for line, cell in zip(lines, target, strict=True):
            if number(cell) is None:
                raise UserError(
                    f"dataset.target={self.target_name}: {cell!r} (line {line}) is no number (valid: "
                    "another column, or dataset.kind=tabular_classification)"
                )
        return np.array([float(cell) for cell in target])

    def _taken(self, y: Array) -> Array:
        """The rows that are taken, ascending."""
        most = self.limit or MOST_ROWS
        if len(y) <= most:
            return np.arange(len(y))
        print(
            f"dataset=table: {most:,} of {len(y):,} rows are "
            f"taken{'' if self.regression else ', of each class alike'} "
            "(dataset.limit takes another number)",
            file=sys.stderr,
        )
        return self._drawn(y, np.arange(len(y)), most, ROWS_SEED)

    def _drawn(self, y: Array, rows: Array, count: int, seed: int) -> Array:
        labels = None if self.regression else torch.from_numpy(y[rows])
        drawn = stratified_subset(labels, len(rows), count, torch.Generator().manual_seed(seed))
        return np.sort(rows[drawn.numpy()])

    def _held_out(self, y: Array, rows: Array) -> Array:
        if self.test_path is not None or len(rows) < FEWEST_TO_HOLD_OUT:
            return rows[:0]
        return self._drawn(y, rows, max(round(self.test * len(rows)), 1), HOLDOUT_SEED)

    def _second(self, path: str, first: Sheet) -> None:
        """The rows of a second table are those that are held out."""
        read = table_of(path, self.encoding_name, [*first.names, first.target_name])
        if first.target_name not in read.names:
            raise UserError(
                f"dataset.test_path={path}: no column {first.target_name!r} (valid: the columns of training)"
            )
        where, form = read.names.index(first.target_name), first.target_written
        target = read.columns[where] if form == PLAIN else [form.plain(cell) for cell in read.raw[where]]
        absent = [missing(cell) or (self.regression and marked(cell)) for cell in target]
        rows = [i for i, none in enumerate(absent) if not none]
        if not rows:
            raise UserError(f"dataset.test_path={path}: no row has a {first.target_name!r}")
        columns, _ = matched(self.plans, read, path)
        self.X_test = prepared(self.plans, columns, len(target)).X[rows]
        target, lines = [target[i] for i in rows], [read.lines[i] for i in rows]
        if self.regression:
            self.y_test = self._numbers(target, lines)
            return
        place = {as_class(name): i for i, name in enumerate(self.labels)}
        others = [name for name in ordered(target) if as_class(name) not in place]
        if others:
            raise UserError(
                f"dataset.test_path={path}: {len(others)} classes are not those of training: "
                f"{shown(others)} (valid: "
                f"{shown(self.labels)})"
            )
        self.y_test = np.array([place[as_class(cell)] for cell in target])

    def _say(self) -> None:
        """What was found, and what is done to each column."""
        what = "a number, for regression" if self.regression else f"classes {shown(self.labels)}"
        held = f"{len(self.y_test)} rows are held out for the final score"
        held = held if len(self.y_test) else "too few rows to hold some out: the score is cross-validated"
        print(
            f"dataset=table: target {self.target_name!r} ({what}); {len(self.y)} rows to learn from; {held}",
            file=sys.stderr,
        )
        rare = (
            [self.labels[c] for c, count in Counter(self.y.tolist()).items() if count == 1]
            if self.labels
            else []
        )
        if rare:
            print(f"  one row alone is of {len(rare)} of the classes: {shown(rare)}", file=sys.stderr)
        for plan in self.plans[:SHOWN_COLUMNS]:
            print(f"  {plan.name[:30]:<30}  {plan.said}", file=sys.stderr)
        if len(self.plans) > SHOWN_COLUMNS:
            more = Counter(plan.kind for plan in self.plans[SHOWN_COLUMNS:])
            kinds = ", ".join(f"{count} {kind}" for kind, count in more.items())
            print(
                f"  ... and {sum(more.values())} more: {kinds} (all of them in result.json)", file=sys.stderr
            )
        if not any(plan.width for plan in self.plans):
            print(
                "  no column is left that says anything: the best guess is the same for all rows",
                file=sys.stderr,
            )


def fold_of_rows(y: Array, folds: int, classes: bool) -> Array:
    """The fold of each row: each class spread as evenly as can be, at most `folds`, at least 2."""
    random = np.random.default_rng(FOLDS_SEED)
    count = max(min(folds, len(y)), 2)
    order = random.permutation(len(y))
    if classes:
        order = order[np.argsort(y[order], kind="stable")]
    found = np.empty(len(y), int)
    found[order] = np.arange(len(y)) % count
    return found


def matched(found: Sequence[Plan], read: Read, path: str) -> tuple[list[Cells], list[str]]:
    """The columns that plans ask for, by their names; and the names of others, which are left out.

    Numbers are read as they were written in training; where they stood there as 1234.5, as they are in this
    file. All else is taken as it stands.

    Raises:
        UserError: one is absent that is used.
    """
    place = {name: i for i, name in enumerate(read.names)}
    absent = [plan.name for plan in found if plan.width and plan.name not in place]
    if absent:
        raise UserError(
            f"{path}: it lacks {len(absent)} columns that training had: {shown(absent)} (valid: all of "
            f"{shown([plan.name for plan in found if plan.width])}, in any order)"
        )
    known = {plan.name for plan in found}
    taken = []
    for plan in found:
        if not plan.width:
            taken.append([""] * len(read.lines))
        elif plan.kind == "number" and plan.written == PLAIN:
            taken.append(read.columns[place[plan.name]])
        else:
            taken.append([plan.written.plain(cell) for cell in read.raw[place[plan.name]]])
    return taken, [name for name in read.names if name not in known]


def _counting(found: Sheet) -> set[str]:
    """Names of columns that count the rows: where a table is in the order of its classes they tell them."""
    return {name for name, cells in zip(found.names, found.columns, strict=True) if counts_rows(cells)}


def made_up() -> Sheet:
    """A small seeded table of two classes."""
    random = np.random.default_rng(0)
    X = random.normal(size=(80, 3))
    colour = random.choice(["red", "green"], 80)
    y = (X[:, 0] + (colour == "red") + 0.3 * random.normal(size=80) > 0.5).astype(int)
    columns: list[list[str]] = [[f"{value:.6f}" for value in column] for column in X.T]
    return Sheet(
        ["a", "b", "c", "colour"],
        [*columns, list(colour)],
        [str(v) for v in y],
        "y",
        list(range(2, 82)),
        False,
    )


def told(data: PipelineTable) -> dict[str, Any]:
    """What must be known to use a pipeline of the table, as plain JSON data."""
    return {
        "target": data.target_name,
        "labels": data.labels,
        "plans": [plan.told() for plan in data.plans],
        "columns": int(data.X.shape[1]),
        "encoding": data.encoding_name,
    }
