"""What a method may ask of a problem, and the one counter of what it asked.

A problem is f(x) = E_z f(x; z), online, or f(x) = (1/n) sum_i f_i(x), a finite sum. Everything works on
a batch of R replicates: points are [R, d], values [R].
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.base.errors import UserError
from common.numerics.sampling import ReplicateSampler


@dataclass(frozen=True)
class Batch:
    """Samples, gathered once and used at as many points as needed.

    Attributes:
        inputs: [R, size, ...] (one row of samples a replicate) or [size, ...] (shared by all): a tensor, or
            what the problem keeps its samples in.
        targets: [R, size], [size] or None where the inputs say all.
        size: samples a replicate.
    """

    inputs: Any
    targets: Tensor | None
    size: int


class Problem(ABC):
    """A differentiable objective, made of samples.

    Attributes:
        n: number of components; None: online.
        dim: d.
        smoothness: L, such that every f_i has an L-Lipschitz gradient; None: unknown.
        sigma: bound with E||grad f_i(x) - grad f(x)||^2 <= sigma^2 for all x; None: unknown.
        hessian_lipschitz: rho, of every f_i; None: unknown.
        lower_bound: a number that f never falls below.
        pass_size: calls that make a pass: n; 1,000 on a stream.
        device, dtype: of points.
    """

    n: int | None
    dim: int
    smoothness: float | None
    sigma: float | None
    hessian_lipschitz: float | None
    lower_bound: float
    pass_size: int
    device: torch.device
    dtype: torch.dtype

    @abstractmethod
    def start(self, replicates: int) -> Tensor:
        """x_0 of every replicate: [R, d]."""

    @abstractmethod
    def draw(self, sampler: ReplicateSampler, size: int, rows: list[int] | None) -> Batch:
        """`size` independent samples (with replacement) for each of the replicates `rows` (None: all)."""

    @abstractmethod
    def everything(self) -> Batch:
        """All n components, as views."""

    @abstractmethod
    def value(self, x: Tensor, batch: Batch) -> Tensor:
        """Mean of f_i(x) over the batch: [R]."""

    @abstractmethod
    def gradient(self, x: Tensor, batch: Batch) -> Tensor:
        """Mean of grad f_i(x) over the batch: [R, d]. A buffer: valid until the next call."""

    def gradient_difference(self, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        """Mean of grad f_i(x) - grad f_i(y) over the same samples: [R, d]. A buffer."""
        return self.gradient(x, batch) - self.gradient(y, batch)

    def minibatch_gradient(self, x: Tensor, batch: Batch) -> Tensor:
        """`gradient` for methods that never compare two points; it may depend on the batch as a whole."""
        return self.gradient(x, batch)

    def hvp(self, x: Tensor, v: Tensor, batch: Batch) -> Tensor:
        """Mean of Hess f_i(x) v over the batch: [R, d]."""
        raise UserError(f"{type(self).__name__} gives no Hessian-vector products (valid: other methods)")

    def values(self, points: Tensor, batch: Batch) -> Tensor:
        """`value` at p points of each replicate: points [R, p, d] -> [R, p]."""
        return torch.stack([self.value(points[:, j], batch) for j in range(points.shape[1])], dim=1)

    def paired_values(self, points: Tensor, batch: Batch) -> Tensor:
        """f_i at a point of its own: points [R, size, d], sample i at point i -> [R, size]."""
        raise UserError(f"{type(self).__name__} gives no values of single samples (valid: other methods)")

    def true_gradient(self, x: Tensor) -> Tensor:
        """grad f(x) of all data, for judging a method; never counted. A new tensor [R, d]."""
        return self.gradient(x, self.everything()).clone()

    def true_value(self, x: Tensor) -> Tensor:
        """f(x) of all data, for judging a method; never counted: [R]."""
        return self.value(x, self.everything())

    def evaluate(self, x: Tensor) -> dict[str, Tensor]:
        """Further measures of a point, such as test accuracy: each [R]; empty where there is none."""
        return {}

    def checkpoint(self, x: Tensor, batch: Batch) -> None:  # noqa: B027
        """Called by methods at x before they take a checkpoint gradient there."""

    def state_dict(self) -> dict[str, Any]:
        """What of the problem changes as it is used."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Put back what `state_dict` gave."""


