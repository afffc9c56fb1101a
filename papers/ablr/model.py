"""ABLR: the features of many tasks learnt together, each task with its own Bayesian linear regression.

Minimised over the features' parameters z and log 1/alpha_t, log beta_t of each task t is the sum of the
tasks' criteria (`papers.ablr.regression`), by L-BFGS-B. Cost of one value: O(sum_t N_t D^2 + T D^3).
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.optimize import Bounds, minimize
from torch import Generator, Tensor

from papers.ablr.features import Features
from papers.ablr.regression import Form, heads

# 1/alpha within [1e-3, 1e3] and beta within [1, 1e6]; a start at beta = 1e3 is so badly conditioned that the
# features hardly move in hundreds of iterations
INVERSE_ALPHA, BETA = (1e-3, 1e3), (1.0, 1e6)
FIRST_INVERSE_ALPHA, FIRST_BETA = 1.0, 10.0
# points whose features are computed at once: what a core's cache holds
AT_ONCE = 4096


@dataclass(frozen=True)
class Points:
    """What was observed of one task: inputs x [N, P] in [0, 1], and values y [N] in their own units."""

    x: Tensor
    y: Tensor


def standardised(y: Tensor) -> tuple[Tensor, float, float]:
    """y with mean 0 and standard deviation 1, that mean, and that deviation (1 where there is no spread)."""
    if not len(y):
        return y, 0.0, 1.0
    level, scale = float(y.mean()), float(y.std(correction=0))
    if scale <= 1e-12 * float(y.abs().max()):
        return torch.zeros_like(y), level, 1.0
    return (y - level) / scale, level, scale


def copula(y: Tensor) -> Tensor:
    """y by its ranks as normal quantiles (ties share theirs): what is left when units are forgotten."""
    order = y[:, None] > y[None]
    equal = y[:, None] == y[None]
    share = (order.sum(1) + 0.5 * equal.sum(1)) / len(y)
    return torch.special.ndtri(share.to(torch.float64))


def _bounds_of_scales(tasks: int) -> Bounds:
    """Of all log 1/alpha, then all log beta."""
    low, high = np.log([INVERSE_ALPHA, BETA]).T
    return Bounds(np.repeat(low, tasks), np.repeat(high, tasks))


class _Group:
    """Some tasks of one form, their points padded to one number.

    Args:
        form: of the head. places: the numbers of the tasks. tasks: all of them.

    Attributes:
        own: `places`, int64 [G]; points: of all of them together; y, valid: [G, N], see `heads`.
    """

    def __init__(self, form: Form, places: list[int], tasks: Sequence[Points]) -> None:
        self.form, self.places, self.own = form, places, torch.tensor(places)
        counts = torch.tensor([len(tasks[t].y) for t in places])
        self.points = int(counts.sum())
        self.valid = torch.arange(int(counts.max())) < counts[:, None]
        self.y = torch.zeros(self.valid.shape, dtype=torch.float64)
        self.y[self.valid] = torch.cat([tasks[t].y for t in places])
        # where each point stands among the padded ones; None: nothing is padded
        self.rows = None if bool(self.valid.all()) else self.valid.flatten().nonzero()[:, 0]

    def padded(self, phi: Tensor) -> Tensor:
        """Features [points, D] as [G, N, D]."""
        shape = (*self.valid.shape, phi.shape[1])
        if self.rows is None:
            return phi.view(shape)
        return phi.new_zeros(self.valid.numel(), phi.shape[1]).index_copy(0, self.rows, phi).view(shape)


class _Part:
    """Some tasks, whose features are computed together.

    Tasks with more points than features stand in the primal form, the others in the dual one.

    Args:
        places: the numbers of the tasks. tasks: all of them. dim: D.

    Attributes:
        groups: by their form; inputs: of the groups, one after the other, [points, P].
    """

    def __init__(self, places: list[int], tasks: Sequence[Points], dim: int) -> None:
        own: dict[Form, list[int]] = {
            "primal": [t for t in places if len(tasks[t].y) > dim],
            "dual": [t for t in places if len(tasks[t].y) <= dim],
        }
        self.groups = [_Group(form, found, tasks) for form, found in own.items() if found]
        self.inputs = torch.cat([tasks[t].x for group in self.groups for t in group.places])

    def criterion(self, phi: Tensor, log_scale: Tensor, log_beta: Tensor) -> Tensor:
        """The sum of the criteria of its tasks by the features of `inputs`, [points, D]."""
        total = phi.new_zeros(())
        # the gradient of one piece that is all would be copied
        pieces = [phi] if len(self.groups) == 1 else phi.split([group.points for group in self.groups])
        for group, piece in zip(self.groups, pieces, strict=True):
            alpha, beta = torch.exp(-log_scale[group.own]), log_beta[group.own].exp()
            found = heads(group.padded(piece), group.y, group.valid, alpha, beta, group.form)
            total = total + found.criterion.sum()
        return total


def _parted(tasks: Sequence[Points]) -> list[list[int]]:
    """The tasks' numbers in order, cut before a part would have more than `AT_ONCE` points."""
    parts: list[list[int]] = [[]]
    points = 0
    for place, task in enumerate(tasks):
        if parts[-1] and points + len(task.y) > AT_ONCE:
            parts.append([])
            points = 0
        parts[-1].append(place)
        points += len(task.y)
    return parts


