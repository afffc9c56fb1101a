"""Text classification tasks as data: where texts come from, how they are split, and what of them is kept."""

import csv
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from common.base.dataset import Source as Origin
from common.base.dataset import check
from common.base.errors import UserError
from common.data.shared.download import DamagedError, describe, obtain
from papers.transfer_automl.ground import DesignTasks, Ground, TrainedGround
from papers.transfer_automl.local_tasks import LOCAL
from papers.transfer_automl.space import DesignSpace
from papers.transfer_automl.text_sources import SOURCES, WORD, Labelled, table
from papers.transfer_automl.two_tower import TextObjective, TwoTower

FOLDER = "text_tasks"
# of all examples, and the least that each part and each class must have
VALIDATION, TEST, LEAST = 0.1, 0.1, 2
# of source=synthetic: examples, classes, words
MADE_UP, MADE_UP_CLASSES, MADE_UP_WORDS = 200, 3, 400


class Part(NamedTuple):
    """The texts of one split as words, and their classes, int64 [n]."""

    texts: list[list[str]]
    labels: np.ndarray


@dataclass(frozen=True)
class TextTask:
    """A task with its splits, 80% / 10% / 10% where it has none of its own.

    Attributes:
        name: of the task.
        classes: their names, in the order of the labels.
        train, validation, test: see `Part`.
    """

    name: str
    classes: list[str]
    train: Part
    validation: Part
    test: Part


@dataclass(frozen=True)
class TaskFiles:
    """What says which texts a task has, for processes that read them themselves.

    Attributes:
        name: of the task, or the path of a table.
        data_dir: the folder of downloaded files.
        source: real, or synthetic for made-up words.
        limit: examples at most, drawn by the seed; None for all.
        seed: of the split.
        words: of a text that are kept at most.
    """

    name: str
    data_dir: str
    source: Origin
    limit: int | None
    seed: int
    words: int


@lru_cache(maxsize=32)
def read_task(files: TaskFiles) -> TextTask:
    """The texts of a task, drawn and split by the seed.

    Classes with fewer than 10 examples are left out, as no split could hold them.

    Raises:
        UserError: a file that is missing, damaged or without labels; fewer than two classes.
    """
    rows = made_up(files) if files.source == "synthetic" else _rows(files)
    counts = Counter(label for _, label in rows)
    classes = sorted(label for label, count in counts.items() if count >= 10)
    if len(classes) < 2:
        raise UserError(
            f"dataset.tasks: {files.name} has {len(counts)} labels, {len(classes)} of them with 10 "
            f"examples or "
            "more: a task needs two (valid: a text and its label in each row)"
        )
    known = [(text, label) for text, label in rows if counts[label] >= 10]
    order = np.random.default_rng((files.seed % 2**64, 7)).permutation(len(known))[: files.limit]
    number = {label: k for k, label in enumerate(classes)}
    texts = [[word.lower() for word in WORD.findall(known[k][0])][: files.words] for k in order]
    labels = np.array([number[known[k][1]] for k in order], dtype=np.int64)
    first, second = (round(len(order) * share) for share in (1 - VALIDATION - TEST, 1 - TEST))
    parts = [Part(texts[a:b], labels[a:b]) for a, b in ((0, first), (first, second), (second, len(order)))]
    if min(len(part.labels) for part in parts) < LEAST:
        raise UserError(f"dataset.limit={files.limit}: {files.name} has too few examples for three splits")
    return TextTask(files.name, classes, *parts)


def _rows(files: TaskFiles) -> Labelled:
    data_dir = Path(files.data_dir).expanduser()
    if files.name in LOCAL:
        return LOCAL[files.name](data_dir)
    if is_path(files.name):
        return own_table(Path(files.name).expanduser())
    source = SOURCES[files.name]
    advice = (
        f"put {source.file} into {(data_dir / FOLDER).resolve()} (it is described in papers/transfer_automl/"
        "README.md), or take dataset=text_table, which needs no files"
    )
    rows = obtain(data_dir / FOLDER / source.file, source.url, source.read, advice)
    if not rows:
        raise UserError(f"dataset.tasks: {data_dir / FOLDER / source.file} has no labelled text: {advice}")
    return rows


