"""Matrices of scores, pipelines x data sets: what recommenders learn from, and what they are judged on."""

import csv
import io
import json
import zipfile
from abc import abstractmethod
from ast import literal_eval
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Generator, Tensor

from common.base.dataset import check
from common.base.errors import UserError
from common.base.objective import Objective, arms
from common.data.shared.download import DamagedError, obtain

Array = np.ndarray

# rsheth80/pmf-automl at commit 18c35e0b, udellgroup/oboe at 9c5b47d8
PMF_URL = "https://raw.githubusercontent.com/rsheth80/pmf-automl/18c35e0b2e482157640210ed1ddfb7331c1bd1e7/"
OBOE_URL = "https://raw.githubusercontent.com/udellgroup/oboe/9c5b47d8/oboe/defaults/Oboe/error_matrix.csv"
PMF_FOLDER, OBOE_FILE = "pmf_automl", "oboe/error_matrix.csv"
SCORES_ZIP = "all_normalized_accuracy_with_pipelineID.zip"
TRAIN_IDS, TEST_IDS, FEATURES = "ids_train.csv", "ids_test.csv", "data_feats_featurized.csv"
PIPELINES = "pipelines.json"
ADVICE = "fetch it by hand and put it there, or use dataset.source=synthetic"
WHOLE_ADVICE = "fetch it by hand and put it there, or use dataset.source=stand_in, the Oboe matrix"
# of the entries that are left out, of made-up scores, and of the split of a matrix without one
GAPS_SEED, MADE_UP_SEED, SPLIT_SEED = 20_181, 20_182, 20_183
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Matrix:
    """Scores of N pipelines, higher better.

    Attributes:
        train, test: [N, D] and [N, D'] float64, NaN where nothing is known.
        train_features, test_features: meta-features of the data sets, [D, p] and [D', p]; p = 0 without any.
        train_names, test_names: of the data sets. pipelines: their names, N.
        descriptions: of each pipeline its parts as flat settings; None where nothing says them.
    """

    train: Array
    test: Array
    train_features: Array
    test_features: Array
    train_names: tuple[str, ...]
    test_names: tuple[str, ...]
    pipelines: tuple[str, ...]
    descriptions: tuple[dict[str, Any], ...] | None


class PipelineScores(Objective):
    """A search for the best pipeline on test data sets: arms are pipelines, f is the recorded score.

    Replicate with seed s has the test data set s (mod D'). Pipelines without a score there are no
    candidates; f of one is NaN.

    Args:
        kind: must be `objective`.
        missing: this share of the training matrix is left out, by a fixed seed.
        pipelines: N, as far as it is known before the files are read.

    Attributes:
        matrix: see `Matrix`; there after `setup`.

    Raises:
        UserError: a value out of range.
    """

    matrix: Matrix
    metric: str = "score"

    def __init__(self, *, kind: str, missing: float, pipelines: int) -> None:
        check("missing", missing, 0 <= missing < 1, "give a number from 0 to below 1")
        space = arms(torch.arange(pipelines, dtype=torch.float64)[:, None])
        super().__init__(kind=kind, space=space, noise=0.0)
        self.missing = missing

    @abstractmethod
    def load(self) -> Matrix:
        """Read or make the matrix.

        Raises:
            UserError: a file is missing or damaged.
        """

    def setup(self, stage: str | None = None) -> None:
        if not hasattr(self, "matrix"):
            self.matrix = with_gaps(self.load(), self.missing)
            _check(self.NAME, self.matrix)
            self.space = arms(torch.arange(len(self.matrix.pipelines), dtype=torch.float64)[:, None])

    def draw(self, seeds: list[int]) -> None:
        self.columns = [seed % self.matrix.test.shape[1] for seed in seeds]
        self.mine = torch.from_numpy(self.matrix.test.T[self.columns].copy()).to(self.device)

    def values(self, x: Tensor) -> Tensor:
        return self.mine.gather(1, x[..., 0].long())

    def optimum(self) -> Tensor:
        return torch.where(self.mine.isnan(), -torch.inf, self.mine).max(1).values

    @property
    def candidates(self) -> Tensor:
        """Which pipelines have a score on each replicate's data set, bool [R, N]."""
        return ~self.mine.isnan()

    @property
    def train(self) -> Tensor:
        """The training matrix [N, D] on the device."""
        return torch.from_numpy(self.matrix.train).to(self.device)


