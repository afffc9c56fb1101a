"""The authors' recorded runs of auto-sklearn on 49 data sets: shown as they are, nothing is run."""

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from common.base.dataset import check
from common.base.errors import UserError
from common.base.objective import Objective, arms
from papers.pmf_automl.recommender import Known
from papers.pmf_automl.scores import MADE_UP_SEED

Array = np.ndarray

FILE = "automl/autosklearn_runs.npz"
RUNS, ITERATIONS = 49, 200


class OpenML49(Objective):
    """Test AUC (macro, of hard labels) of each of the first 200 iterations of auto-sklearn, on 49 data sets.

    Recomputed from `paper_output_equal.json` and `paper_output_default.json` of elibol/amle.

    Args:
        kind: must be `objective`.
        source: `real`, or `synthetic`: made-up curves.
        data_dir: holds `automl/autosklearn_runs.npz`.

    Attributes:
        equal, default: [49, 200]: restricted to the paper's pipelines, and as auto-sklearn is by default.

    Raises:
        UserError: the file is missing or damaged.
    """

    NAME: ClassVar = "openml49"

    def __init__(self, *, kind: str, source: Literal["real", "synthetic"], data_dir: str) -> None:
        check("source", source, source in ("real", "synthetic"), "real or synthetic")
        super().__init__(
            kind=kind, space=arms(torch.arange(ITERATIONS, dtype=torch.float64)[:, None]), noise=0.0
        )
        self.source, self.data_dir = source, Path(data_dir)

    def setup(self, stage: str | None = None) -> None:
        if self.source == "synthetic":
            random = np.random.default_rng(MADE_UP_SEED)
            self.equal, self.default = random.uniform(0.5, 0.9, (2, RUNS, ITERATIONS))
            return
        path = self.data_dir / FILE
        try:
            with np.load(path, allow_pickle=False) as file:
                self.equal, self.default = (
                    file[name].astype(np.float64) for name in ("auc_equal", "auc_default")
                )
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{path.resolve()} is missing or damaged ({type(error).__name__}): made from the result "
                "files of "
                "github.com/elibol/amle (valid: that file, or dataset.source=synthetic)"
            ) from error

    def sources(self) -> dict[str, Path]:
        """The file of curves."""
        return {FILE: self.data_dir / FILE}

    def draw(self, seeds: list[int]) -> None:
        """Nothing is random."""

    def values(self, x: Tensor) -> Tensor:
        return torch.full(x.shape[:2], torch.nan, dtype=torch.float64, device=x.device)

    def optimum(self) -> None:
        return None


class AutoSklearn(Known):
    """The recorded curves, all data sets at once: the mean of the best test AUC so far.

    Args:
        space: `equal` (the paper's pipelines) or `default`.
    """

    NAME: ClassVar = "auto_sklearn"

    def __init__(self, *, space: Literal["equal", "default"]) -> None:
        self.space = space

    def outcomes(self, t: int) -> list[tuple[Array, Array]]:
        curves = self.curves
        best = np.fmax.accumulate(curves, 1)[:, t - 1]
        return [(np.array([value]), np.ones(1)) for value in best]

    def of(self, data: OpenML49) -> None:
        """Take the curves of a data set."""
        self.curves: Array = data.equal if self.space == "equal" else data.default
