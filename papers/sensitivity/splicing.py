"""Dynamic network surgery: Guo, Yao, Chen, "Dynamic Network Surgery for Efficient DNNs", NeurIPS 2016
(arXiv 1608.04493).
"""

from collections.abc import Callable, Mapping
from typing import Unpack

import torch
from torch import Tensor, nn

from common.base.dataset import DataSet
from common.base.limits import require
from common.base.method import MethodParts
from papers.sensitivity.pruning import Tensors, WeightPruning, require_finite, require_share

# a = 0.9 t and b = 1.1 t in the authors' code
LOW, HIGH = 0.9, 1.1


def base_threshold(weights: Tensor, c: float) -> Tensor:
    """t = max(0, mu + c sigma), with mu the mean and sigma the deviation (over n) of |w| over a layer."""
    sizes = weights.detach().abs()
    return (sizes.mean() + c * sizes.std(correction=0)).clamp_min(0)


def spliced(weights: Tensor, mask: Tensor, threshold: Tensor) -> Tensor:
    """The mask after surgery: 0 where |w| <= 0.9 t, 1 where |w| > 1.1 t, and as it was between."""
    sizes = weights.abs()
    return (mask & (sizes > LOW * threshold)) | (sizes > HIGH * threshold)


class DynamicSurgery(WeightPruning):
    """Weights are pruned and spliced: what was cut learns on, and comes back where it has grown.

    The network holds W o T, the weights under their masks T; W itself is kept beside it. The gradient by W o
    T goes to all of W, so W <- W - eta dL / d(W o T) also where T is 0. From `begin` to `stop` the masks are
    made anew, after a step with probability (1 + gamma s)^-power, with s in [0, 1] the share of that time
    that is over. A layer's threshold t is that of its weights at `begin`.

    Args:
        c: of `base_threshold`, the authors' c_rate.
        gamma, power: at least 0: how the probability falls; gamma is the authors' times their number of
        steps.
        stop: the share of the run after which the masks stay; at least `begin`.
        begin, parts: see `WeightPruning`.

    Raises:
        UserError: numbers out of range; a c that leaves a layer none of its weights.
    """

    def __init__(
        self,
        *,
        c: float,
        gamma: float,
        power: float,
        stop: float,
        begin: float,
        **parts: Unpack[MethodParts],
    ) -> None:
        super().__init__(begin=begin, parameters="weights", **parts)
        require("at least 0", "method", gamma=gamma, power=power)
        require_share(stop=stop)
        self.c, self.gamma, self.power, self.stop = c, gamma, power, stop

    def attach(self, student: nn.Module, make_model: Callable[[], nn.Module], data: DataSet) -> nn.Module:
        """The student as it is; W is noted beside it."""
        student = super().attach(student, make_model, data)
        parameters = self.chosen(student)
        self.dense = Tensors(parameters)
        # below 0 while it is not known
        self.thresholds = Tensors({name: torch.tensor(-1.0) for name in parameters})
        return student

    def probability(self, done: float) -> float:
        """Of a surgery after a step; 0 before `begin` and after `stop`."""
        if not self.begin <= done <= self.stop:
            return 0.0
        over = (done - self.begin) / max(self.stop - self.begin, 1e-12)
        return (1 + self.gamma * over) ** -self.power

    def after_step(self, student: nn.Module, parameters: dict[str, nn.Parameter], done: float) -> None:
        """W takes the step that W o T has made, the masks are made anew where it is so drawn, W o T
        follows."""
        self._follow(parameters)
        if float(torch.rand(())) < self.probability(done):
            self._operate()
        for name, p in parameters.items():
            p.copy_(self.dense[name])

    def _follow(self, parameters: Mapping[str, Tensor]) -> None:
        """W <- what the optimizer has made of W o T; where T is 0 that began at 0, and W moves by it."""
        for name, weight in self.dense.items():
            if self.done < self.begin:
                weight.copy_(parameters[name])
            else:
                weight.mul_(~self.masks[name]).add_(parameters[name])

    def _operate(self) -> None:
        require_finite(dict(self.dense.items()))
        for name, threshold in self.thresholds.items():
            if threshold < 0:
                threshold.copy_(base_threshold(self.dense[name], self.c))
        found = {name: spliced(w, self.masks[name], self.thresholds[name]) for name, w in self.dense.items()}
        self.masks.put(found, f"method.c={self.c}")