def with_gaps(matrix: Matrix, share: float) -> Matrix:
    """The matrix without a share of its training entries, drawn once by a fixed seed."""
    if not share:
        return matrix
    generator = Generator().manual_seed(GAPS_SEED)
    gone = (torch.rand(matrix.train.shape, generator=generator, dtype=torch.float64) < share).numpy()
    return Matrix(**{**vars(matrix), "train": np.where(gone, np.nan, matrix.train)})


def _check(name: str, matrix: Matrix) -> None:
    """Refuse what nothing can be learnt from or judged on, and say what is never observed.

    Raises:
        UserError: no training or test data set, or a test data set without any score.
    """
    for part, scores, names in (
        ("training", matrix.train, matrix.train_names),
        ("test", matrix.test, matrix.test_names),
    ):
        if not scores.size:
            raise UserError(f"dataset={name}: it has no {part} data set; valid: at least one")
        if np.isinf(scores).any():
            row, column = np.argwhere(np.isinf(scores))[0]
            raise UserError(
                f"dataset={name}: the score of {matrix.pipelines[row]!r} on {names[column]!r} is infinite "
                "(valid: a number, or an empty cell where it failed)"
            )
    empty = np.flatnonzero(np.isnan(matrix.test).all(0))
    if len(empty):
        raise UserError(
            f"dataset={name}: the test data set {matrix.test_names[empty[0]]!r} has no score at all, so "
            "there is "
            "nothing to find on it (valid: data sets with at least one)"
        )
    never = int(np.isnan(matrix.train).all(1).sum())
    if never:
        print(
            f"[{name}] {never} of {len(matrix.train)} pipelines have no score on any training data set: "
            "nothing is "
            "learnt of them, and they stay candidates"
        )
    unseen = int(np.isnan(matrix.train).all(0).sum())
    if unseen:
        print(f"[{name}] {unseen} training data sets have no score at all: they count for nothing")


class Oboe219(PipelineScores):
    """The error matrix of Oboe (Yang et al. 2019): 219 scikit-learn pipelines on OpenML data sets.

    The score is 1 - balanced error. Of its 418 data sets the 318 that the paper has are taken, with the
    paper's split (266 training, 52 test) and meta-features.

    Args:
        kind, missing: see `PipelineScores`.
        source: `real`, or `synthetic`: made-up scores of the same shape.
        data_dir: holds `oboe/` and `pmf_automl/`; what is missing there is downloaded.
    """

    NAME: ClassVar = "oboe219"
    PIPELINES: ClassVar = 219

    def __init__(
        self, *, kind: str, source: Literal["real", "synthetic"], data_dir: str, missing: float
    ) -> None:
        super().__init__(kind=kind, missing=missing, pipelines=self.PIPELINES)
        self.source, self.data_dir = source, Path(data_dir)

    def load(self) -> Matrix:
        return made_up(self.PIPELINES, 60, 20) if self.source == "synthetic" else read_oboe(self.data_dir)

    def sources(self) -> dict[str, Path]:
        """The files of scores, split and meta-features."""
        names = [OBOE_FILE, *(f"{PMF_FOLDER}/{name}" for name in (TRAIN_IDS, TEST_IDS, FEATURES))]
        return {name: self.data_dir / name for name in names}


