"""What a search maximises: R functions at once, on a box or over a list of arms."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from common.base.dataset import check
from common.base.generated import Function


@dataclass(frozen=True)
class Space:
    """Where a search may evaluate.

    Attributes:
        lower, upper: the box, float64 [d] each.
        features: of a finite space, what is known of its M arms, [M, p]; a point is then an arm's number
            0, ..., M - 1 (d = 1). None for a box.
    """

    lower: Tensor
    upper: Tensor
    features: Tensor | None = None

    @property
    def dim(self) -> int:
        """d, the numbers of a point."""
        return len(self.lower)

    @property
    def arms(self) -> int | None:
        """M, or None for a box."""
        return None if self.features is None else len(self.features)

    def scaled(self, unit: Tensor) -> Tensor:
        """Points of the unit cube [..., d] in the box; of a finite space the arms that they fall on."""
        if self.features is not None:
            return (unit * len(self.features)).floor().clamp_max(len(self.features) - 1)
        return self.lower + unit * (self.upper - self.lower)

    def to(self, device: torch.device | str) -> "Space":
        """The same on a device."""
        features = None if self.features is None else self.features.to(device)
        return Space(self.lower.to(device), self.upper.to(device), features)

    def inputs(self, x: Tensor) -> Tensor:
        """What a model sees of points [..., d]: the points themselves, or the features of arms [..., p]."""
        return x if self.features is None else self.features[x[..., 0].long()]


def arms(features: Tensor) -> Space:
    """M arms with these features, float64 [M, p]."""
    last = torch.tensor([len(features) - 1.0], dtype=torch.float64)
    return Space(torch.zeros(1, dtype=torch.float64), last, features)


def box(dim: int, lower: float, upper: float) -> Space:
    """The cube [lower, upper]^dim."""
    return Space(
        torch.full((dim,), lower, dtype=torch.float64), torch.full((dim,), upper, dtype=torch.float64)
    )


class Objective(Function):
    """Functions to maximise, one for each of R replicates; there are no examples.

    Replicate r belongs to a seed: what of a function is random follows from that seed alone, never from R.
    All numbers are float64.

    Attributes:
        shape: (d,); over arms (p,), the numbers of their features.
        space: where it may be evaluated.
        noise: the standard deviation of what an evaluation adds to the value.

    Args:
        kind: must be `objective`.
        space, noise: see above; noise >= 0.

    Raises:
        UserError: a value out of range.
    """

    KIND: ClassVar = "objective"

    def __init__(self, *, kind: str, space: Space, noise: float) -> None:
        super().__init__()
        check("kind", kind, kind == "objective", "must be objective")
        check("noise", noise, noise >= 0, "give a number >= 0")
        self.space, self.noise = space, float(noise)
        self.shape = (space.dim,) if space.features is None else (space.features.shape[1],)
        self.classes, self.batch_size, self.normalise = None, 1, "none"

    @abstractmethod
    def draw(self, seeds: list[int]) -> None:
        """Make the functions of these seeds, on `device`; called once, before anything is evaluated."""

    @abstractmethod
    def values(self, x: Tensor) -> Tensor:
        """f without noise: function r at x[r], [R, q, d] -> [R, q]."""

    @abstractmethod
    def optimum(self) -> Tensor | None:
        """max f of each function, [R]; None where it is not known."""

    def value(self, replicate: int, point: Tensor) -> float:
        """Function `replicate` at one point [d]; what a worker process calls."""
        replicates = 1 if (best := self.optimum()) is None else len(best)
        x = point.expand(max(replicates, replicate + 1), 1, -1)
        return float(self.values(x)[replicate, 0])

    def move(self, device: torch.device | str) -> None:
        super().move(device)
        self.space = self.space.to(self.device)
