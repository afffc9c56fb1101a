"""Advantages: how much better than usual on its own task a reward is, for R replicates at once.

The n-th reward R of a task weighs w_n = max(1/n, 1 - decay) in the statistics of that task (plain means
first, exponential moving averages then):

    delta = R - mu,   mu <- mu + w delta,   v <- (1 - w) (v + w delta^2)

and the advantage is by the statistics of the rewards before it:

    std       (R - mu) / sqrt(v)     the same when all rewards of a task become c R + d, c > 0
    baseline  (R - mu) / mu          (Wong & Gesmundo 2017) the same when they become c R
    none      R - mu
"""

from typing import Any, Literal

import torch
from torch import Tensor

from common.base.limits import require

AdvantageNorm = Literal["std", "baseline", "none"]
# deviations that are smaller, relative to the rewards, are rounding
ROUNDING = 1e-12


class RunningAdvantage:
    """Advantages in float64 by running statistics of each replicate and task.

    Args:
        replicates, tasks: R, T.
        norm: see above.
        decay: of the moving averages.
        wait: the first so many rewards of a task have the advantage 0.
        max_advantage: of `std`, whose scale may be next to nothing: advantages are kept within
            [-max_advantage, max_advantage].

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self, replicates: int, tasks: int, norm: AdvantageNorm, decay: float, wait: int, max_advantage: float
    ) -> None:
        require("above 0 and below 1", "method", decay=decay)
        require("at least 0", "method", wait=wait)
        require("positive", "method", max_advantage=max_advantage)
        self.norm, self.decay, self.wait, self.max_advantage = norm, decay, wait, max_advantage
        self.count = torch.zeros(replicates, tasks, dtype=torch.int64)
        self.mean = torch.zeros(replicates, tasks, dtype=torch.float64)
        self.variance = torch.zeros(replicates, tasks, dtype=torch.float64)

    def update(self, tasks: Tensor, rewards: Tensor) -> Tensor:
        """The advantages of a batch, one trial after the other, each of which enters the statistics.

        Shapes: tasks int64 [R, B], rewards [R, B] -> float64 [R, B]. A reward that is not finite has the
        advantage 0 and changes nothing.
        """
        found = [self._one(tasks[:, b], rewards[:, b].to(torch.float64)) for b in range(tasks.shape[1])]
        return torch.stack(found, 1)

    def _one(self, task: Tensor, reward: Tensor) -> Tensor:
        row = torch.arange(len(task))
        count, mean, variance = self.count[row, task], self.mean[row, task], self.variance[row, task]
        valid = reward.isfinite()
        reward = torch.where(valid, reward, mean)
        delta = reward - mean
        advantage = delta / self._scale(mean, variance, reward)
        # an infinite scale stands for no spread
        advantage = torch.where(valid & (count >= self.wait), advantage, torch.zeros_like(advantage))
        weight = torch.maximum(1.0 / (count + 1).double(), torch.full_like(mean, 1 - self.decay))
        self.count[row, task] = count + valid
        self.mean[row, task] = torch.where(valid, mean + weight * delta, mean)
        spread = (1 - weight) * (variance + weight * delta**2)
        self.variance[row, task] = torch.where(valid, spread, variance)
        return advantage.clamp(-self.max_advantage, self.max_advantage) if self.norm == "std" else advantage

    def _scale(self, mean: Tensor, variance: Tensor, reward: Tensor) -> Tensor:
        if self.norm == "none":
            return torch.ones_like(mean)
        scale = variance.sqrt() if self.norm == "std" else mean
        least = ROUNDING * torch.maximum(mean.abs(), reward.abs())
        return torch.where(scale.abs() > least, scale, torch.full_like(scale, torch.inf))

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean, "variance": self.variance}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.mean = state["count"], state["mean"]
        self.variance = state["variance"]
