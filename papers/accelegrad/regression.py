"""Generated instances of convex problems with known optima: A x ~ b for regression in the p-norm."""

from typing import ClassVar

import torch
from torch import Generator, Tensor

from common.base.dataset import Batch, SplitName, check
from common.base.generated import Generated
from common.base.loader import IndexLoader


class SyntheticRegression(Generated):
    """A [m, d] and b = A x + noise in float64, x standard normal.

    Args:
        kind: must be `convex_problem`.
        m, d: rows and columns.
        limit: a smaller instance of the same shape: at most so many rows, and columns in proportion; null
            for m and d.
        noise: its standard deviation; 0: A x = b has a solution.
        condition: null: A is standard normal; a number K: A has singular values from 1 down to 1/K,
            log-spaced, between random orthogonal matrices.
        seed_data: seed of the instance; apart from `seed`, so that all runs of a table share one.
        batch_size: rows of a stochastic gradient; null: all of them, exact.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "synthetic_regression"
    KIND: ClassVar = "convex_problem"
    TRAIN_SIZE: ClassVar = 2_000

    def __init__(
        self,
        *,
        kind: str,
        m: int,
        d: int,
        limit: int | None,
        noise: float,
        condition: float | None,
        seed_data: int,
        batch_size: int | None,
    ) -> None:
        super().__init__()
        check("kind", kind, kind == self.KIND, f"{self.NAME} is of kind {self.KIND}")
        check("d", d, d >= 1, "give at least 1 column")
        check("m", m, m >= d, f"give at least as many rows as columns ({d})")
        check("limit", limit, limit is None or limit >= 1, "give at least 1 row, or null")
        check("noise", noise, 0 <= noise < float("inf"), "give a finite number >= 0")
        valid = condition is None or 1 <= condition < float("inf")
        check("condition", condition, valid, "give a number >= 1, or null")
        check("batch_size", batch_size, batch_size is None or batch_size >= 1, "give at least 1, or null")
        if limit is not None and limit < m:
            m, d = limit, max(1, d * limit // m)
        self.m, self.d, self.noise, self.condition, self.seed_data = m, d, noise, condition, seed_data
        self.exact = batch_size is None
        self.batch_size = m if batch_size is None else batch_size
        self.shape, self.classes, self.normalise = (d,), None, "none"
        self.A: Tensor | None = None
        self.b: Tensor

    def setup(self, stage: str | None = None) -> None:
        """Generate the instance, once."""
        if self.A is not None:
            return
        random = Generator().manual_seed(self.seed_data)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random, dtype=torch.float64)

        A = normal(self.m, self.d)
        if self.condition is not None:
            left, _ = torch.linalg.qr(A)
            right, _ = torch.linalg.qr(normal(self.d, self.d))
            spectrum = self.condition ** -torch.linspace(0, 1, self.d, dtype=torch.float64)
            A = left * spectrum @ right.T
        self.A, self.b = A, A @ normal(self.d) + self.noise * normal(self.m)
        self.move(self.device)

    def move(self, device: torch.device | str) -> None:
        super().move(device)
        if self.A is not None:
            self.A, self.b = self.A.to(self.device), self.b.to(self.device)

    def size(self, split: SplitName) -> int:
        """Rows; 0 for the splits that there are not."""
        return self.m if split == "train" else 0

    def batch(self, split: SplitName, index: Tensor | slice, augment: bool) -> Batch:
        """Rows [k, d] and targets [k], float64."""
        if self.A is None:
            raise RuntimeError("call setup() before using the data")
        return self.A[index], self.b[index]

    def loader(self, seed: int) -> IndexLoader:
        return IndexLoader(self.m, self.batch_size, seed)

    def ready(self, item: Tensor) -> Batch:
        return self.batch("train", item, augment=False)
