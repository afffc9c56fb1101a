"""What SPIDER's rates are measured on: a stream of fresh samples, and the signs of a saddle's components."""

from typing import ClassVar, Unpack

import torch
from torch import Generator, Tensor

from common.base.errors import UserError
from common.data.shared.in_memory import Options, Part, Split, TensorData
from common.data.tables.synthetic import FEATURES


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