class OpenML553(PipelineScores):
    """The paper's matrix: balanced accuracy of 42,000 pipelines on 553 OpenML data sets, many missing.

    Args:
        kind, missing: see `PipelineScores`.
        source: `real`: the authors' file, tens of MB, downloaded where it is missing; `stand_in`: the Oboe
            matrix in its place, which is said; `synthetic`: made-up scores.
        data_dir: holds `pmf_automl/`.
        compared: whether the five test data sets are left out on which a method of the paper's comparison
            failed (8, 197, 279, 887, 1472), so that 84 remain.
    """

    NAME: ClassVar = "openml553_42k"
    PIPELINES: ClassVar = 42_000
    FAILED: ClassVar = ("8", "197", "279", "887", "1472")

    def __init__(
        self,
        *,
        kind: str,
        source: Literal["real", "stand_in", "synthetic"],
        data_dir: str,
        missing: float,
        compared: bool,
    ) -> None:
        count = self.PIPELINES if source == "real" else Oboe219.PIPELINES
        super().__init__(kind=kind, missing=missing, pipelines=count)
        self.source, self.data_dir, self.compared = source, Path(data_dir), compared

    def load(self) -> Matrix:
        if self.source == "synthetic":
            return made_up(Oboe219.PIPELINES, 60, 20)
        if self.source == "stand_in":
            print(
                f"[{self.NAME}] the Oboe matrix (219 pipelines, 266 training and 52 test data sets) stands "
                "in for "
                "the paper's 42,000 x 553, so its numbers are not the paper's"
            )
            return read_oboe(self.data_dir)
        folder = self.data_dir / PMF_FOLDER
        pipelines, names, scores = obtain(folder / SCORES_ZIP, PMF_URL + SCORES_ZIP, read_zip, WHOLE_ADVICE)
        descriptions = None
        if (folder / PIPELINES).is_file():
            descriptions = read_descriptions(folder / PIPELINES, len(pipelines))
        return split(
            scores, names, pipelines, descriptions, self.data_dir, self.FAILED if self.compared else ()
        )

    def sources(self) -> dict[str, Path]:
        """The files of scores, split and meta-features; of the stand-in its own."""
        names = [f"{PMF_FOLDER}/{name}" for name in (TRAIN_IDS, TEST_IDS, FEATURES)]
        names.append(f"{PMF_FOLDER}/{SCORES_ZIP}" if self.source == "real" else OBOE_FILE)
        return {name: self.data_dir / name for name in names}


class OwnScores(PipelineScores):
    """A matrix of the user's own: CSV, a row a pipeline, a column a data set, empty where nothing is known.

    The first column names the pipelines, the first row the data sets. There are no meta-features.

    Args:
        kind, missing: see `PipelineScores`.
        path: of the file. test: names of the columns that are searched; none: a fifth, drawn by a fixed seed.
        better: `higher`, or `lower` for errors (then the score is minus the error).

    Raises:
        UserError: a file that is missing or broken (its line is named), or a column that is not there.
    """

    NAME: ClassVar = "scores_table"

    def __init__(
        self, *, kind: str, path: str, test: list[str], better: Literal["higher", "lower"], missing: float
    ) -> None:
        check("path", path, bool(path), "give a CSV file of scores, pipelines x data sets")
        super().__init__(kind=kind, missing=missing, pipelines=2)
        self.path, self.test, self.better = Path(path).expanduser(), [str(name) for name in test], better

    def load(self) -> Matrix:
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"dataset.path={self.path}: cannot be read ({error}); valid: a CSV file"
            ) from error
        try:
            pipelines, names, scores = parse_scores(text)
        except DamagedError as error:
            raise UserError(f"dataset.path={self.path}: {error}") from error
        scores = scores if self.better == "higher" else -scores
        kept = ~np.isnan(scores).all(1)
        if not kept.all():
            left = [pipelines[i] for i in np.flatnonzero(~kept)]
            print(f"[{self.NAME}] {len(left)} rows without any score are left out: {', '.join(left[:5])}")
            pipelines, scores = tuple(np.array(pipelines)[kept]), scores[kept]
        unknown = [name for name in self.test if name not in names]
        if unknown:
            raise UserError(f"dataset.test={unknown[0]}: no such column (valid: {', '.join(names[:20])})")
        chosen = np.isin(names, self.test) if self.test else _drawn(len(names))
        order = np.arange(len(names))
        train, tested = order[~chosen], order[chosen]
        return Matrix(
            scores[:, train],
            scores[:, tested],
            np.zeros((len(train), 0)),
            np.zeros((len(tested), 0)),
            tuple(names[i] for i in train),
            tuple(names[i] for i in tested),
            tuple(pipelines),
            None,
        )

    def sources(self) -> dict[str, Path]:
        """The file of scores."""
        return {"scores": self.path}


