"""Scalar AdaGrad and AdaNGD as torch optimizers, with one step size for all parameters together.

Source: Levy, "Online to Offline Conversions, Universality and Adaptive Minibatch Sizes", NIPS 2017; scalar
AdaGrad is the baseline of the AcceleGrad paper.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from papers.accelegrad.averaging import AveragingOptimizer, Groups, check_not_negative, check_positive


def normalised_step(D: Tensor | float, k: float, norm: Tensor, total: Tensor) -> Tensor:
    """eta_t / ||g_t||^k with eta_t = D / sqrt(2 sum_{s <= t} ||g_s||^(2 - 2k)): what multiplies g_t.

    `total` is that sum. 0 where g_t = 0. Shapes broadcast.
    """
    size = D / (norm.pow(k) * (2 * total).sqrt())
    return torch.where(norm > 0, size, torch.zeros_like(size))


class AdaNGD(AveragingOptimizer):
    r"""AdaNGD_k: steps along g / ‖g‖^k, and an average weighted by 1 / ‖g‖^k. For t = 1, 2, ...:

        η_t = D / sqrt(2 Σ_{s ≤ t} ‖g_s‖^(2 − 2k))
        x_{t+1} = the projection of x_t − η_t g_t / ‖g_t‖^k onto the ball
        result: Σ ‖g_t‖^−k x_t / Σ ‖g_t‖^−k

    k = 0 is scalar AdaGrad with the uniform average; k = 1 normalised gradient descent with steps
    D / sqrt(2 t). The average is over the points where gradients were taken. At a point with g = 0 nothing
    moves, and the average becomes that point.

    Args:
        params: parameters, or groups of them, which may differ in `lr` alone.
        k: >= 0. Default 1.
        D: the diameter of a set around the start that holds a minimiser. Default 1.
        radius: of the ball around the start onto which x is projected; None: no projection.
        lr: multiplies η_t, for schedules; 1 in the paper.

    State of a parameter: `average`, and `start` where there is a ball. Shared: `sum` is Σ ‖g‖^(2 − 2k),
    `weights` Σ ‖g‖^−k.

    Raises:
        UserError: an option out of range; a sparse or complex gradient (`step`).
    """

    NAME: ClassVar = "adangd"

    def __init__(
        self,
        params: Iterable[Any],
        k: float = 1.0,
        D: float = 1.0,
        radius: float | None = None,
        lr: float = 1.0,
    ) -> None:
        super().__init__(params, {"k": k, "D": D, "radius": radius, "lr": lr})

    def _check_options(self, options: dict[str, Any]) -> None:
        check_positive(self.NAME, D=options["D"], radius=options["radius"])
        check_not_negative(self.NAME, k=options["k"], lr=options["lr"])

    def _sums(self) -> dict[str, float]:
        return {"sum": 0.0, "weights": 0.0}

    def _first_state(self, p: Tensor) -> dict[str, Tensor]:
        ball = {} if self.options["radius"] is None else {"start": p.clone()}
        return {"average": p.clone(), **ball}

    def _update(self, xs: Groups, gs: Groups, states: list[list[Any]]) -> None:
        shared, options = self.shared, self.options
        k = options["k"]
        norm = self._norm(gs)
        moving = norm > 0
        zero = torch.zeros_like(norm)
        shared["sum"] += torch.where(moving, norm.pow(2 - 2 * k), zero)
        weight = torch.where(moving, norm.pow(-k), zero)
        shared["weights"] += weight
        share = torch.where(moving, weight / shared["weights"], torch.ones_like(norm))
        size = normalised_step(options["D"], k, norm, shared["sum"])
        for group, group_xs, group_gs, group_states in zip(self.param_groups, xs, gs, states, strict=True):
            if group_xs:
                averages = [state["average"] for state in group_states]
                _step(group_xs, group_gs, averages, size * group["lr"], share)
        if options["radius"] is not None:
            self._project(xs, [[state["start"] for state in group] for group in states], options["radius"])


def _step(xs: list[Tensor], gs: list[Tensor], averages: list[Tensor], size: Tensor, share: Tensor) -> None:
    """average <- average + share (x - average), then x <- x - size g; in place."""
    offsets = torch._foreach_sub(xs, averages)
    torch._foreach_mul_(offsets, share.to(xs[0].device, xs[0].dtype))
    torch._foreach_add_(averages, offsets)
    torch._foreach_sub_(xs, torch._foreach_mul(gs, size.to(xs[0].device, xs[0].dtype)))


class ScalarAdaGrad(AdaNGD):
    """Scalar AdaGrad: x <- x - D g / sqrt(2 sum ||g||^2), result the uniform average; AdaNGD with k = 0.

    Args:
        params, D, radius, lr: as in `AdaNGD`.
    """

    NAME: ClassVar = "adagrad_scalar"

    def __init__(
        self, params: Iterable[Any], D: float = 1.0, radius: float | None = None, lr: float = 1.0
    ) -> None:
        super().__init__(params, k=0.0, D=D, radius=radius, lr=lr)
