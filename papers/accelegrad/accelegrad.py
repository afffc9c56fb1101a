"""AcceleGrad: one adaptive method for smooth, nonsmooth and stochastic convex problems.

Source: Levy, Yurtsever, Cevher, "Online Adaptive Methods, Universality and Acceleration", NeurIPS 2018,
Algorithm 2. Usable in any PyTorch code: `from papers.accelegrad.accelegrad import AcceleGrad`.
"""

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from common.base.errors import UserError
from papers.accelegrad.averaging import (
    SAFE_SIZES,
    AveragingOptimizer,
    Batch,
    check_not_negative,
    check_positive,
    differences,
    in_range,
    on_host,
)
from papers.accelegrad.momentum import coast, momentum_form, momentum_step

StepSize = Literal["paper", "authors_code"]


def weight(t: int) -> float:
    """alpha_t = 1 for t = 0, 1, 2 and (t + 1) / 4 from t = 3 on; tau_t = 1 / alpha_t."""
    return max(1.0, (t + 1) / 4)


def step_size(D: Tensor, G: float, root: Tensor, rule: StepSize) -> Tensor:
    """eta_t for R = sqrt(sum_{s <= t} alpha_s^2 ||g_s||^2), the current gradient in it.

    "paper": 2 D / sqrt(G^2 + R^2); "authors_code": D / sqrt(2 (G^2 + R^2)). 0 where G = 0 and all gradients
    so far were 0, for there is nothing to step along. Shapes: D, R and the result broadcast. Nothing is
    squared, so that gradients may be in any unit.
    """
    under = torch.hypot(root, torch.as_tensor(G, dtype=root.dtype, device=root.device))
    size = 2 * D / under if rule == "paper" else D / (2**0.5 * under)
    return torch.where(under == 0, torch.zeros_like(size), size)