def _drawn(count: int) -> Array:
    """Which of the data sets are searched, bool: a fifth, at least one."""
    order = torch.randperm(count, generator=Generator().manual_seed(SPLIT_SEED)).numpy()
    chosen = np.zeros(count, bool)
    chosen[order[: max(round(TEST_SHARE * count), 1)]] = True
    return chosen


def parse_scores(text: str) -> tuple[tuple[str, ...], tuple[str, ...], Array]:
    """Pipelines, data sets and scores [N, D] of a CSV with names in its first row and column.

    Raises:
        DamagedError: a row of another length, a cell that is no number, or a name twice; the line is said.
    """
    rows = list(csv.reader(io.StringIO(text)))
    rows = [row for row in rows if row]
    if len(rows) < 2 or len(rows[0]) < 2:
        raise DamagedError("it needs names in the first row and column, and scores (valid: a CSV of both)")
    names = tuple(rows[0][1:])
    pipelines, scores = [], np.full((len(rows) - 1, len(names)), np.nan)
    for number, row in enumerate(rows[1:]):
        if len(row) != len(rows[0]):
            raise DamagedError(
                f"line {number + 2} has {len(row)} cells (valid: {len(rows[0])}, as the first row has)"
            )
        pipelines.append(row[0])
        for place, cell in enumerate(row[1:]):
            try:
                scores[number, place] = float(cell) if cell.strip() else np.nan
            except ValueError:
                raise DamagedError(
                    f"line {number + 2}, column {names[place]!r}: {cell!r} is no number (valid: one, or an "
                    "empty cell)"
                ) from None
    for what, found in (("pipelines", pipelines), ("data sets", names)):
        twice = [name for name in dict.fromkeys(found) if list(found).count(name) > 1]
        if twice:
            raise DamagedError(f"two {what} are named {twice[0]!r} (valid: each name once)")
    return tuple(pipelines), names, scores


def read_oboe(data_dir: Path) -> Matrix:
    """The Oboe matrix on the paper's data sets, by the paper's split.

    Raises:
        UserError: a file is missing or damaged and cannot be fetched.
    """
    names, scores, descriptions = obtain(data_dir / OBOE_FILE, OBOE_URL, _parse_oboe, ADVICE)
    pipelines = tuple(
        " ".join([one["algorithm"], *(f"{k}={v}" for k, v in one["hyperparameters"].items())])
        for one in descriptions
    )
    return split(scores, names, pipelines, [flat(one) for one in descriptions], data_dir, ())


def read_oboe_whole(data_dir: Path) -> tuple[Matrix, list[dict[str, Any]], list[str]]:
    """Oboe's matrix with all data sets that have meta-features as training ones, for a data set of one's own.

    Returns:
        The matrix, without test data sets; its pipelines as Oboe writes them; and the names of meta-features.

    Raises:
        UserError: a file is missing or damaged and cannot be fetched.
    """
    names, scores, descriptions = obtain(data_dir / OBOE_FILE, OBOE_URL, _parse_oboe, ADVICE)
    _, _, features, told = read_split(data_dir)
    kept = [i for i, name in enumerate(names) if name in features]
    known = np.array([features[names[i]] for i in kept])
    pipelines = tuple(str(one) for one in descriptions)
    none, nothing = np.zeros((len(pipelines), 0)), np.zeros((0, known.shape[1]))
    labels = tuple(names[i] for i in kept)
    flatly = tuple(flat(one) for one in descriptions)
    return Matrix(scores[:, kept], none, known, nothing, labels, (), pipelines, flatly), descriptions, told


