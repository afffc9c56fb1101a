"""What proposes points, and what it is told."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from common.base.errors import UserError
from common.base.objective import Earlier, Objective
from common.numerics.sampling import ReplicateSampler
from common.search.surrogate import Surrogate


@dataclass(frozen=True)
class Observations:
    """What was evaluated so far, of R replicates; their numbers of evaluations are equal.

    Attributes:
        x: points, [R, t, d].
        y: noisy values, [R, t]; NaN where an evaluation failed.
        pending: points whose evaluation is under way, [R, p, d]; None where there is none.
    """

    x: Tensor
    y: Tensor
    pending: Tensor | None = None

    @property
    def count(self) -> int:
        """t."""
        return self.y.shape[1]

    @property
    def valid(self) -> Tensor:
        """Which evaluations gave a finite number, bool [R, t]."""
        return self.y.isfinite()

    def best(self) -> Tensor:
        """Of each replicate, the point with the largest y, [R, d]; its first where none is valid."""
        ranked = torch.where(self.valid, self.y, torch.full_like(self.y, -torch.inf))
        index = ranked.argmax(1)
        return self.x[torch.arange(len(index), device=index.device), index]

    def believed(self) -> "Observations":
        """With the pending points as if they had come out as the mean of what was observed (a constant liar).

        They fail where nothing was observed. For searchers that know nothing of pending points.
        """
        if self.pending is None:
            return self
        mean = self.y.nanmean(1, keepdim=True) if self.count else self.y.new_full((len(self.y), 1), torch.nan)
        lies = mean.expand(-1, self.pending.shape[1])
        return Observations(self.x, self.y).plus(self.pending, lies)

    def plus(self, x: Tensor, y: Tensor) -> "Observations":
        """With another q evaluations, x [R, q, d] and y [R, q]."""
        return Observations(torch.cat([self.x, x], 1), torch.cat([self.y, y], 1))


@dataclass(frozen=True)
class Task:
    """What a searcher is set.

    Attributes:
        objective: of which it may use `space`, `noise` and what else is said to be known (never `values` or
            `optimum`).
        surrogate: the model of f.
        seeds: of the replicates; R of them.
        evaluations: the budget T, the initial points in it.
        random: streams of random numbers, one a replicate, for the searcher alone; saved by the loop.
        device: where tensors are.
        earlier: what is known of other functions on the same space; searchers that use it say so.
    """

    objective: Objective
    surrogate: Surrogate
    seeds: Sequence[int]
    evaluations: int
    random: ReplicateSampler
    device: torch.device
    earlier: Sequence[Earlier] = ()

    @property
    def replicates(self) -> int:
        """R."""
        return len(self.seeds)


def require_box(task: Task, what: str) -> None:
    """Refuse a list of arms; `what` begins the line.

    Raises:
        UserError: see above.
    """
    if task.objective.space.arms is not None:
        raise UserError(f"{what} needs a box; valid: a dataset without arms")


class Searcher(ABC):
    """A way to choose where to evaluate next, for R replicates at once.

    Replicate r must come out the same whatever R is: it draws from its own stream alone.
    """

    NAME: ClassVar[str]
    # whether `propose` reads `seen.pending`; otherwise it is given `seen.believed()`
    PENDING: ClassVar[bool] = False
    # whether its model is fitted on the CPU; the search is then made there, whatever the trainer
    ON_CPU: ClassVar[bool] = False
    task: Task

    def start(self, task: Task) -> None:
        """Take the task; called once, before the first proposal.

        Raises:
            UserError: it cannot solve such a task; the line says what is valid.
        """
        self.task = task
        self.prepare()

    def prepare(self) -> None:  # noqa: B027
        """What is to be done once, `task` being set."""

    @abstractmethod
    def propose(self, seen: Observations, q: int) -> Tensor:
        """The next q points of each replicate, [R, q, d].

        `seen` holds everything so far, initial points included; failed evaluations (y NaN) carry no
        information and must be left out.
        """

    def answer(self, seen: Observations) -> Tensor:
        """The points that it would recommend now, [R, d]: those with the largest y."""
        return seen.best()

    def state_dict(self) -> dict[str, Any]:
        """What cannot be had again from the observations: tensors, numbers, strings, lists, dicts."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Put back what `state_dict` gave."""


class RandomSearch(Searcher):
    """Uniform in the box; over arms, uniform without repeats (with them once all were evaluated)."""

    NAME: ClassVar = "random"

    def propose(self, seen: Observations, q: int) -> Tensor:
        space = self.task.objective.space
        if space.arms is None:
            unit = self.task.random.uniform(q * space.dim).reshape(-1, q, space.dim)
            return space.scaled(unit)
        keys = self.task.random.uniform(space.arms).clone()
        keys.scatter_add_(1, seen.x[..., 0].long(), torch.ones_like(seen.y))
        return keys.argsort(1)[:, :q, None].to(torch.float64)


def check_inside(searcher: Searcher, x: Tensor) -> None:
    """Refuse a proposal [..., d] that is not in the space.

    Raises:
        UserError: see above.
    """
    space = searcher.task.objective.space
    outside = ~((x >= space.lower - 1e-9) & (x <= space.upper + 1e-9))
    if outside.any():
        raise UserError(
            f"method={searcher.NAME} proposed a point that is not in the space: {x[outside][0]:.6g}"
        )
