"""What a search maximises: R functions at once, on a box or over a list of arms."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from common.base.crew import Crew
from common.base.dataset import check
from common.base.generated import Function

# points of a finite space that are counted
MANY = 10_000


@dataclass(frozen=True)
class Coordinate:
    """What one coordinate u in [0, 1] of a box means; by default any number between the ends.

    Attributes:
        values: where u stands for one of k values, the u of each, ascending; any other u means the nearest of
            them. None: a number.
        ordered: whether near values are alike, as whole numbers are and choices are not.
        only_if: a coordinate of k values before this one, and which of them it must have for this one to mean
            anything; None: it always does.
    """

    values: tuple[float, ...] | None = None
    ordered: bool = True
    only_if: tuple[int, int] | None = None

    @property
    def levels(self) -> int | None:
        """k; None of a number."""
        return None if self.values is None else len(self.values)

    def level(self, u: Tensor) -> Tensor:
        """Which of the k values u means, int64."""
        values = self._values(u)
        return torch.bucketize(u.detach().contiguous(), (values[1:] + values[:-1]) / 2, right=True)

    def nearest(self, u: Tensor) -> Tensor:
        """The value that u means; of a number u itself."""
        return u if self.values is None else self._values(u)[self.level(u)]

    def _values(self, u: Tensor) -> Tensor:
        assert self.values is not None
        return torch.tensor(self.values, dtype=u.dtype, device=u.device)


@dataclass(frozen=True)
class Space:
    """Where a search may evaluate.

    Attributes:
        lower, upper: the box, float64 [d] each.
        features: of a finite space, what is known of its M arms, [M, p]; a point is then an arm's number
            0, ..., M - 1 (d = 1). None for a box.
        coordinates: of a unit cube, what each coordinate means; None: any number of the box.
    """

    lower: Tensor
    upper: Tensor
    features: Tensor | None = None
    coordinates: tuple[Coordinate, ...] | None = None

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

    def snapped(self, x: Tensor) -> Tensor:
        """The points [..., d] that stand for all that mean the same: equal where the same is evaluated.

        A coordinate of k values is moved to the nearest of them, one that means nothing there to 1/2.
        """
        if self.coordinates is None:
            return x
        columns: list[Tensor] = []
        for i, one in enumerate(self.coordinates):
            u = one.nearest(x[..., i])
            columns.append(torch.where(self._means(one, columns), u, torch.full_like(u, 0.5)))
        return torch.stack(columns, -1)

    def meaningful(self, x: Tensor) -> Tensor:
        """Which coordinates of points [..., d] mean anything there, bool [..., d]."""
        if self.coordinates is None:
            return torch.ones_like(x, dtype=torch.bool)
        columns = list(x.unbind(-1))
        return torch.stack([self._means(one, columns).expand(x.shape[:-1]) for one in self.coordinates], -1)

    def size(self) -> int | None:
        """How many different points there are; None where there are more than `MANY`, or a number is free."""
        if self.coordinates is None:
            return None
        values = [one.values for one in self.coordinates]
        known = [one for one in values if one is not None]
        if len(known) < len(values) or math.prod(len(one) for one in known) > MANY:
            return None
        grid = torch.cartesian_prod(*(torch.tensor(one, dtype=torch.float64) for one in known))
        return len(self.snapped(grid.reshape(-1, self.dim)).unique(dim=0))

    def _means(self, one: Coordinate, columns: Sequence[Tensor]) -> Tensor:
        if one.only_if is None:
            return torch.ones((), dtype=torch.bool, device=self.lower.device)
        assert self.coordinates is not None
        other, wanted = one.only_if
        above = self.coordinates[other]
        return self._means(above, columns) & (above.level(columns[other]) == wanted)

    def to(self, device: torch.device | str) -> "Space":
        """The same on a device."""
        features = None if self.features is None else self.features.to(device)
        return Space(self.lower.to(device), self.upper.to(device), features, self.coordinates)

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


@dataclass(frozen=True)
class Earlier:
    """What is known of another function on the same space, as that of the same settings on other data.

    Attributes:
        name: what the function is, in words.
        x: points, float64 [n, d].
        y: its values there, finite and to be large as f is, [n]; their level and scale may be others.
        same: whether it is f itself, measured before.
    """

    name: str
    x: Tensor
    y: Tensor
    same: bool = False

    def to(self, device: torch.device | str) -> "Earlier":
        """The same on a device."""
        return Earlier(self.name, self.x.to(device), self.y.to(device), self.same)


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

    Attributes of those that stand for something outside (`command`):
        metric, sign: f is `sign` times what is called `metric`.
        rungs: shares of an evaluation's full length, ascending to 1, at which it can pause.

    Raises:
        UserError: a value out of range.
    """

    KIND: ClassVar = "objective"
    # whether an evaluation takes so long that a crew makes them apart from each other
    LONG: ClassVar[bool] = False

    metric: str = "f"
    sign: float = 1.0
    rungs: tuple[float, ...] = (1.0,)

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

    def crew(self, size: int) -> Crew:
        """So many workers who evaluate, of an objective that is LONG.

        Raises:
            UserError: they cannot be had.
        """
        raise NotImplementedError(f"{self.NAME} is evaluated by `values`")

    def earlier(self) -> Sequence[Earlier]:
        """What is known of other functions on this space before anything is evaluated."""
        return ()

    def command(self, replicate: int, point: Tensor) -> list[str] | None:
        """The words of the run that an evaluation at a point [d] is; None where it is none."""
        return None

    def assigned(self, point: Tensor) -> dict[str, str]:
        """What a point [d] means in the words and units of a user; its numbers where no more is known."""
        return {f"x{i + 1}": f"{float(value):.6g}" for i, value in enumerate(point)}

    def value(self, replicate: int, point: Tensor) -> float:
        """Function `replicate` at one point [d]; what a worker process calls."""
        replicates = 1 if (best := self.optimum()) is None else len(best)
        x = point.expand(max(replicates, replicate + 1), 1, -1)
        return float(self.values(x)[replicate, 0])

    def move(self, device: torch.device | str) -> None:
        super().move(device)
        self.space = self.space.to(self.device)
