"""Generated data sets: finite-sum logistic problems, an online stream, and a saddle."""

from typing import ClassVar, Unpack

import torch
from torch import Generator, Tensor

from common.data.base import Options, Part, Split, TensorData
from common.runs.errors import UserError

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


class LogisticStream(TensorData):
    """Fresh samples without end: unit rows of an anisotropic Gaussian, noisy labels, sigma = 1.

    a = g / ||g|| with g Gaussian of column scales from 1 down to 0.1 (log-spaced); y is the sign of
    a'w + 0.3 noise with w = (1, ..., 1) / sqrt d. As ||a|| = 1 and the logistic loss has slope at most 1,
    the gradient noise is at most sigma = 1. The start is -6 w, on the wrong side, where the gradient is
    0.3 and the nonconvex regulariser curves downwards.

    Attributes:
        width: standard normals that one sample takes.
        start: where methods begin, [d].
    """

    NAME: ClassVar = "logistic_stream"
    KIND: ClassVar = "stream"
    SHAPE: ClassVar = (FEATURES,)
    CLASSES: ClassVar = 2
    TRAIN_SIZE: ClassVar = 1_000
    TEST_SIZE: ClassVar = 1_000
    EVALUATION_SEED: ClassVar = 12_345

    width: ClassVar = FEATURES + 1
    _plane: ClassVar = torch.full((FEATURES,), FEATURES**-0.5, dtype=torch.float64)
    _scales: ClassVar = torch.logspace(0, -1, FEATURES, dtype=torch.float64)

    @property
    def start(self) -> Tensor:
        return -6 * self._plane

    def sample(self, normals: Tensor) -> tuple[Tensor, Tensor]:
        """Turn standard normals [..., width] into rows [..., d] of norm 1 and labels 0 or 1 [...]."""
        rows = normals[..., :FEATURES] * self._scales.to(normals)
        rows = rows / rows.norm(dim=-1, keepdim=True)
        margins = rows @ self._plane.to(normals) + 0.3 * normals[..., FEATURES]
        return rows, (margins > 0).long()

    def read(self, part: Part) -> Split:
        """A fixed sample of the stream (methods draw their own)."""
        generator = Generator().manual_seed(("train", "test").index(part))
        size = self.TRAIN_SIZE if part == "train" else self.TEST_SIZE
        return Split(*self.sample(torch.randn(size, self.width, generator=generator)))


class QuarticSaddle(TensorData):
    """The random signs s_i of f_i(x) = x'(A + s_i B)x / 2 + ||x||_4^4: half +1, half -1.

    Args:
        dim: of x.
        components: n, even.
        The others as in `TensorData`.

    Raises:
        UserError: dim < 2, or an odd number of components.
    """

    NAME: ClassVar = "quartic_saddle"
    KIND: ClassVar = "analytic"
    SHAPE: ClassVar[tuple[int, ...]]
    CLASSES: ClassVar = None
    TRAIN_SIZE: ClassVar = 1_000_000
    TEST_SIZE: ClassVar = 2

    def __init__(
        self,
        *,
        dim: int,
        components: int,
        **options: Unpack[Options],
    ) -> None:
        self.SHAPE = (dim,)  # type: ignore[misc]
        super().__init__(**options)
        if dim < 2:
            raise UserError(f"dataset.dim={dim}: give at least 2")
        if components < 2 or components % 2:
            raise UserError(f"dataset.components={components}: give an even number, at least 2")
        self.components = components

    def read(self, part: Part) -> Split:
        """Signs [n, 1], which sum to 0."""
        return Split(self._signs(self.components if part == "train" else self.TEST_SIZE), None)

    def random_inputs(self, count: int, generator: Generator) -> Tensor:
        """The same as `read`: there are no files to do without."""
        return self._signs(count + count % 2)

    @staticmethod
    def _signs(count: int) -> Tensor:
        return torch.tensor([1.0, -1.0]).repeat(count // 2)[:, None]