def _parse_oboe(path: Path) -> tuple[tuple[str, ...], Array, list[dict[str, Any]]]:
    """Data sets, scores [N, D] (1 - balanced error) and pipelines of Oboe's file."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    try:
        descriptions = [literal_eval(cell) for cell in rows[0][1:]]
        names = tuple(str(int(row[0])) for row in rows[1:])
        errors = np.array([[float(cell) for cell in row[1:]] for row in rows[1:]])
    except (ValueError, SyntaxError, IndexError) as error:
        raise DamagedError(f"not the table of errors that it should be ({type(error).__name__})") from error
    if errors.shape != (len(names), len(descriptions)) or not np.isfinite(errors).all():
        raise DamagedError(f"errors of shape {errors.shape}, or such that are not finite")
    return names, 1 - errors.T, descriptions


def read_zip(path: Path) -> tuple[tuple[str, ...], tuple[str, ...], Array]:
    """Pipelines, data sets and scores of the authors' zipped CSV."""
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = [n for n in archive.namelist() if n.endswith(".csv") and not n.startswith("__")]
            with archive.open(name) as file:
                rows = csv.reader(io.TextIOWrapper(file, encoding="utf-8", newline=""))
                names = tuple(str(int(float(cell))) for cell in next(rows)[1:])
                pipelines, scores = [], []
                for row in rows:
                    pipelines.append(row[0])
                    scores.append(np.array([float(cell) if cell else np.nan for cell in row[1:]]))
            table = np.array(scores)
    except (zipfile.BadZipFile, ValueError, OSError, StopIteration) as error:
        raise DamagedError(
            f"not the zipped table of scores that it should be ({type(error).__name__})"
        ) from error
    if table.ndim != 2 or table.shape[1] != len(names):
        raise DamagedError(f"scores of shape {table.shape} for {len(names)} data sets")
    return tuple(pipelines), names, table


def read_descriptions(path: Path, count: int) -> list[dict[str, Any]]:
    """The flat settings of each pipeline of `pipelines.json`.

    Raises:
        UserError: no such list or object of `count` pipelines.
    """
    try:
        content = json.loads(path.read_text())
        found = list(content.values()) if isinstance(content, dict) else list(content)
    except (ValueError, TypeError, OSError) as error:
        raise UserError(
            f"{path}: no JSON of pipelines ({type(error).__name__}); valid: the authors' file"
        ) from error
    if len(found) != count:
        raise UserError(f"{path}: {len(found)} pipelines; valid: {count}, one for each row of scores")
    return [flat(one) for one in found]


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested settings as one dict, keys joined by dots; of a list by their numbers."""
    if isinstance(value, dict):
        items: list[tuple[str, Any]] = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list):
        items = [(str(number), inner) for number, inner in enumerate(value)]
    else:
        return {name: value}
    return {k: v for key, inner in items for k, v in flat(inner, f"{name}.{key}" if name else key).items()}


def numbers_of(descriptions: Sequence[dict[str, Any]]) -> Array:
    """Pipelines as rows of numbers [N, p], for models that read their settings.

    Numbers are scaled to [0, 1] by their rank among their different values; everything else, and whether a
    setting is there at all, is one column a value.
    """
    columns = []
    for key in dict.fromkeys(key for one in descriptions for key in one):
        cells = [one.get(key) for one in descriptions]
        given = [cell for cell in cells if cell is not None]
        if all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in given):
            levels = sorted(set(given))
            place = {level: (i + 1) / len(levels) for i, level in enumerate(levels)}
            columns.append([place.get(cell, 0.0) for cell in cells])
        else:
            words = dict.fromkeys(map(repr, given))
            columns += [[float(repr(cell) == word) for cell in cells] for word in words]
    return np.array(columns, dtype=np.float64).T.reshape(len(descriptions), -1)


def read_split(data_dir: Path) -> tuple[list[str], list[str], dict[str, Array], list[str]]:
    """The paper's training and test data sets, meta-features [46] of each by its id, and their names."""
    folder = data_dir / PMF_FOLDER
    train, test = (
        obtain(folder / name, PMF_URL + name, _parse_ids, ADVICE) for name in (TRAIN_IDS, TEST_IDS)
    )
    features, names = obtain(folder / FEATURES, PMF_URL + FEATURES, _parse_features, ADVICE)
    return train, test, features, names


