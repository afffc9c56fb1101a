"""Tables of real trainings: every network of a small space, trained once by this project, to be read.

`query` answers a user's question (an architecture in, a curve out); `TableObjective` lets a search read a
table in the place of training; `tabulate` makes a table from runs of `method=architecture_search/nao_every`.
"""

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.architectures.objective import ArchitectureObjective
from common.architectures.record import Record
from common.base.errors import UserError
from common.numerics.measured import Measured
from papers.nao.cell import ConvArchitecture, conv_architecture_of
from papers.nao.child_training import Score
from papers.nao.network import NAONet
from papers.nao.space import ConvSpace

# tables that come with the project, by the name of their data set
TABLES = {"digits": Path(__file__).with_name("digits_table.npz")}


class Curve(NamedTuple):
    """What the trainings of one architecture went through, means over seeds unless one was asked for.

    Attributes:
        steps: of the training.
        accuracy, loss: of the validation split after so many steps, in percent and nats.
        test: accuracy on the test split.
        parameters: of the network.
        seconds: that a training took.
    """

    steps: list[int]
    accuracy: list[float]
    loss: list[float]
    test: list[float]
    parameters: int
    seconds: float


@cache
def load(table: str) -> Measured:
    """A table by its name or the path of its file.

    Raises:
        UserError: there is none.
    """
    path = _path(table)
    if not path.exists():
        raise UserError(f"table {table}: {path} is missing (valid: a file that papers.nao.lookup has made)")
    return Measured.load(path)


def _path(table: str) -> Path:
    return TABLES.get(table, Path(table).expanduser())


def query(architecture: Any, seed: int | None = None, table: str = "digits") -> Curve:
    """How an architecture's training went.

    Args:
        architecture: as `conv_architecture_of` takes it: a string, a dictionary, a name.
        seed: of the training; None: the mean over all that were made.
        table: the name of one of the project's tables, or a file.

    Raises:
        UserError: no architecture, or one that the table lacks, a seed that it lacks.
    """
    measured, wanted = load(table), conv_architecture_of(architecture)
    row = measured.row(wanted.key, f"architecture {wanted.key}")
    curves = {name: measured.curve(wanted.key, name, seed).tolist() for name in ("accuracy", "loss", "test")}
    times = measured.seconds[row] if seed is None else measured.seconds[row, [measured.seed(seed)]]
    parameters = int(measured.facts["parameters"][row])
    return Curve(measured.points, **curves, parameters=parameters, seconds=float(np.nanmean(times)))


class TableObjective(ArchitectureObjective[ConvArchitecture]):
    """Scores that a table holds, at the latest point of training that a budget reaches.

    Args:
        space: of the architectures; all of them must be the table's.
        template: a network whose cells are exchanged, for `build`; None: nothing is built.
        table: see `load`.
        seed: of the search. It reads the trainings of this seed; where the table has none, those of the seed
            at place `seed` modulo their number, so that a table of few seeds serves searches of many.
        score: see `ChildRecipe`.

    Raises:
        UserError: no table.
    """

    def __init__(
        self, space: ConvSpace, template: NAONet | None, table: str, seed: int, score: Score
    ) -> None:
        seeds = load(table).seeds
        self.space, self.template, self.table, self.score = space, template, table, score
        self.seed = seed if seed in seeds else seeds[seed % len(seeds)]

    def sources(self) -> dict[str, Path]:
        path = _path(self.table)
        return {path.name: path}

    def build(self, architecture: ConvArchitecture) -> NAONet:
        """Its network.

        Raises:
            UserError: there is no template.
        """
        if self.template is None:
            raise UserError(f"table={self.table}: scores alone, no network (valid: a search of paper=nao)")
        return self.template.with_architecture(architecture.canonical)

    def count(self, architecture: ConvArchitecture) -> dict[str, float]:
        measured = load(self.table)
        row = measured.row(architecture.key, f"architecture {architecture.key}")
        return {name: float(values[row]) for name, values in measured.facts.items()}

    def train(self, architecture: ConvArchitecture, budget: int) -> dict[str, float]:
        """score, accuracy, loss and test, as `ChildObjective` measures them."""
        measured = load(self.table)
        reached = [number for number, point in enumerate(measured.points) if point <= budget]
        if not reached:
            raise UserError(
                f"a training of {budget} steps; valid by table={self.table}: from {measured.points[0]}"
            )
        at = reached[-1]
        measured.row(architecture.key, f"architecture {architecture.key}")
        values = {
            name: float(measured.curve(architecture.key, name, self.seed)[at])
            for name in ("accuracy", "loss", "test")
        }
        return {"score": values["accuracy"] if self.score == "accuracy" else -values["loss"], **values}


