"""Optimizers whose result is a weighted average of their points: state, and the way there and back."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from common.base.errors import UserError
from common.training.optimizer_checks import check_gradients, check_saved_state

# a key of the first parameter group, which is saved and loaded with its options, also by
# `torch.distributed.checkpoint`
SHARED = "shared"
# norms between these are right to rounding though they come from squares in float32
SAFE_NORMS = (1e-12, 1e18)
# step sizes between these leave room in float32 for their products with gradients and momenta
SAFE_SIZES = (1e-20, 1e20)


@dataclass(frozen=True)
class Batch:
    """Parameters of one group, on one device, whose states have one dtype.

    Attributes:
        group: its index; lr: its lr.
        xs, gs: the parameters and their gradients, in the dtype of the states.
        states: of each parameter.
    """

    group: int
    lr: float
    xs: list[Tensor]
    gs: list[Tensor]
    states: list[dict[str, Tensor]]

    def of(self, name: str) -> list[Tensor]:
        """A tensor of each state, by its name."""
        return [state[name] for state in self.states]

    def scalar(self, value: Tensor) -> Tensor:
        """A 0-dim tensor in the device and dtype of this batch."""
        return value.to(self.xs[0].device, self.xs[0].dtype)

    def steps(self, size: Tensor) -> list[Tensor]:
        """size * g: new tensors.

        In two factors where size itself is beyond float32, or nearly: gradients may be in any unit. On an
        accelerator, which is not waited for, one factor: there size has to be a number of the batch's dtype.
        """
        if on_host(size) and not in_range(size, SAFE_SIZES):
            root = self.scalar(size.sqrt())
            steps = torch._foreach_mul(self.gs, root)
            torch._foreach_mul_(steps, root)
            return list(steps)
        return list(torch._foreach_mul(self.gs, self.scalar(size)))


class AveragingOptimizer(Optimizer, ABC):
    """The base of optimizers with one step size for all parameters together and an averaged result.

    The state of a parameter is held in float32, or in the parameter's dtype where that is wider.
    `param_groups[0]["shared"]` holds the step count `t`, the sum of weights, and the sums over gradients,
    0-dim tensors on the parameters' device, so that no step waits for the device. Parameters without a
    gradient count as ones with the gradient 0. A gradient with a NaN or an infinite number in it makes
    parameters non-finite.

    Args:
        params: parameters, or groups of them, which may differ in `lr` alone.
        defaults: all options, `lr` among them.

    Raises:
        UserError: an option out of range; a sparse or complex gradient, or an expanded parameter (`step`,
            which then changes nothing); a state that is another optimizer's or of another form
            (`load_state_dict`, likewise).
    """

    NAME: ClassVar[str]

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        super().__init__(params, defaults)
        self.param_groups[0][SHARED] = self._first_shared()

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
    def _update(self, batches: list[Batch]) -> None:
        """One step in place; there is a batch at least."""

    @property
    def options(self) -> dict[str, Any]:
        """The options, which all groups share but for `lr`."""
        return self.param_groups[0]

    @property
    def shared(self) -> dict[str, Any]:
        """What belongs to all parameters together."""
        found: dict[str, Any] = self.param_groups[0][SHARED]
        return found

    @property
    def _home(self) -> torch.device:
        """Where the sums are: with the first parameter."""
        return next(p.device for group in self.param_groups for p in group["params"])

    def _first_shared(self) -> dict[str, Any]:
        device = self._home
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
        check_gradients(self.NAME, (p for group in self.param_groups for p in group["params"]))
        present = [(index, p) for index, group in enumerate(self.param_groups) for p in self._present(group)]
        if not present:
            return loss
        wide = [_wide(p.detach()) for _, p in present]
        self._update(self._batches(present, wide))
        self.shared["t"] += 1
        for (_, p), x in zip(present, wide, strict=True):
            if x.dtype != p.dtype:
                p.copy_(x)
        return loss

    def _present(self, group: dict[str, Any]) -> list[Tensor]:
        """The parameters that have a gradient or had one, with their state."""
        for p in group["params"]:
            if p.grad is not None and not self.state[p]:
                self.state[p].update(self._first_state(_wide(p.detach())))
        return [p for p in group["params"] if self.state.get(p)]

    def _batches(self, present: list[tuple[int, Tensor]], wide: list[Tensor]) -> list[Batch]:
        """The parameters (index of the group, parameter), and what they hold, by what can be one batch."""
        found: dict[tuple[Any, ...], Batch] = {}
        for (index, p), x in zip(present, wide, strict=True):
            key = (index, x.device, x.dtype)
            if key not in found:
                found[key] = Batch(index, self.param_groups[index]["lr"], [], [], [])
            found[key].xs.append(x)
            found[key].gs.append(_wide(_gradient(p)))
            found[key].states.append(self.state[p])
        return list(found.values())

    def _norm(self, tensors: list[Tensor]) -> Tensor:
        """||.|| over all tensors together: 0-dim, on the device of the sums.

        Right for any finite numbers; squares are taken in float64 on an accelerator, and on a CPU only where
        float32 is too narrow for them.
        """
        home = self.shared[next(iter(self._sums()))]
        wide = None if tensors[0].device.type in ("cpu", "mps") else torch.float64
        norms = [n.to(home.device, home.dtype) for n in torch._foreach_norm(tensors, 2, wide)]
        norm = torch.linalg.vector_norm(torch.stack(norms))
        if on_host(norm) and not in_range(norm, SAFE_NORMS):
            return _scaled_norm(tensors)
        return norm

    def _project(self, points: list[list[Tensor]], starts: list[list[Tensor]], radius: float) -> None:
        """x <- start + (x - start) min(1, radius / ||x - start||), in place; untouched inside the ball."""
        norm = self._norm(
            [offset for pair in zip(points, starts, strict=True) for offset in differences(*pair)]
        )
        share = torch.clamp(radius / norm.clamp_min(torch.finfo(norm.dtype).tiny), max=1.0)
        for group, centres in zip(points, starts, strict=True):
            # of a share 1 `lerp` makes x itself, and of a small one no difference of large numbers
            shares = [share.to(x.device, x.dtype) for x in group]
            for x, centre, part in zip(group, centres, shares, strict=True):
                torch.lerp(centre, x, part, out=x)

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
        self._check_saved(state_dict)
        super().load_state_dict(state_dict)
        params = [p for group in self.param_groups for p in group["params"]]
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        for index, p in zip(saved, params, strict=True):
            for name, value in state_dict["state"].get(index, {}).items():
                dtype = p.dtype if name == "iterate" else _wide_dtype(p)
                self.state[p][name] = value.to(p.device, dtype, copy=True)
        self.param_groups[0][SHARED] = {
            name: value.to(self._home) if isinstance(value, Tensor) else value
            for name, value in self.shared.items()
        }

    def _check_saved(self, state_dict: dict[str, Any]) -> None:
        """Refuse a state that is not of this optimizer, in this form."""
        required = self._first_state(torch.zeros(()))
        check_saved_state(self.NAME, self, state_dict, required=required, allowed=("iterate",))
        groups = state_dict["param_groups"]
        if SHARED not in groups[0] or groups[0][SHARED].keys() != self.shared.keys():
            raise UserError(
                f"{self.NAME}: the saved state is of another optimizer: its first group has no {SHARED!r} of "
                f"{', '.join(self.shared)}; valid: the state_dict() of one made with the same options"
            )
        for group in groups:
            self._check_options(group)


def on_host(value: Tensor) -> bool:
    """Whether a number can be read without waiting for a device."""
    return value.device.type == "cpu"


def in_range(value: Tensor, limits: tuple[float, float]) -> bool:
    """Whether a number is between the two; NaN is not."""
    return limits[0] < float(value) < limits[1]


def differences(first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
    """first - second, tensor by tensor."""
    return list(torch._foreach_sub(first, second))


def _scaled_norm(tensors: list[Tensor]) -> Tensor:
    """||.|| over all tensors, of which the largest number is divided out first: float64, on the CPU."""
    filled = [t for t in tensors if t.numel()]
    largest = max(
        (t.abs().max().double().cpu() for t in filled), key=_order, default=torch.zeros(()).double()
    )
    if largest == 0 or not largest.isfinite():
        return largest
    parts = [torch.linalg.vector_norm(t.double() / largest.item()).cpu() for t in filled]
    return largest * torch.linalg.vector_norm(torch.stack(parts))


def _order(number: Tensor) -> float:
    """By which NaN comes last."""
    return math.inf if number.isnan() else float(number)


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
