"""Streams for functions that come one a step, f_1, f_2, ...: what a step's function adds to the fixed part.

An epoch is a number of steps, so that curves and means have a scale; there is nothing to test on.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from torch import Tensor

from common.base.dataset import Batch, SplitName, check
from common.base.generated import Generated
from common.base.loader import BlockLoader


class DrawLoader(BlockLoader):
    """Blocks of the vectors that `draw(seed, epoch)` gives for an epoch, one a step.

    Args:
        draw: (seed, epoch) -> [steps, d], the same whenever it is called.
        steps: of an epoch.
        seed: of the vectors.
    """

    def __init__(self, draw: Callable[[int, int], Tensor], steps: int, seed: int) -> None:
        super().__init__(steps, seed)
        self.draw = draw

    def items(self) -> Iterator[Tensor]:
        return iter(self.draw(self.seed, self.epoch)[self.position :])


class OnlineData(Generated):
    """One vector [d] a step; a model of task `online` turns it into the value of f_t.

    Args:
        kind: must be `online`.
        limit: steps of an epoch; null for `TRAIN_SIZE`.
        dim: d.
        batch_size: what one step stands for, where the stream is noise.

    Raises:
        UserError: a value out of range.
    """

    KIND: ClassVar = "online"

    def __init__(self, *, kind: str, limit: int | None, dim: int, batch_size: int) -> None:
        super().__init__()
        check("kind", kind, kind == self.KIND, f"{self.NAME} is of kind {self.KIND}")
        check("limit", limit, limit is None or limit >= 1, "give at least 1 step, or null")
        check("dim", dim, dim >= 1, "give at least 1")
        check("batch_size", batch_size, batch_size >= 1, "give at least 1")
        self.steps = self.TRAIN_SIZE if limit is None else limit
        self.shape, self.classes, self.normalise = (dim,), None, "none"
        self.batch_size = batch_size

    @abstractmethod
    def draw(self, seed: int, epoch: int) -> Tensor:
        """The vectors of an epoch's steps, from (seed, epoch) alone: float32 [steps, d]."""

    @abstractmethod
    def mean(self) -> Tensor:
        """What the stream averages to: float32 [d]."""

    def size(self, split: SplitName) -> int:
        """Steps of an epoch; 0 for the splits that there are not."""
        return self.steps if split == "train" else 0

    def batch(self, split: SplitName, index: Tensor | slice, augment: bool) -> Batch:
        """The stream's mean for each step that `index` names, so that a model gives the mean function."""
        count = len(torch.arange(self.size(split))[index])
        return self.mean().to(self.device).expand(count, -1), None

    def loader(self, seed: int) -> DrawLoader:
        return DrawLoader(self.draw, self.steps, seed)

    def ready(self, item: Tensor) -> Batch:
        """The vector of a step: [1, d]."""
        return item.to(self.device)[None], None


class OnlineCounterexample(OnlineData):
    """Coefficients c_t of f_t(x) = c_t x: `c` at steps 1, 4, 7, ..., -1 at all others.

    The online problem on which Adam diverges (Reddi, Kale and Kumar, "On the Convergence of Adam and
    Beyond", ICLR 2018, section 3): for c > 2 the coefficients are positive on average, so -1 is the best
    point of [-1, 1], but with beta_1 = 0 and beta_2 = 1 / (1 + c^2) Adam goes to +1, the worst.

    Args:
        kind, limit: as in `OnlineData`.
        c: the rare large coefficient, above 2.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "online_counterexample"
    TRAIN_SIZE: ClassVar = 3_000

    def __init__(self, *, kind: str, limit: int | None, c: float) -> None:
        super().__init__(kind=kind, limit=limit, dim=1, batch_size=1)
        check("c", c, c > 2, "give a number above 2, so that -1 is the best point")
        self.c = c

    def draw(self, seed: int, epoch: int) -> Tensor:
        first = epoch * self.steps
        steps = torch.arange(first, first + self.steps)
        return torch.where(steps % 3 == 0, self.c, -1.0)[:, None]

    def mean(self) -> Tensor:
        return torch.tensor([(self.c - 2) / 3])


class GradientNoise(OnlineData):
    """Noise of a minibatch gradient, N(0, 1 / batch_size) in each coordinate.

    Runs of one seed have the same normal numbers at every batch size, scaled, and under every method.

    Args:
        The same as of `OnlineData`.
    """

    NAME: ClassVar = "noisy_quadratic"
    TRAIN_SIZE: ClassVar = 2_000

    def draw(self, seed: int, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        return torch.randn(self.steps, *self.shape, generator=generator) / self.batch_size**0.5

    def mean(self) -> Tensor:
        return torch.zeros(self.shape)
