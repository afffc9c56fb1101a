"""A table of the user's own, whatever its format: what must be known of it is found from the file."""

import sys
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from torch import Tensor

from common.base.dataset import Origin, Part, check
from common.base.errors import UserError
from common.data.shared.fingerprint import fingerprint
from common.data.shared.in_memory import Options, Split, TensorData
from common.data.shared.own_parts import held_out
from common.data.shared.subsets import complement
from common.data.shared.text_file import shown
from common.data.tables.columns import FEWEST_UNIQUE, Column, columns_of, differ_in_case, lost
from common.data.tables.sheet import LARGEST, Sheet, as_class, ordered, sheet
from common.data.tables.written import number


class OwnTable(TensorData):
    """Rows of a file: columns of numbers as they are, columns of words with one output (0 or 1) a word.

    A missing number is the mean of the training part, a missing word a word of its own; rows without a target
    are left out, and so are columns in which nearly every cell is another word. What was repaired is counted
    and said. Words, means and classes are those of the training part, all of it, whatever `limit` and
    `validation` take of it. The columns of a second table are found by their names.

    Args:
        path: of the file: LIBSVM (`label index:value ...`), Parquet, ARFF, or else CSV with commas,
            semicolons, tabs, bars or blanks, whose first row holds names unless it looks like the others;
            also packed by gzip, bzip2, xz or zip.
        test_path: of a second one alike with the test part; null to hold out a part of the first.
        test: that part, drawn once for all runs, of each class alike.
        target: the name of the target's column, or its number from 0 (-1 is the last); the label of LIBSVM.
        drop: names of columns to leave out.
        encoding: of text files, by its name in Python; a mark of UTF-16 at their beginning counts more.
        origin: of a network that is to be judged: columns, words, fills, classes and normalisation are then
            those that it was trained with, and all rows are for testing, but those that it was trained on.
        The others as in `TensorData`.

    Raises:
        UserError: a file that is missing or none of these, a target of one class or of nearly as many as
            rows, an unknown column, a column of too many words, or of numbers with infinity or a few words
            among them; with `origin`, one that is absent, or a class that it has not.
    """

    SHAPE: ClassVar = ()
    TRAIN_SIZE: ClassVar = 512
    TEST_SIZE: ClassVar = 256

    def __init__(
        self,
        *,
        path: str,
        test_path: str | None,
        test: float,
        target: str | int,
        drop: list[str | int],
        encoding: str,
        origin: Origin | None = None,
        **options: Unpack[Options],
    ) -> None:
        check("test", test, 0 < test < 1, "give a fraction above 0 and below 1")
        if origin is not None and test_path is not None:
            # the part that is judged is all that is read
            path, test_path = test_path, None
        self.path, self.test_path, self.test_fraction = path, test_path, test
        self.origin = origin
        # a name may be a number, as 2020
        left_out = tuple(map(str, drop))
        self.sheet = sheet(path, target, left_out, encoding)
        self.test_sheet = None if test_path is None else sheet(test_path, target, left_out, encoding)
        # of the set that a network was trained on, where that was a table too
        facts = origin.facts if origin is not None and "columns" in origin.facts else None
        self.class_list = self._label_names(facts)
        self.held_out = test_path is None and (origin is None or self._trained_on(origin))
        self._cut()
        self.said: list[str] = []
        if facts is None:
            self.columns, self.said = columns_of(self.parts["train"], path)
        else:
            self.columns = [Column.of(told) for told in facts["columns"]]
            options["positive"] = facts["positive"]
        super().__init__(**options)
        self.notes += [*self._match_columns(facts), *self._absent_classes()]
        self.shape = (sum(column.width for column in self.columns),)
        size = 4 * self.shape[0] * len(self.sheet)
        check(
            "path", path, size <= LARGEST, f"{len(self.sheet)} rows of {self.shape[0]} columns take over 4 GB"
        )

    def label_names(self) -> list[str] | None:
        """The labels of the file, in their order; None for regression."""
        return list(self.class_list) or None

    def sources(self) -> dict[str, Path]:
        """The file, and that of the test part if there is one."""
        files = {"table": self.path, "test_table": self.test_path}
        return {name: Path(path).expanduser() for name, path in files.items() if path is not None}

    def encoding(self) -> dict[str, Any]:
        """The target, the columns with their words and fills, and the labels."""
        return {
            "target": self.sheet.target_name,
            "columns": [column.told() for column in self.columns],
            "label_names": self.label_names(),
            "positive": self.positive,
            "sparse": self.sheet.sparse,
        }

    def tested(self) -> str:
        """Which rows of which file are judged."""
        if self.source == "synthetic":
            return super().tested()
        return f"{'rows held out' if self.held_out else 'all rows'} of {self._tested_path()}"

    def _label_names(self, facts: dict[str, Any] | None) -> list[str]:
        """The classes, in the order of their labels; none for regression."""
        if self.KIND == "regression":
            return []
        names = ordered(self.sheet.target)
        theirs = None if self.origin is None else self.origin.facts.get("class_names")
        theirs = theirs if facts is None else facts["label_names"]
        if theirs is not None:
            return list(theirs)
        target, rows = self.sheet.target_name, len(self.sheet)
        check(
            "target", target, len(names) >= 2, f"all {rows} rows are of one class, {names[0]!r} (valid: two)"
        )
        check(
            "target",
            target,
            len(names) <= max(FEWEST_UNIQUE, rows / 2),
            f"its {rows} rows are of {len(names)} classes ({names[0]!r}, ...), so that nothing is learned of "
            f"most (valid: another column, of {shown(self.sheet.names)})",
        )
        return names

    @property
    def label_count(self) -> int | None:
        return len(self.class_list) or None

    @property
    def train_size(self) -> int:
        return len(self.parts["train"])

    def _trained_on(self, origin: Origin) -> bool:
        """Whether this is the file that a network was trained on a part of."""
        known, found = (origin.files or {}).get("folders", {}), fingerprint(self.sources())
        if found is None or found["folders"]["table"] != known.get("table"):
            return False
        if "test_table" in known:
            raise UserError(
                f"dataset.path={self.path}: the network was trained on all of its rows (valid: another table)"
            )
        target = origin.facts.get("target", self.sheet.target_name)
        if self.sheet.target_name != target:
            raise UserError(
                f"dataset.target={self.sheet.target_name}: the network was trained on a part of this table, "
                f"which is known for its own target only (valid: {target})"
            )
        return True

    def _cut(self) -> None:
        """The rows of each part."""
        self.parts: dict[Part, Sheet]
        if not self.held_out:
            tested = self.test_sheet or self.sheet
            self.parts = {"train": self.sheet if self.origin is None else tested, "test": tested}
            return
        total = len(self.sheet)
        labels = self._labels_of(self.sheet) if self.class_list else None
        drawn = held_out(self.test_fraction, labels, total)
        rest = complement(drawn, total)
        self.parts = {"train": self.sheet.rows(rest.tolist()), "test": self.sheet.rows(drawn.tolist())}

    def _match_columns(self, facts: dict[str, Any] | None) -> list[str]:
        """What of the tested table's columns is left out, as the training part has not got it.

        Raises:
            UserError: it lacks columns of the training part.
        """
        if facts is None and self.origin is not None:
            # it was trained on inputs without names
            return [
                "its columns are taken by their position: the network's own data set does not name its inputs"
            ]
        tested, wanted = self.parts["test"], [column.name for column in self.columns]
        if tested.sparse != (self.sheet.sparse if facts is None else facts["sparse"]):
            raise UserError(
                f"dataset.path={self._tested_path()}: {'it' if tested.sparse else 'the training part'} is "
                "LIBSVM and the other one is not (valid: the same form, by which columns are named)"
            )
        absent = [] if tested.sparse else [name for name in wanted if name not in tested.names]
        if absent:
            raise UserError(
                f"dataset.path={self._tested_path()}: it lacks {len(absent)} of the {len(wanted)} columns of "
                f"training: {shown(absent)} (valid: all of {shown(wanted)}, in any order)"
            )
        known = wanted if self.origin is not None else [*wanted, *self.sheet.names]
        more = [name for name in tested.names if name not in known]
        return [f"{len(more)} columns left out, as training has not got them: {shown(more)}"] if more else []

    def _absent_classes(self) -> list[str]:
        """Which of the classes the table that is judged has not got."""
        if self.origin is None or not self.class_list:
            return []
        found = set(map(as_class, self.parts["test"].target))
        absent = [name for name in self.class_list if as_class(name) not in found]
        return [f"no row is of {len(absent)} of the classes: {shown(absent)}"] if absent else []

    def _tested_path(self) -> str:
        return self.test_path or self.path

    def _labels_of(self, part: Sheet) -> Tensor:
        numbers = {as_class(name): place for place, name in enumerate(self.class_list)}
        unknown = [name for name in ordered(part.target) if as_class(name) not in numbers]
        if unknown:
            raise UserError(
                f"dataset.path={self._tested_path()}: {len(unknown)} classes of its target "
                f"{part.target_name!r} are not those of training: {shown(unknown)} (valid: "
                f"{shown(self.class_list)})"
            )
        return torch.tensor([numbers[as_class(cell)] for cell in part.target])

    def read(self, part: Part) -> Split:
        """All rows of one part: float32 [n, d], and labels int64 or numbers float32."""
        rows, path = self.parts[part], self.path if part == "train" else self._tested_path()
        inputs = torch.from_numpy(np.hstack([column.encoded(rows, path) for column in self.columns])).float()
        for column in self.columns:
            for what, count in column.repairs(rows).items():
                self.repairs[what] = self.repairs.get(what, 0) + count
        if self.class_list:
            return Split(inputs, self._labels_of(rows))
        return Split(inputs, torch.tensor([float(cell) for cell in rows.target]))

    def setup(self, stage: str | None = None) -> None:
        """Read both parts, and say in one line what was found; of a table that is judged only its rows."""
        if self.origin is not None:
            if self._test is None:
                self._test = self._train = self._load("test")
                self._offset, self._scale = torch.zeros(self.shape), torch.ones(self.shape)
                self.move(self.device)
            return
        first = self._train is None
        super().setup(stage)
        if first and self.source == "real":
            alike = differ_in_case(f"target {self.sheet.target_name!r}", self.class_list)
            for line in [self._found(), *alike, *self.said, *self.notes]:
                print(line, file=sys.stderr)

    def _found(self) -> str:
        words = sum(column.words is not None for column in self.columns)
        what = f"classes {shown(self.class_list)}"
        if not self.class_list:
            what = "numbers, for regression"
            if self.target_scale not in (0, 1):
                what += f"; rmse is in their standard deviations of {1 / self.target_scale:.6g}"
        if len(self.class_list) > 2 and all(number(name) is not None for name in self.class_list):
            what += "; dataset.kind=regression takes it as a number"
        tested = (
            self.test_path
            or f"{self.test_fraction:.0%} of the rows, held out, as no dataset.test_path is given"
        )
        return (
            f"dataset={self.NAME}: target {self.sheet.target_name!r} ({what}); {len(self.columns) - words} "
            f"columns of numbers, {words} of words, {self.shape[0]} inputs; {self.train_size} training rows; "
            f"tested on {tested}"
        )