def own_table(path: Path) -> Labelled:
    """A user's own task: a table (.csv, .tsv) with the columns text and label.

    Raises:
        UserError: it is missing, has no such columns, or no labels.
    """
    try:
        return table(path, "text", "label", "\t" if path.suffix == ".tsv" else ",")
    except (OSError, DamagedError, csv.Error) as error:
        fault = DamagedError(str(error)) if isinstance(error, csv.Error) else error
        raise UserError(
            f"dataset.tasks: {describe(path, fault)} (valid: a table with the columns text and label)"
        ) from error


def is_path(name: str) -> bool:
    """Whether a task is a table of the user's own."""
    return name.endswith((".csv", ".tsv"))


def made_up(files: TaskFiles) -> Labelled:
    """Words without meaning, of which each class prefers some; the same for the same task."""
    random = np.random.default_rng(list(files.name.encode()))
    found = []
    for n in range(files.limit or MADE_UP):
        k = n % MADE_UP_CLASSES
        own = random.integers(0, 40, 4) + 40 * k
        words = [*own, *random.integers(0, MADE_UP_WORDS, 8)]
        found.append((" ".join(f"w{word}" for word in words), f"class{k}"))
    return found


class TextTasks(DesignTasks):
    """Tasks on which each design is trained.

    Args:
        kind: must be `design_tasks`.
        tasks: names out of the paper's 21 and our six, or paths of tables (.csv, .tsv) with the columns
            text and label.
        data_dir: the folder of downloaded files; those of the 21 lie in its folder text_tasks.
        source: real, or synthetic for made-up words, without any file.
        limit: examples at most, over all splits; null for all.
        seed: of the splits.
        words: of a text that are kept at most.

    Raises:
        UserError: a value out of range, an unknown task.
    """

    NAME: ClassVar = "text_tasks"

    def __init__(
        self,
        *,
        kind: str,
        tasks: list[str],
        data_dir: str,
        source: Origin,
        limit: int | None,
        seed: int,
        words: int,
    ) -> None:
        check("limit", limit, limit is None or limit >= 20, "give at least 20 examples, or null for all")
        check("words", words, words >= 1, "give at least 1")
        own = [name for name in tasks if is_path(name)]
        super().__init__(kind=kind, all_names=[*SOURCES, *LOCAL, *own], tasks=tasks)
        self.files = {name: TaskFiles(name, data_dir, source, limit, seed, words) for name in self.names}

    def sources(self) -> dict[str, Path]:
        """The files of the tasks that have one."""
        first = next(iter(self.files.values()))
        if first.source == "synthetic":
            return {}
        folder = Path(first.data_dir).expanduser()
        found = {name: folder / FOLDER / SOURCES[name].file for name in self.names if name in SOURCES}
        found |= {name: Path(name).expanduser() for name in self.names if is_path(name)}
        return found

    def ground(self, space: DesignSpace, seed: int, budget: float) -> Ground:
        if not isinstance(space, TwoTower):
            raise UserError("dataset=text_tasks is for designs of texts (valid: model=two_tower)")
        objectives = {
            name: TextObjective(space, files, read_task, seed, budget) for name, files in self.files.items()
        }
        return TextGround(objectives, space)


class TextGround(TrainedGround):
    """Trainings on texts; scores are shares of right answers, printed in per cent."""

    unit = 100.0

    def __init__(self, objectives: dict[str, TextObjective], space: TwoTower) -> None:
        super().__init__(dict(objectives), space, 1)
        self.substituted = space.substituted

    def facts(self) -> dict[str, float]:
        """substitute_embedding: how many embedding modules are hashed words in place of what they name."""
        return {"substitute_embedding": float(self.substituted)}
