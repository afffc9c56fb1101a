"""Optimizers whose result is a weighted average of their points: state, and the way there and back."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from common.runs.errors import UserError

# a key of `Optimizer.state`, where torch saves and loads it beside those of parameters
SHARED: Any = "shared"
# of each parameter group its tensors
Groups = list[list[Tensor]]


class AveragingOptimizer(Optimizer, ABC):
    """The base of optimizers with one step size for all parameters together and an averaged result.

    The state of a parameter is held in float32, or in the parameter's dtype where that is wider.
    `state["shared"]` holds the step count `t`, the sum of weights, and the sums over gradients, 0-dim tensors
    on the parameters' device, so that no step waits for the device. Parameters without a gradient count as
    ones with the gradient 0.

    Args:
        params: parameters, or groups of them, which may differ in `lr` alone.
        defaults: all options, `lr` among them.

    Raises:
        UserError: an option out of range; a sparse or complex gradient (`step`).
    """

    NAME: ClassVar[str]

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        super().__init__(params, defaults)
        self.state[SHARED] = self._first_shared()

    @abstractmethod
    def _check_options(self, options: dict[str, Any]) -> None:
        """Refuse the first option that is out of range."""

    @abstractmethod
    def _sums(self) -> dict[str, float]:
        """The 0-dim tensors of the shared state, by name, with their first values."""

    @abstractmethod
    def _first_state(self, p: Tensor) -> dict[str, Tensor]:
        """The state of a parameter that has its first gradient; p in the dtype of the state."""

    @abstractmethod
    def _update(self, xs: Groups, gs: Groups, states: list[list[Any]]) -> None:
        """One step in place, group by group; xs and gs are in the dtype of the states."""

    @property
    def options(self) -> dict[str, Any]:
        """The options, which all groups share but for `lr`."""
        return self.param_groups[0]

    @property
    def shared(self) -> dict[str, Any]:
        """What belongs to all parameters together."""
        found: dict[str, Any] = self.state[SHARED]
        return found

    def _first_shared(self) -> dict[str, Any]:
        device = self.param_groups[0]["params"][0].device
        dtype = torch.float32 if device.type == "mps" else torch.float64
        sums = {name: torch.tensor(v, device=device, dtype=dtype) for name, v in self._sums().items()}
        return {"t": 0, "weight_sum": 0.0, "swapped": False, **sums}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, which may set its own `lr` and nothing else; refuse options out of range."""
        options = {**self.defaults, **param_group}
        self._check_options(options)
        for key, value in self.defaults.items():
            if key != "lr" and options[key] != value:
                raise UserError(f"{self.NAME}: {key}={options[key]} of one group; valid: {value}, as of all")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step; `closure` recomputes the loss, which is returned (None without one)."""
        if self.shared["swapped"]:
            raise UserError(f"{self.NAME}: step() at the average; call swap_back() before it")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = [self._present(group["params"]) for group in self.param_groups]
        if not any(groups):
            return loss
        xs = [[_wide(p.data) for p in group] for group in groups]
        gs = [[_wide(_gradient(p)) for p in group] for group in groups]
        self._update(xs, gs, [[self.state[p] for p in group] for group in groups])
        self.shared["t"] += 1
        for group, values in zip(groups, xs, strict=True):
            for p, x in zip(group, values, strict=True):
                if x.dtype != p.dtype:
                    p.copy_(x)
        return loss

    def _present(self, params: list[Tensor]) -> list[Tensor]:
        """The parameters that have a gradient or had one, with their state."""
        for p in params:
            if p.grad is None:
                continue
            if p.grad.is_sparse or p.is_complex():
                shape = tuple(p.shape)
                raise UserError(
                    f"{self.NAME}: a gradient of shape {shape} is sparse or complex; valid: dense and real"
                )
            if not self.state[p]:
                self.state[p].update(self._first_state(_wide(p.detach())))
        return [p for p in params if self.state.get(p)]

    def _norm(self, tensors: Groups) -> Tensor:
        """||.|| over all tensors of all groups: 0-dim, on the device of the sums."""
        flat = [t for group in tensors for t in group]
        device, dtype = self.shared["sum"].device, self.shared["sum"].dtype
        norms = torch.stack([n.to(device) for n in torch._foreach_norm(flat)])
        return torch.linalg.vector_norm(norms.to(dtype))

    def _project(self, points: Groups, starts: Groups, radius: float) -> None:
        """x <- start + (x - start) min(1, radius / ||x - start||), in place; untouched inside the ball."""
        inward = differences(starts, points)
        norm = self._norm(inward)
        excess = 1 - torch.clamp(radius / norm.clamp_min(torch.finfo(norm.dtype).tiny), max=1.0)
        for group, offsets in zip(points, inward, strict=True):
            if group:
                torch._foreach_mul_(offsets, excess.to(group[0].device, group[0].dtype))
                torch._foreach_add_(group, offsets)

    @torch.no_grad()
    def swap_to_average(self) -> None:
        """Put the average into the parameters; what they held is kept for `swap_back`."""
        if self.shared["swapped"]:
            raise UserError(f"{self.NAME}: the parameters hold the average already; call swap_back()")
        for index, p, state in self._with_state():
            iterate = p.detach().clone()
            p.copy_(self._average(_wide(p.detach()), state, index))
            state["iterate"] = iterate
        self.shared["swapped"] = True

    @torch.no_grad()
    def swap_back(self) -> None:
        """Put the iterate back into the parameters, bit for bit."""
        if not self.shared["swapped"]:
            raise UserError(f"{self.NAME}: the parameters hold no average; call swap_to_average() first")
        for _, p, state in self._with_state():
            p.copy_(state.pop("iterate"))
        self.shared["swapped"] = False

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the parameters hold the average; it may be nested."""
        if self.shared["swapped"]:
            yield
            return
        self.swap_to_average()
        try:
            yield
        finally:
            self.swap_back()

    def _average(self, p: Tensor, state: dict[str, Any], group: int) -> Tensor:
        """The average for a parameter of the group with this index, where its state does not hold it."""
        average: Tensor = state["average"]
        return average

    def _with_state(self) -> Iterator[tuple[int, Tensor, dict[str, Any]]]:
        for index, group in enumerate(self.param_groups):
            for p in group["params"]:
                if self.state.get(p):
                    yield index, p, self.state[p]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a saved state exactly: torch alone would round it to the parameters' dtype."""
        super().load_state_dict(state_dict)
        params = [p for group in self.param_groups for p in group["params"]]
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        for index, p in zip(saved, params, strict=True):
            for name, value in state_dict["state"].get(index, {}).items():
                dtype = p.dtype if name == "iterate" else _wide_dtype(p)
                self.state[p][name] = value.to(p.device, dtype, copy=True)
        device = params[0].device
        self.state[SHARED] = {
            name: value.to(device, copy=True) if isinstance(value, Tensor) else deepcopy(value)
            for name, value in state_dict["state"][SHARED].items()
        }


def differences(first: Groups, second: Groups) -> Groups:
    """first - second, tensor by tensor of each group."""
    pairs = zip(first, second, strict=True)
    return [list(torch._foreach_sub(a, b)) if a else [] for a, b in pairs]


def _gradient(p: Tensor) -> Tensor:
    return torch.zeros_like(p) if p.grad is None else p.grad


def _wide_dtype(p: Tensor) -> torch.dtype:
    """float32, or the tensor's dtype where that is wider."""
    return torch.promote_types(p.dtype, torch.float32)


def _wide(p: Tensor) -> Tensor:
    return p.to(_wide_dtype(p))


def check_positive(name: str, **values: float | None) -> None:
    """Refuse numbers that are given and not positive and finite, NaN among them.

    Raises:
        UserError: the first of them, after the name of its method.
    """
    for key, value in values.items():
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise UserError(f"{name}: {key}={value}; valid: a finite number > 0")


def check_not_negative(name: str, **values: float) -> None:
    """Refuse numbers below 0, NaN and infinity.

    Raises:
        UserError: the first of them, after the name of its method.
    """
    for key, value in values.items():
        if not (value >= 0 and math.isfinite(value)):
            raise UserError(f"{name}: {key}={value}; valid: a finite number >= 0")
