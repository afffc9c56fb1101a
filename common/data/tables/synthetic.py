"""Generated tables: logistic problems of any number of rows."""

from typing import ClassVar, Unpack

import torch
from torch import Generator

from common.base.errors import UserError
from common.data.shared.in_memory import Options, Part, Split, TensorData

FEATURES = 20


class SyntheticLogistic(TensorData):
    """Two classes by an ill-conditioned Gaussian design, for counting gradient calls.

    Rows a_i are Gaussian with column scales from 1 down to 0.1 (log-spaced), all divided by the norm of the
    longest training row; labels are the sign of a_i'w + 0.5 noise with w = 3 times a standard normal
    vector. 1,000 test rows come from the same design.

    Args:
        n: training rows.
        seed_data: seed of the design; apart from `seed`, so that all runs of a table share one problem.
        The others as in `TensorData`.

    Raises:
        UserError: n < 2.
    """

    NAME: ClassVar = "synthetic_logistic"
    KIND: ClassVar = "tabular_classification"
    SHAPE: ClassVar = (FEATURES,)
    CLASSES: ClassVar = 2
    TRAIN_SIZE: ClassVar = 100_000
    TEST_SIZE: ClassVar = 1_000

    def __init__(
        self,
        *,
        n: int,
        seed_data: int,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**options)
        if n < 2:
            raise UserError(f"dataset.n={n}: give at least 2 rows")
        self.n, self.seed_data = n, seed_data

    def read(self, part: Part) -> Split:
        """Generated, float32 rows and labels 0 or 1."""
        generator = Generator().manual_seed(self.seed_data)
        rows = torch.randn(self.n + self.TEST_SIZE, FEATURES, generator=generator, dtype=torch.float64)
        rows *= torch.logspace(0, -1, FEATURES, dtype=torch.float64)
        rows /= rows[: self.n].norm(dim=1).max()
        w = 3 * torch.randn(FEATURES, generator=generator, dtype=torch.float64)
        noise = 0.5 * torch.randn(len(rows), generator=generator, dtype=torch.float64)
        labels = (rows @ w + noise > 0).long()
        chosen = slice(None, self.n) if part == "train" else slice(self.n, None)
        return Split(rows[chosen].float(), labels[chosen])