def tabulate(runs: list[Path], path: Path) -> Measured:
    """One table of finished runs that trained every architecture of a space, one run a seed; writes it.

    Args:
        runs: their folders.
        path: of the file.

    Raises:
        UserError: a run that is not finished, runs of different settings, one without curves.
    """
    results = [_read(run / "result.json") for run in runs]
    settings = [_settings(result) for result in results]
    if any(one != settings[0] for one in settings):
        raise UserError("the runs differ in more than their seeds")
    records = [_record(run) for run in runs]
    keys = [item.architecture.key for item in records[0]]
    first = records[0].items[0].measures
    points = sorted(int(name.partition("@")[2]) for name in first if name.startswith("accuracy@"))
    if not points:
        raise UserError("the runs have no curves (paper.looks=...)")
    by_key = [{item.architecture.key: item for item in record} for record in records]
    metrics = {
        name: np.array(
            [[[_of(one, key, f"{name}@{point}") for point in points] for one in by_key] for key in keys],
            np.float32,
        )
        for name in ("accuracy", "loss", "test")
    }
    seconds = [[one[key].seconds if key in one else np.nan for one in by_key] for key in keys]
    parameters = [by_key[0][key].costs["parameters"] for key in keys]
    about = {
        "what": "every network of a space, trained once a seed; accuracy and loss of the validation split, "
        "accuracy of the test split, after so many steps",
        "settings": settings[0],
        "commits": [result["commit"] for result in results],
        "code": [result["code"] for result in results],
    }
    table = Measured(
        about, keys, [result["seed"] for result in results], points, metrics,
        np.array(seconds, np.float32), {"parameters": np.array(parameters, np.float64)},
    )  # fmt: skip
    table.save(path)
    return table


def _of(one: dict[str, Any], key: str, name: str) -> float:
    return one[key].measures.get(name, np.nan) if key in one else np.nan


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no finished run ({type(error).__name__})") from error
    return found


def _settings(result: dict[str, Any]) -> dict[str, Any]:
    return {name: result["config"][name] for name in ("dataset", "model", "method", "paper")}


def _record(run: Path) -> Record[ConvArchitecture]:
    record: Record[ConvArchitecture] = Record()
    data = _read(run / "architectures.json")["search"]
    space = _any_space(data[0]["architecture"])
    for item in Record.from_json(data, space):
        record.add(item)
    return record


def _any_space(architecture: dict[str, Any]) -> ConvSpace:
    """A space with every operation that holds architectures of as many nodes."""
    from papers.nao.operations import OPERATIONS

    return ConvSpace(len(architecture["normal"]), tuple(OPERATIONS))


def main() -> None:
    """`python -m papers.nao.lookup FILE RUN ...`: make a table of the runs in these folders."""
    try:
        path, *runs = map(Path, sys.argv[1:])
        table = tabulate(runs, path)
    except (UserError, ValueError) as error:
        sys.exit(f"papers.nao.lookup: {error} (valid: python -m papers.nao.lookup FILE RUN ...)")
    print(
        f"{path}: {len(table.keys)} architectures, seeds {table.seeds}, {path.stat().st_size / 1000:.0f} kB"
    )


if __name__ == "__main__":
    main()