class TableClassification(OwnTable):
    """A table whose target is one of some classes."""

    NAME: ClassVar = "table"
    KIND: ClassVar = "tabular_classification"
    # found from the file
    CLASSES: ClassVar = 0


class TableRegression(OwnTable):
    """A table whose target is a number.

    Raises:
        UserError: a target that is none, one number alone, or such as float32 does not tell apart.
    """

    NAME: ClassVar = "table_regression"
    KIND: ClassVar = "regression"
    CLASSES: ClassVar = None

    def _label_names(self, facts: dict[str, Any] | None) -> list[str]:
        for read in [self.sheet, *([self.test_sheet] if self.test_sheet else [])]:
            for line, cell in zip(read.lines, read.target, strict=True):
                if number(cell) is None:
                    raise UserError(
                        f"dataset.target={read.target_name}: {cell!r} (line {line}) is no number (valid: "
                        "another column, or dataset=table dataset.kind=tabular_classification)"
                    )
            numbers = [float(cell) for cell in read.target]
            if why := lost(numbers):
                raise UserError(f"dataset.target={read.target_name}: {why}")
            if self.origin is None and read is self.sheet and len(set(numbers)) < 2:
                raise UserError(
                    f"dataset.target={read.target_name}: it is {read.target[0]} in all {len(numbers)} rows "
                    "(valid: a number that differs)"
                )
        return []
