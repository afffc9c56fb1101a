"""Yogi: Adam with an additive update of the second moment.

Source: Zaheer, Reddi, Sachan, Kale, Kumar, "Adaptive Methods for Nonconvex Optimization",
NeurIPS 2018, Algorithm 2. Stands alone: `from papers.yogi.yogi import Yogi`.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from common.base.errors import UserError
from common.training.optimizer_checks import check_gradients, check_saved_state

Tensors = tuple[Tensor, ...] | list[Tensor]

BLOCK_ELEMENTS = 2**18
"""Elements of a parameter updated at once on a CPU: a block's operands and temporaries fit its cache."""


class Yogi(Optimizer):
    r"""Yogi (Algorithm 2). With g the minibatch gradient at step t = 1, 2, ..., elementwise:

        m ← β₁ m + (1 − β₁) g
        v ← v − (1 − β₂) sign(v − g²) g²
        x ← x − η m / (√v + ε)

    Adam changes v by (1 − β₂)(g² − v) instead, so it forgets a large v at rate β₂ᵗ; Yogi's v moves by
    (1 − β₂) g² at most, up or down, and is never negative.

    Args:
        params: parameters, or parameter groups (dictionaries that may set any option below).
        lr: η, the step size. Default 1e-2 (paper, section 5).
        betas: (β₁, β₂), each in [0, 1]; β₁ < 1; β₂ = 1 keeps v constant and needs `bias_correction="none"`.
        eps: ε, outside the root and absolute: a loss averaged instead of summed is another optimizer.
        bias_correction: with c₁ = 1 − β₁ᵗ and c₂ = 1 − β₂ᵗ, the step is
            "inside":  η (m / c₁) / (√(v / c₂) + ε), as `torch.optim.Adam` has it, hence the default: Yogi
                       and Adam then differ in v alone;
            "outside": η (√c₂ / c₁) m / (√v + ε), as the authors' code has it (TensorFlow Addons,
                       multilingual_nmt);
            "none":    η m / (√v + ε), as the paper prints it.
        m_init: initial m. 0 in the paper and the authors' code.
        v_init: initial v. A number (1e-6 in TensorFlow Addons); "grad_sq": g² of a parameter's first
            minibatch, elementwise (the paper advises a large one); "mean_grad_sq": the mean of that g² over
            all elements of all parameters, one number for all. multilingual_nmt averages it over a whole
            pass of the data: to have the same, pass the number. Neither includes weight decay.
        l1, l2: strengths of l1 ‖x‖₁ + (l2/2) ‖x‖², applied as a proximal step in the metric of the update:
            with p = the factor of m in the step, x ← soft(x, l1 p) / (1 + l2 p) (TensorFlow Addons).
        weight_decay: λ. Added to the gradient, g + λ x, or,
        decoupled_weight_decay: if true, x ← (1 − η λ) x before the step, as AdamW does.
        activation: "sign", or "tanh": tanh(10 (v − g²)) in place of the sign (TensorFlow Addons).

    State of a parameter: `step` (int), `m` and `v` (its shape; float32 where the parameter is narrower, and
    then the whole step is computed in float32 and rounded once).

    Raises:
        UserError: an option out of range (constructor, `add_param_group`); a sparse or complex gradient, or
            an expanded parameter (`step`, which then changes nothing); a state that is not Yogi's
            (`load_state_dict`, likewise).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-3,
        bias_correction: Literal["inside", "outside", "none"] = "inside",
        m_init: float = 0.0,
        v_init: float | Literal["grad_sq", "mean_grad_sq"] = 1e-6,
        l1: float = 0.0,
        l2: float = 0.0,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        activation: Literal["sign", "tanh"] = "sign",
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "bias_correction": bias_correction,
            "m_init": m_init,
            "v_init": v_init,
            "l1": l1,
            "l2": l2,
            "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "activation": activation,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group whose missing options are the optimizer's own; refuse options out of range."""
        _check_options({**self.defaults, **param_group})
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step; `closure` recomputes the loss, which is returned (None without one)."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        check_gradients("yogi", (p for group in self.param_groups for p in group["params"]))
        self._init_state()
        for group in self.param_groups:
            for (step, _, _), params in self._alike(group["params"]).items():
                states = [self.state[p] for p in params]
                grads = [p.grad for p in params if p.grad is not None]
                ms, vs = [state["m"] for state in states], [state["v"] for state in states]
                for block in _blocks(params, grads, ms, vs):
                    _update(*block, step=step, group=group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a saved state exactly: torch alone would round the moments to the parameters' dtype."""
        check_saved_state("yogi", self, state_dict, required=("step", "m", "v"))
        for group in state_dict["param_groups"]:
            _check_options(group)
        super().load_state_dict(state_dict)
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for index, p in zip(saved, params, strict=True):
            if state_dict["state"].get(index):
                moments = {name: state_dict["state"][index][name] for name in ("m", "v")}
                self.state[p].update(
                    {name: value.to(p.device, _state_dtype(p)) for name, value in moments.items()}
                )

    def _init_state(self) -> None:
        """Give m, v and step to parameters that have their first gradient."""
        new = [
            (p, group)
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None and not self.state[p]
        ]
        mean = None
        for p, group in new:
            g = p.grad.to(_state_dtype(p))
            if group["v_init"] == "grad_sq":
                v = g.square()
            elif group["v_init"] == "mean_grad_sq":
                mean = _mean_square([q.grad for q, _ in new]) if mean is None else mean
                v = torch.full_like(g, mean)
            else:
                v = torch.full_like(g, group["v_init"])
            self.state[p].update(step=0, m=torch.full_like(g, group["m_init"]), v=v)

    def _alike(self, params: list[Tensor]) -> dict[tuple[int, torch.device, torch.dtype], list[Tensor]]:
        """Group the parameters that have a gradient by (step, device, dtype), their step counted up."""
        groups = defaultdict(list)
        for p in params:
            if p.grad is not None:
                self.state[p]["step"] += 1
                groups[self.state[p]["step"], p.device, p.dtype].append(p)
        return groups


def _update(
    params: Tensors,
    grads: Tensors,
    ms: Tensors,
    vs: Tensors,
    *,
    step: int,
    group: dict[str, Any],
) -> None:
    """Algorithm 2, in place, for parameters of one dtype on one device that are at the same step."""
    narrow = params[0].dtype != vs[0].dtype
    xs = [p.to(vs[0].dtype) for p in params] if narrow else params
    gs = [g.to(vs[0].dtype) for g in grads] if narrow else grads
    beta1, beta2 = group["betas"]

    if group["weight_decay"] and group["decoupled_weight_decay"]:
        torch._foreach_mul_(xs, 1 - group["lr"] * group["weight_decay"])
    elif group["weight_decay"]:
        gs = torch._foreach_add(gs, xs, alpha=group["weight_decay"])

    torch._foreach_lerp_(ms, gs, 1 - beta1)
    _update_second_moment(vs, gs, beta2, group["activation"])

    rate, eps = _rate_and_eps(step, group)
    denominators = torch._foreach_sqrt(vs)
    torch._foreach_add_(denominators, eps)
    torch._foreach_addcdiv_(xs, ms, denominators, value=-rate)
    if group["l1"] or group["l2"]:
        _proximal_step(xs, denominators, rate, group["l1"], group["l2"])
    if narrow:
        torch._foreach_copy_(params, xs)


def _update_second_moment(
    vs: Tensors, gs: Tensors, beta2: float, activation: Literal["sign", "tanh"]
) -> None:
    """v ← v + (1 − β₂) s(g² − v) g², in place. g² is rounded once, so that s(0) = 0 where v = g²."""
    squares = torch._foreach_mul(gs, gs)
    directions = torch._foreach_sub(squares, vs)
    if activation == "sign":
        torch._foreach_sign_(directions)
    else:
        torch._foreach_mul_(directions, 10.0)
        torch._foreach_tanh_(directions)
    torch._foreach_addcmul_(vs, directions, squares, value=1 - beta2)


def _rate_and_eps(step: int, group: dict[str, Any]) -> tuple[float, float]:
    """The (r, e) of x ← x − r m / (√v + e) after bias correction.

    "inside", η (m/c₁) / (√(v/c₂) + ε), is r = η √c₂ / c₁ and e = ε √c₂: no pass over v is spent on it.
    """
    lr, eps = group["lr"], group["eps"]
    if group["bias_correction"] == "none":
        return lr, eps
    beta1, beta2 = group["betas"]
    root_c2 = math.sqrt(1 - beta2**step)
    rate = lr * root_c2 / (1 - beta1**step)
    return rate, eps * root_c2 if group["bias_correction"] == "inside" else eps


def _proximal_step(xs: Tensors, denominators: Tensors, rate: float, l1: float, l2: float) -> None:
    """x ← sign(x) max(|x| − l1 p, 0) / (1 + l2 p) with p = rate / denominator, in place."""
    factors = torch._foreach_reciprocal(denominators)
    torch._foreach_mul_(factors, rate)
    if l1:
        magnitudes = torch._foreach_abs(xs)
        torch._foreach_sub_(magnitudes, torch._foreach_mul(factors, l1))
        torch._foreach_clamp_min_(magnitudes, 0.0)
        torch._foreach_sign_(xs)
        torch._foreach_mul_(xs, magnitudes)
    torch._foreach_mul_(factors, l2)
    torch._foreach_add_(factors, 1.0)
    torch._foreach_div_(xs, factors)


def _blocks(*lists: list[Tensor]) -> Iterator[list[tuple[Tensor, ...]]]:
    """Yield aligned blocks of the lists: everything at once on an accelerator, cache-sized on a CPU.

    On a CPU each elementwise pass over all parameters would go through main memory.
    """
    if lists[0][0].device.type != "cpu":
        yield [tuple(tensors) for tensors in lists]
        return
    block: list[tuple[Tensor, ...]] = []
    size = 0
    for tensors in zip(*lists, strict=True):
        for piece in _pieces(tensors):
            block.append(piece)
            size += piece[0].numel()
            if size >= BLOCK_ELEMENTS:
                yield list(zip(*block, strict=True))
                block, size = [], 0
    if block:
        yield list(zip(*block, strict=True))


def _pieces(tensors: tuple[Tensor, ...]) -> Iterable[tuple[Tensor, ...]]:
    """Views of tensors of one shape, flat and of at most BLOCK_ELEMENTS where they are contiguous."""
    if tensors[0].numel() <= BLOCK_ELEMENTS or not all(t.is_contiguous() for t in tensors):
        return [tensors]
    return zip(*(t.view(-1).split(BLOCK_ELEMENTS) for t in tensors), strict=True)


def _state_dtype(p: Tensor) -> torch.dtype:
    """float32, or the parameter's dtype where that is wider."""
    return torch.promote_types(p.dtype, torch.float32)


def _mean_square(grads: Tensors) -> float:
    """The mean of g² over all elements of all gradients."""
    total = sum(g.to(_state_dtype(g)).square().sum().item() for g in grads)
    return total / max(1, sum(g.numel() for g in grads))


def _check_options(group: dict[str, Any]) -> None:
    """Refuse the first option that is out of range, in one line."""
    (beta1, beta2), v_init = group["betas"], group["v_init"]
    valid = {
        "lr": (group["lr"] >= 0, "a number >= 0"),
        "betas": (
            0 <= beta1 < 1 and 0 <= beta2 <= 1,
            "two numbers, in [0, 1) and in [0, 1]",
        ),
        "eps": (group["eps"] >= 0, "a number >= 0"),
        "bias_correction": (
            group["bias_correction"] == "none"
            or (group["bias_correction"] in ("inside", "outside") and beta2 < 1),
            "inside, outside or none; none where the second beta is 1",
        ),
        "m_init": (math.isfinite(group["m_init"]), "a finite number"),
        "v_init": (
            v_init in ("grad_sq", "mean_grad_sq") if isinstance(v_init, str) else v_init >= 0,
            "a number >= 0, grad_sq or mean_grad_sq",
        ),
        "l1": (group["l1"] >= 0, "a number >= 0"),
        "l2": (group["l2"] >= 0, "a number >= 0"),
        "weight_decay": (group["weight_decay"] >= 0, "a number >= 0"),
        "activation": (group["activation"] in ("sign", "tanh"), "sign or tanh"),
    }
    for key, (holds, expected) in valid.items():
        if not holds:
            raise UserError(f"yogi: {key}={group[key]} is out of range; valid: {expected}")