class AcceleGrad(AveragingOptimizer):
    r"""AcceleGrad (Algorithm 2). With x_0 the start, y_0 = z_0 = x_0, at step t = 0, 1, 2, ...:

        α_t = max(1, (t + 1) / 4),  τ_t = 1 / α_t
        x_{t+1} = τ_t z_t + (1 − τ_t) y_t,   g_t = the (minibatch) gradient at x_{t+1}
        η_t = 2 D / sqrt(G² + Σ_{s ≤ t} α_s² ‖g_s‖²)
        z_{t+1} = the projection of z_t − α_t η_t g_t onto the ball
        y_{t+1} = x_{t+1} − η_t g_t
        result: Σ α_t y_{t+1} / Σ α_t

    ‖·‖ is over all parameters together: there is one step size. The parameters hold x_{t+1} between steps,
    where gradients are to be taken; `swap_to_average()` and `swap_back()`, or `with optimizer.averaged():`,
    put the result into them for evaluation. y is never projected.

    Without a ball and doubling the same x are computed as SGD with a momentum that changes from step to
    step (`papers.accelegrad.momentum`), in as many passes over memory as SGD makes. On an accelerator that
    leaves the gradients multiplied by η_t.

    With G = 0 the unit of the loss does not matter, however small or large its gradients.

    Args:
        params: parameters, or groups of them, which may differ in `lr` alone.
        D: the diameter of a set around the start that holds a minimiser. Default 1.
        G: a loose bound on the gradients' norm, >= 0. Default 0, as the authors' code has it.
        stepsize: "paper": η_t as above; "authors_code": D / sqrt(2 (G² + Σ α_s² ‖g_s‖²)), as
            AcceleGradSDP.m of the authors' CSSDP has it.
        radius: of the ball around the start onto which z is projected; None: no projection.
        doubling: D doubles after each step that leaves ‖y_{t+1} − x_0‖ > D (as in the authors' code, with
            x_0 = 0 there).
        lr: multiplies η_t, for schedules; 1 in the paper.

    State of a parameter: `z`, `average` and `start` with a ball or doubling, else `momentum` and `total`.
    Shared, beside what `AveragingOptimizer` has: `root` is sqrt(Σ α² ‖g‖²), `D` the present D.

    Raises:
        UserError: as `AveragingOptimizer`; its forms are with and without `radius` or `doubling`.
    """

    NAME: ClassVar = "accelegrad"

    def __init__(
        self,
        params: Iterable[Any],
        D: float = 1.0,
        G: float = 0.0,
        stepsize: StepSize = "paper",
        radius: float | None = None,
        doubling: bool = False,
        lr: float = 1.0,
    ) -> None:
        options = {"D": D, "G": G, "stepsize": stepsize, "radius": radius, "doubling": doubling, "lr": lr}
        super().__init__(params, options)

    def _check_options(self, options: dict[str, Any]) -> None:
        check_positive(self.NAME, D=options["D"], radius=options["radius"])
        check_not_negative(self.NAME, G=options["G"], lr=options["lr"])
        if options["stepsize"] not in ("paper", "authors_code"):
            raise UserError(f"accelegrad: stepsize={options['stepsize']}; valid: paper or authors_code")

    @property
    def explicit(self) -> bool:
        """Whether z and y are needed by themselves."""
        return self.options["radius"] is not None or self.options["doubling"]

    def _sums(self) -> dict[str, float]:
        return {"root": 0.0, "D": self.options["D"]}

    def _first_shared(self) -> dict[str, Any]:
        # `scales`: s of `papers.accelegrad.momentum`, one a group
        return super()._first_shared() | {"scales": []}

    def _first_state(self, p: Tensor) -> dict[str, Tensor]:
        if self.explicit:
            return {"z": p.clone(), "average": p.clone(), "start": p.clone()}
        # it stood here at all the steps before
        return {"momentum": torch.zeros_like(p), "total": p * (self.shared["weight_sum"] - 1)}

    def _update(self, batches: list[Batch]) -> None:
        shared, options = self.shared, self.options
        alpha = weight(shared["t"])
        shared["weight_sum"] += alpha
        norm = self._norm([g for batch in batches for g in batch.gs])
        shared["root"] = torch.hypot(shared["root"], alpha * norm)
        eta = step_size(shared["D"], options["G"], shared["root"], options["stepsize"])
        if self.explicit:
            self._explicit_update(batches, eta)
        else:
            self._momentum_update(batches, eta)

    def _explicit_update(self, batches: list[Batch], eta: Tensor) -> None:
        """Algorithm 2 as it is written; x holds y between the two loops."""
        shared, options = self.shared, self.options
        alpha, tau = weight(shared["t"]), 1 / weight(shared["t"] + 1)
        zs, starts = [batch.of("z") for batch in batches], [batch.of("start") for batch in batches]
        for batch, z in zip(batches, zs, strict=True):
            steps = batch.steps(eta * batch.lr)
            torch._foreach_sub_(z, steps, alpha=alpha)
            torch._foreach_sub_(batch.xs, steps)
            torch._foreach_lerp_(batch.of("average"), batch.xs, alpha / shared["weight_sum"])
        if options["doubling"]:
            pairs = zip(batches, starts, strict=True)
            moved = self._norm([d for batch, start in pairs for d in differences(batch.xs, start)])
            shared["D"] *= 1 + (moved > shared["D"]).to(shared["D"].dtype)
        if options["radius"] is not None:
            self._project(zs, starts, options["radius"])
        for batch, z in zip(batches, zs, strict=True):
            torch._foreach_lerp_(batch.xs, z, tau)

    def _momentum_update(self, batches: list[Batch], eta: Tensor) -> None:
        """The same in the form of a momentum; `total` is sum alpha_t x_{t+1} - z_0."""
        alpha, following = weight(self.shared["t"]), weight(self.shared["t"] + 1)
        scales = self.shared["scales"]
        scales += [0.0] * (len(self.param_groups) - len(scales))
        before = list(scales)
        for batch in batches:
            torch._foreach_add_(batch.of("total"), batch.xs, alpha=alpha)
            size, scale, buffers = eta * batch.lr, before[batch.group], batch.of("momentum")
            if on_host(size) and size == 0:
                scales[batch.group] = coast(batch.xs, batch.gs, buffers, alpha, following, scale)
                continue
            gs, unit, factor = batch.gs, 1.0, None
            if not on_host(size):
                # an accelerator is not waited for
                factor = size.to(batch.xs[0].device)
            elif size.isnan() or in_range(size, SAFE_SIZES):
                unit = float(size)
            else:
                gs = batch.steps(size)
            form = momentum_form(alpha, following, scale, unit)
            momentum_step(batch.xs, gs, buffers, form, factor)
            scales[batch.group] = form.scale

    def _average(self, p: Tensor, state: dict[str, Any], group: int) -> Tensor:
        """sum alpha_t y_{t+1} / sum alpha_t; as y = x - eta g, the sum is that of alpha x, and z_T - z_0."""
        if self.explicit:
            return super()._average(p, state, group)
        tau = 1 / weight(self.shared["t"])
        z = torch.sub(p, state["momentum"], alpha=(1 - tau) * self.shared["scales"][group])
        return (state["total"] + z) / self.shared["weight_sum"]