def _keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next evaluation, up to 62 MB.

    Once a block has been freed, smaller ones (of at most 32 MB) are not given back to the system one by one,
    and twice its size stays. Where each part's memory is fetched anew, that takes a fifth of the whole time.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


def _downhill(
    parts: Sequence[Callable[[Tensor], Tensor]],
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """The sum of `parts` and its gradient, as SciPy wants them; each part's graph is gone before the next."""

    def downhill(flat: np.ndarray) -> tuple[float, np.ndarray]:
        at = torch.from_numpy(flat).requires_grad_()
        values: list[float] = []
        slopes: list[Tensor] = []
        for part in parts:
            value = part(at)
            slopes += torch.autograd.grad(value, at)
            values.append(float(value.detach()))
        return sum(values), torch.stack(slopes).sum(0).numpy()

    return downhill


class SharedRegression:
    """The model of T tasks.

    Args:
        features: the map; a copy of it is kept. tasks: at least one; N_t = 0 is allowed.
        generator: of the features' first parameters.

    Attributes:
        z: parameters of the features; log_scale [T] log 1/alpha, log_beta [T].
        evaluations: of the criterion and its gradient, of the last fit.
    """

    def __init__(self, features: Features, tasks: Sequence[Points], generator: Generator) -> None:
        self.features = copy.copy(features)
        self.tasks = list(tasks)
        self.z = self.features.start(tasks[0].x.shape[1], generator)
        self.log_scale = torch.full((len(tasks),), float(np.log(FIRST_INVERSE_ALPHA)), dtype=torch.float64)
        self.log_beta = torch.full((len(tasks),), float(np.log(FIRST_BETA)), dtype=torch.float64)
        self.evaluations = 0
        self._divide()

    def _divide(self) -> None:
        """Tasks in parts of so few points that a core's cache holds what is computed of them."""
        self.parts = [_Part(places, self.tasks, self.features.dim) for places in _parted(self.tasks)]

    def criterion(self, z: Tensor, log_scale: Tensor, log_beta: Tensor) -> Tensor:
        """The sum of the tasks' criteria."""
        return torch.stack([self._of(part, z, log_scale, log_beta) for part in self.parts]).sum()

    def _of(self, part: _Part, z: Tensor, log_scale: Tensor, log_beta: Tensor) -> Tensor:
        """What some of the tasks add to it."""
        return part.criterion(self.features.map(z, part.inputs), log_scale, log_beta)

    def fit(self, iterations: int) -> float:
        """So many iterations of L-BFGS-B from the parameters as they are; the criterion at the end."""
        k, T = len(self.z), len(self.tasks)

        def part_of(part: _Part, at: Tensor) -> Tensor:
            return self._of(part, *at.split([k, T, T]))

        downhill = _downhill([partial(part_of, part) for part in self.parts])

        _keep_freed_memory()
        start = torch.cat([self.z, self.log_scale, self.log_beta]).numpy()
        largest = np.full(k, self.features.largest)
        scales = _bounds_of_scales(T)
        bounds = Bounds(np.append(-largest, scales.lb), np.append(largest, scales.ub))
        found = minimize(
            downhill, np.clip(start, bounds.lb, bounds.ub), jac=True, method="L-BFGS-B", bounds=bounds,
            options={"maxiter": iterations, "maxfun": 2 * iterations + 5},
        )  # fmt: skip
        self.evaluations = int(found.nfev)
        if np.isfinite(found.x).all() and np.isfinite(found.fun):
            best = torch.from_numpy(found.x)
            self.z, self.log_scale, self.log_beta = best[:k], best[k : k + T], best[k + T :]
        return float(found.fun)

    def fit_heads(self, iterations: int) -> float:
        """As `fit`, the features staying as they are: alpha and beta alone; features are computed once."""
        T = len(self.tasks)
        with torch.no_grad():
            features = [self.features.map(self.z, part.inputs) for part in self.parts]

        def part_of(part: _Part, phi: Tensor, at: Tensor) -> Tensor:
            return part.criterion(phi, *at.chunk(2))

        downhill = _downhill([partial(part_of, *one) for one in zip(self.parts, features, strict=True)])
        found = minimize(
            downhill, torch.cat([self.log_scale, self.log_beta]).numpy(), jac=True, method="L-BFGS-B",
            bounds=_bounds_of_scales(T), options={"maxiter": iterations},
        )  # fmt: skip
        best = torch.from_numpy(found.x)
        self.log_scale, self.log_beta = best[:T], best[T:]
        return float(found.fun)

    def predict(self, x: Tensor, tasks: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Mean and variance without noise of some tasks at x [C, P]: [len(tasks), C] each."""
        phi = self.features.map(self.z, x)
        means, variances = [], []
        for t in tasks:
            task = self.tasks[t]
            form: Form = "primal" if len(task.y) > self.features.dim else "dual"
            valid = torch.ones(1, len(task.y), dtype=torch.bool)
            alpha, beta = torch.exp(-self.log_scale[t : t + 1]), self.log_beta[t : t + 1].exp()
            own = self.features.map(self.z, task.x) if len(task.y) else phi[:0]
            mean, variance = heads(own.detach()[None], task.y[None], valid, alpha, beta, form).predict(phi)
            means.append(mean)
            variances.append(variance)
        return torch.cat(means), torch.cat(variances)

    def state_dict(self) -> dict[str, Tensor]:
        return {"z": self.z, "log_scale": self.log_scale, "log_beta": self.log_beta}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.z, self.log_scale, self.log_beta = state["z"], state["log_scale"], state["log_beta"]
