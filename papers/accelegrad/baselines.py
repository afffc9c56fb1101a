"""Scalar AdaGrad and AdaNGD as torch optimizers, with one step size for all parameters together.

Source: Levy, "Online to Offline Conversions, Universality and Adaptive Minibatch Sizes", NIPS 2017; scalar
AdaGrad is the baseline of the AcceleGrad paper.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from common.base.errors import UserError
from papers.accelegrad.averaging import AveragingOptimizer, Batch, check_not_negative, check_positive


def normalised_step(D: Tensor | float, k: float, norm: Tensor, root: Tensor) -> Tensor:
    """eta_t / ||g_t||^k with eta_t = D / sqrt(2 sum_{s <= t} ||g_s||^(2 - 2k)): what multiplies g_t.

    `root` is the root of that sum, without the 2 (see `root_of_sum`). 0 where g_t = 0. Shapes broadcast.
    """
    size = D / (norm.pow(k) * 2**0.5 * root)
    return torch.where(norm == 0, torch.zeros_like(size), size)


def root_of_sum(root: Tensor, k: float, norm: Tensor) -> Tensor:
    """sqrt(R^2 + ||g||^(2 - 2k)), R itself where g = 0; nothing is squared, so that units do not matter."""
    return torch.where(norm == 0, root, torch.hypot(root, norm.pow(1 - k)))


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

    State of a parameter: `average`, and `start` where there is a ball. Shared: `root` is
    sqrt(Σ ‖g‖^(2 − 2k)), `weights` Σ ‖g‖^−k.

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
        return {"root": 0.0, "weights": 0.0}

    def _first_state(self, p: Tensor) -> dict[str, Tensor]:
        ball = {} if self.options["radius"] is None else {"start": p.clone()}
        return {"average": p.clone(), **ball}

    def _update(self, batches: list[Batch]) -> None:
        shared, options = self.shared, self.options
        k = options["k"]
        norm = self._norm([g for batch in batches for g in batch.gs])
        still = norm == 0
        zero = torch.zeros_like(norm)
        shared["root"] = root_of_sum(shared["root"], k, norm)
        weight = torch.where(still, zero, norm.pow(-k))
        shared["weights"] += weight
        share = torch.where(still, torch.ones_like(norm), weight / shared["weights"])
        size = normalised_step(options["D"], k, norm, shared["root"])
        for batch in batches:
            _step(batch, size * batch.lr, share)
        if options["radius"] is not None:
            self._project(
                [batch.xs for batch in batches], [batch.of("start") for batch in batches], options["radius"]
            )


def _step(batch: Batch, size: Tensor, share: Tensor) -> None:
    """average <- average + share (x - average), then x <- x - size g; in place."""
    averages = batch.of("average")
    offsets = torch._foreach_sub(batch.xs, averages)
    torch._foreach_mul_(offsets, batch.scalar(share))
    torch._foreach_add_(averages, offsets)
    torch._foreach_sub_(batch.xs, batch.steps(size))


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

    def _check_options(self, options: dict[str, Any]) -> None:
        super()._check_options(options)
        if options["k"] != 0:
            raise UserError(f"{self.NAME}: k={options['k']}; valid: 0 (another k is AdaNGD)")
