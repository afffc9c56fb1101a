"""A table of measurements that were made once: what was measured, under which seed, after how much training.

One compressed file holds everything, numbers as arrays and words as JSON; nothing is unpickled. Benchmarks of
architecture search and of tuning are kept so.
"""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from common.base.errors import UserError
from common.base.files import whole

FORMAT = 1
# of the arrays in a file that are metrics
PREFIX = "metric/"


@dataclass(frozen=True)
class Measured:
    """Measurements of n things under s seeds at p points of their training.

    Attributes:
        about: where they come from, as plain data: in words what was done, the space and its settings, the
            commit of the code, versions of packages, the machine.
        keys: what was measured, n different texts.
        seeds: of the trainings, s different numbers.
        points: of a training, in the unit that `about` says, rising, p of them.
        metrics: by name float32 [n, s, p], NaN where nothing was measured.
        seconds: that each training took, float32 [n, s], NaN where there was none.
        facts: by name float64 [n], what does not depend on seeds, as the number of parameters.
    """

    about: dict[str, Any]
    keys: list[str]
    seeds: list[int]
    points: list[int]
    metrics: dict[str, np.ndarray]
    seconds: np.ndarray
    facts: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.keys), len(self.seeds), len(self.points))
        wrong = [name for name, values in self.metrics.items() if values.shape != shape]
        if wrong or self.seconds.shape != shape[:2] or any(f.shape != shape[:1] for f in self.facts.values()):
            raise UserError(
                f"a table of {shape[0]} keys, {shape[1]} seeds and {shape[2]} points has other arrays"
            )
        if len(self.rows) != len(self.keys) or len(set(self.seeds)) != len(self.seeds):
            raise UserError("a table has a key or a seed twice")

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of each key."""
        return {key: row for row, key in enumerate(self.keys)}

    def row(self, key: str, what: str = "") -> int:
        """The row of a key.

        Args:
            what: the key in the words of a user, for messages.

        Raises:
            UserError: it was not measured.
        """
        if key not in self.rows:
            raise UserError(f"the table of {len(self.keys)} has no {what or key}")
        return self.rows[key]

    def seed(self, seed: int) -> int:
        """The place of a seed.

        Raises:
            UserError: there are no measurements of it.
        """
        if seed not in self.seeds:
            raise UserError(f"seed={seed}: the table has the seeds {', '.join(map(str, self.seeds))}")
        return self.seeds.index(seed)

    def curve(self, key: str, metric: str, seed: int | None = None) -> np.ndarray:
        """A metric at all points, float32 [p]; without a seed the mean over those that were measured.

        Raises:
            UserError: a key, metric or seed that the table has not, or one that was never made.
        """
        if metric not in self.metrics:
            raise UserError(f"the table has no {metric}; valid: {', '.join(self.metrics)}")
        values = self.metrics[metric][self.row(key)]
        chosen = values if seed is None else values[[self.seed(seed)]]
        made = chosen[~np.isnan(chosen).all(1)]
        if not len(made):
            raise UserError(
                f"the table has no measurement of {key}" + ("" if seed is None else f" with seed={seed}")
            )
        mean: np.ndarray = made.mean(0)
        return mean

    def complete(self, seed: int) -> bool:
        """Whether everything was measured under a seed."""
        return not bool(np.isnan(self.seconds[:, self.seed(seed)]).any())

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all; the same table gives the same bytes."""
        words = {"format": FORMAT, "about": self.about, "keys": self.keys}
        words |= {"seeds": self.seeds, "points": self.points}
        arrays = {"words": np.frombuffer(json.dumps(words).encode(), np.uint8), "seconds": self.seconds}
        arrays |= {f"{PREFIX}{name}": values for name, values in self.metrics.items()}
        arrays |= {f"fact/{name}": values for name, values in self.facts.items()}
        with whole(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Measured":
        """The inverse of `save`.

        Raises:
            UserError: the file is missing, damaged, or no such table.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            words = json.loads(arrays["words"].tobytes())
            if words["format"] != FORMAT:
                raise ValueError(f"format {words['format']} instead of {FORMAT}")
        except Exception as error:
            raise UserError(f"table {path}: {type(error).__name__}: {str(error).splitlines()[0]}") from error
        metrics = {n.removeprefix(PREFIX): v for n, v in arrays.items() if n.startswith(PREFIX)}
        facts = {n.removeprefix("fact/"): v for n, v in arrays.items() if n.startswith("fact/")}
        return cls(
            words["about"], words["keys"], words["seeds"], words["points"], metrics, arrays["seconds"], facts
        )