class OracleCounter:
    """Calls made by each replicate: `ifo` component gradients (a Hessian-vector product counts as one),
    `izo` component values."""

    def __init__(self, replicates: int) -> None:
        self.ifo = [0] * replicates
        self.izo = [0] * replicates

    @property
    def calls(self) -> list[int]:
        """Gradient and value calls together."""
        return [ifo + izo for ifo, izo in zip(self.ifo, self.izo, strict=True)]


class Oracle:
    """The only door through which a method sees its problem: draws samples and counts every call.

    A replicate that is retired keeps its point and is counted no more, though the others go on.

    Args:
        problem: what is minimised.
        sampler: the random streams of the replicates.
    """

    def __init__(self, problem: Problem, sampler: ReplicateSampler) -> None:
        self.problem, self.sampler = problem, sampler
        self.replicates = sampler.replicates
        self.counter = OracleCounter(self.replicates)
        self._set_active([True] * self.replicates)

    def _set_active(self, active: list[bool]) -> None:
        self.active = active
        self.active_rows = [r for r, on in enumerate(active) if on]
        self._mask = torch.tensor(active, device=self.problem.device)[:, None]

    def retire(self, which: Tensor) -> None:
        """Take replicates out: `which` is a mask [R]."""
        leaving = which.tolist()
        if any(leaving):
            self._set_active([on and not out for on, out in zip(self.active, leaving, strict=True)])

    def keep_retired(self, new: Tensor, old: Tensor) -> Tensor:
        """`new` [R, d] with the rows of retired replicates taken from `old`."""
        if len(self.active_rows) == self.replicates:
            return new
        return torch.where(self._mask, new, old)

    def _count(self, counts: list[int], amount: int, rows: list[int] | None) -> None:
        for r in self.active_rows if rows is None else rows:
            counts[r] += amount * self.active[r]

    def draw(self, size: int, rows: list[int] | None = None) -> Batch:
        """Fresh samples for the replicates `rows` (None: all)."""
        return self.problem.draw(self.sampler, size, rows)

    def everything(self) -> Batch:
        """All components of a finite sum."""
        return self.problem.everything()

    def checkpoint_gradient(self, x: Tensor, size: int | None, rows: list[int] | None = None) -> Tensor:
        """Mean gradient at x of `size` fresh samples, or of all components (None): [R, d]."""
        batch = self.everything() if size is None else self.draw(size, rows)
        self.problem.checkpoint(x, batch)
        return self.gradient(x, batch, rows).clone()

    def gradient(self, x: Tensor, batch: Batch, rows: list[int] | None = None) -> Tensor:
        """`Problem.gradient`; counts `batch.size`."""
        self._count(self.counter.ifo, batch.size, rows)
        return self.problem.gradient(x, batch)

    def minibatch_gradient(self, x: Tensor, size: int) -> Tensor:
        """`Problem.minibatch_gradient` of `size` fresh samples; counts `size`. A buffer."""
        self._count(self.counter.ifo, size, None)
        return self.problem.minibatch_gradient(x, self.draw(size))

    def gradient_difference(
        self, x: Tensor, y: Tensor, batch: Batch, rows: list[int] | None = None
    ) -> Tensor:
        """`Problem.gradient_difference`; counts 2 `batch.size`."""
        self._count(self.counter.ifo, 2 * batch.size, rows)
        return self.problem.gradient_difference(x, y, batch)

    def hvp(self, x: Tensor, v: Tensor, batch: Batch, rows: list[int] | None = None) -> Tensor:
        """`Problem.hvp`; counts `batch.size` gradient calls."""
        self._count(self.counter.ifo, batch.size, rows)
        return self.problem.hvp(x, v, batch)

    def values(self, points: Tensor, batch: Batch) -> Tensor:
        """`Problem.values` at [R, p, d]; counts p `batch.size` value calls."""
        self._count(self.counter.izo, points.shape[1] * batch.size, None)
        return self.problem.values(points, batch)

    def paired_values(self, points: Tensor, batch: Batch) -> Tensor:
        """`Problem.paired_values`; counts `batch.size` value calls."""
        self._count(self.counter.izo, batch.size, None)
        return self.problem.paired_values(points, batch)

    def state_dict(self) -> dict[str, Any]:
        return {
            "ifo": list(self.counter.ifo),
            "izo": list(self.counter.izo),
            "active": list(self.active),
            "sampler": self.sampler.state_dict(),
            "problem": self.problem.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.counter.ifo, self.counter.izo = list(state["ifo"]), list(state["izo"])
        self._set_active(list(state["active"]))
        self.sampler.load_state_dict(state["sampler"])
        self.problem.load_state_dict(state["problem"])
