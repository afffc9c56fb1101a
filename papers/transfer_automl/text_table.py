"""Every design of a small space trained on six real text tasks, so that searches need no training at all.

    python -m papers.transfer_automl.text_table processes=2

makes the file anew: each training is kept as soon as it is done, and the same command goes on after a kill.
"""

import io
import json
import platform
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import yaml

from common.architectures.evaluate import Job, Workers, evaluate_all
from common.base.errors import UserError
from common.base.files import whole
from papers.transfer_automl.ground import DesignTasks, Ground, TableGround
from papers.transfer_automl.local_tasks import LOCAL
from papers.transfer_automl.space import DesignSpace
from papers.transfer_automl.text_tasks import TaskFiles, read_task
from papers.transfer_automl.two_tower import TextObjective, TwoTower

PATH = Path(__file__).with_name("text_table.npz")
ROOT = Path(__file__).resolve().parents[2]
# what the table was made of
MODEL, LIMIT, WORDS, SEED, SHARE = "two_tower_small", 3000, 40, 0, 1.0
# trainings of which the files are written before the next are begun
AT_ONCE = 200


class Table:
    """What a file of trainings holds.

    Attributes:
        about: plain data: tasks, decisions, fixed (of the space), limit, words and seed (of the texts),
            commit, versions.
        validation, test: shares of right answers, float64 [T, designs] in the order of `DesignSpace.number`.
        seconds: of each training, float64 [T, designs].

    Raises:
        UserError: the file is missing, or no such table.
    """

    def __init__(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as found:
                self.about: dict[str, Any] = json.loads(str(found["about"]))
                self.validation, self.test = found["validation"] / 1.0, found["test"] / 1.0
                self.seconds = found["seconds"] / 1.0
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path} is missing or no table of trainings ({error}); valid: python -m "
                "papers.transfer_automl.text_table makes it"
            ) from error


@cache
def table() -> Table:
    """The table of this folder."""
    return Table(PATH)


class TextTable(DesignTasks):
    """Six text tasks whose scores are looked up; the model must be the space that was trained.

    Args:
        kind: must be `design_tasks`.
        tasks: which of them; null: all.

    Raises:
        UserError: an unknown task.
    """

    NAME: ClassVar = "text_table"

    def __init__(self, *, kind: str, tasks: list[str] | None) -> None:
        super().__init__(kind=kind, all_names=list(LOCAL), tasks=tasks)

    def sources(self) -> dict[str, Path]:
        return {PATH.name: PATH}

    def ground(self, space: DesignSpace, seed: int, budget: float) -> Ground:
        found = table()
        if space.decisions != found.about["decisions"]:
            raise UserError(
                f"dataset=text_table holds the trainings of model={MODEL}, and this model has other designs "
                f"(valid: model={MODEL} as it is, or dataset=text_tasks, which trains)"
            )
        rows = [found.about["tasks"].index(name) for name in self.names]
        substituted = float(found.about["substitute_embedding"])
        validation, test = (torch.from_numpy(one[rows]) for one in (found.validation, found.test))
        return TextTableGround(self.names, space, validation, test, substituted)


class TextTableGround(TableGround):
    """Shares of right answers, printed in per cent."""

    unit = 100.0

    def __init__(
        self,
        names: list[str],
        space: DesignSpace,
        validation: torch.Tensor,
        test: torch.Tensor,
        substituted: float,
    ) -> None:
        super().__init__(names, space, validation, test)
        self.substituted = substituted

    def facts(self) -> dict[str, float]:
        """substitute_embedding: how many embedding modules are hashed words."""
        return {"substitute_embedding": self.substituted}


def small_space() -> TwoTower:
    """The space of the table, as its config has it."""
    settings = yaml.safe_load((ROOT / "conf" / "model" / f"{MODEL}.yaml").read_text())
    settings.pop("_target_")
    return TwoTower(shape=(1,), classes=None, **settings)


def objectives(space: TwoTower, data_dir: str) -> dict[str, TextObjective]:
    """By task what trains a design of the table."""
    files = {name: TaskFiles(name, data_dir, "real", LIMIT, SEED, WORDS) for name in LOCAL}
    return {name: TextObjective(space, one, read_task, SEED, SHARE) for name, one in files.items()}


def make(path: Path, scratch: Path, data_dir: str, workers: Workers) -> None:
    """Train what is not trained yet, and write the table."""
    space = small_space()
    codes = space.codes(torch.arange(space.size)).tolist()
    arrays = {name: np.zeros((len(LOCAL), space.size)) for name in ("validation", "test", "seconds")}
    for row, (name, objective) in enumerate(objectives(space, data_dir).items()):
        jobs = [
            Job(objective, space.decode(tuple(code)), 1, scratch / name / f"{number}.json")
            for number, code in enumerate(codes)
        ]
        for start in range(0, len(jobs), AT_ONCE):
            found = evaluate_all(jobs[start : start + AT_ONCE], workers)
            for column, one in enumerate(found, start):
                arrays["validation"][row, column] = one.score
                arrays["test"][row, column] = one.measures.get("test", np.nan)
                arrays["seconds"][row, column] = one.seconds
            print(f"{name}: {min(start + AT_ONCE, len(jobs))} of {len(jobs)} designs", file=sys.stderr)
    about = {
        "tasks": list(LOCAL),
        "decisions": space.decisions,
        "fixed": space.fixed,
        "substitute_embedding": space.substituted,
        "limit": LIMIT,
        "words": WORDS,
        "seed": SEED,
        "commit": _commit(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    plain = {name: array.astype(np.float32) for name, array in arrays.items()}
    content = io.BytesIO()
    np.savez_compressed(content, about=np.array(json.dumps(about)), **plain)  # type: ignore[arg-type]
    with whole(path) as partial:
        partial.write_bytes(content.getvalue())


def _commit() -> str:
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip()


def main(words: list[str]) -> None:
    """Make the table: processes=2 data_dir=data scratch=outputs/text_table."""
    settings = {"processes": "1", "data_dir": "data", "scratch": "outputs/text_table"}
    for word in words:
        key, _, value = word.partition("=")
        if key not in settings or not value:
            raise SystemExit(f"{word}: unknown (valid: {', '.join(f'{k}={v}' for k, v in settings.items())})")
        settings[key] = value
    workers = Workers(processes=int(settings["processes"]))
    try:
        make(PATH, Path(settings["scratch"]), settings["data_dir"], workers)
    except UserError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main(sys.argv[1:])