def _parse_ids(path: Path) -> list[str]:
    try:
        return [str(int(float(line))) for line in path.read_text().split() if line]
    except ValueError as error:
        raise DamagedError("not the list of numbers that it should be") from error


def _parse_features(path: Path) -> tuple[dict[str, Array], list[str]]:
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    try:
        found = {
            str(int(float(row[0]))): np.array([float(cell) if cell else np.nan for cell in row[1:]])
            for row in rows[1:]
        }
    except ValueError as error:
        raise DamagedError("not the table of numbers that it should be") from error
    if any(len(values) != len(rows[0]) - 1 for values in found.values()):
        raise DamagedError("rows of different lengths")
    return found, rows[0][1:]


def split(
    scores: Array,
    names: Sequence[str],
    pipelines: tuple[str, ...],
    descriptions: Sequence[dict[str, Any]] | None,
    data_dir: Path,
    without: Sequence[str],
) -> Matrix:
    """The matrix on the paper's data sets, by its split, without some of the test data sets."""
    train, test, features, _ = read_split(data_dir)
    place = {name: i for i, name in enumerate(names)}
    parts = [[name for name in ids if name in place and name in features] for ids in (train, test)]
    parts[1] = [name for name in parts[1] if name not in without]
    cut = [scores[:, [place[name] for name in part]] for part in parts]
    # a test data set without any score has nothing to be found on it
    known = ~np.isnan(cut[1]).all(0)
    cut[1], parts[1] = cut[1][:, known], [name for name, there in zip(parts[1], known, strict=True) if there]
    told = [np.array([features[name] for name in part]) for part in parts]
    described = None if descriptions is None else tuple(descriptions)
    return Matrix(cut[0], cut[1], told[0], told[1], tuple(parts[0]), tuple(parts[1]), pipelines, described)


def made_up(pipelines: int, train: int, test: int) -> Matrix:
    """Seeded scores of families of pipelines: what a pipeline has depends on three traits of the data set."""
    generator = Generator().manual_seed(MADE_UP_SEED)

    def normal(*shape: int) -> Array:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).numpy()

    families = np.arange(pipelines) * 12 // pipelines
    of_pipelines = normal(12, 3)[families] + 0.3 * normal(pipelines, 3)
    traits = normal(train + test, 3)
    latent = 0.5 * of_pipelines @ traits.T + normal(pipelines)[:, None] * 0.3 + normal(train + test) * 0.5
    scores = 1 / (1 + np.exp(-(1 + latent + 0.1 * normal(pipelines, train + test))))
    features = np.hstack([traits, normal(train + test, 2)]) + 0.1 * normal(train + test, 5)
    names = tuple(f"made_up_{i}" for i in range(train + test))
    descriptions = tuple({"algorithm": f"A{f}", "setting": int(i)} for i, f in enumerate(families))
    labels = tuple(f"A{f} setting={i}" for i, f in enumerate(families))
    return Matrix(
        scores[:, :train],
        scores[:, train:],
        features[:train],
        features[train:],
        names[:train],
        names[train:],
        labels,
        descriptions,
    )
