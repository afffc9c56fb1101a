"""The certifiers as methods of a run: each bounds the margins of a batch of examples."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from common.base.errors import UserError
from papers.sdp_cert.attack import attack
from papers.sdp_cert.bounds import (
    Intermediate,
    Interval,
    Objective,
    Slopes,
    crown_objective,
    interval_objective,
    layer_bounds,
    margins,
    optimised_linear_bounds,
)
from papers.sdp_cert.dual import certified_bound
from papers.sdp_cert.exact import exact_bounds, linear_programme_bounds
from papers.sdp_cert.grad_cert import gradient_bounds
from papers.sdp_cert.network import ReluNetwork
from papers.sdp_cert.reference import reference_bound
from papers.sdp_cert.relaxation import relax


@dataclass
class Examples:
    """A batch: inputs x [e, n_0] with labels [e], the box around each, and the margins to bound."""

    network: ReluNetwork
    x: Tensor
    labels: Tensor
    box: Interval
    eps: float
    seed: int
    _layers: dict[str, list[Interval]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def goal(self) -> Objective:
        """f_y - f_label for every other class y."""
        return margins(self.network, self.labels)

    def layers(self, kind: Intermediate) -> list[Interval]:
        """Pre-activation bounds, computed once.

        Raises:
            UserError: they are beyond float64.
        """
        if kind not in self._layers:
            found = layer_bounds(self.network, self.box, kind)
            if not all(layer.radius.isfinite().all() for layer in found):
                raise UserError(f"eps={self.eps}: the bounds of the network's layers are beyond float64")
            self._layers[kind] = found
        return self._layers[kind]


@dataclass(frozen=True)
class Found:
    """Bounds on the margins [e, k] by one method; None where it gives none on that side.

    `failed` [e, k]: the solver failed; the bound is then its last valid one.
    """

    upper: Tensor | None
    lower: Tensor | None
    failed: Tensor | None = None


class Certifier(ABC):
    """One way to bound margins.

    Attributes:
        before: cheaper ones that run first.
        decides: run only for the targets that those leave open, and stop as soon as a sign is known.
    """

    NAME: ClassVar[str]
    before: tuple["Certifier", ...] = ()
    decides: bool = False

    @abstractmethod
    def bounds(self, examples: Examples, asked: Tensor) -> Found:
        """Bounds of the targets in `asked`, bool [e, k]; of others any valid ones."""


class NoCertifier(Certifier):
    """None at all: only the clean error is measured."""

    NAME = "none"

    def bounds(self, examples: Examples, asked: Tensor) -> Found:
        return Found(None, None)


class PGD(Certifier):
    """Projected gradient attack: bounds from below; what it cannot refute is not certified by it.

    Args:
        steps, step_size, restarts: see `attack.attack`.

    Raises:
        UserError: a number out of range.
    """

    NAME = "pgd"

    def __init__(self, *, steps: int, step_size: float, restarts: int) -> None:
        if steps < 1 or restarts < 1 or step_size <= 0:
            raise UserError(
                f"pgd: steps={steps}, restarts={restarts}, step_size={step_size}; valid: >= 1, >= 1, > 0"
            )
        self.steps, self.step_size, self.restarts = steps, step_size, restarts

    def bounds(self, examples: Examples, asked: Tensor) -> Found:
        lower, _ = attack(
            examples.network,
            examples.box,
            examples.goal,
            steps=self.steps,
            step_size=self.step_size,
            restarts=self.restarts,
            generator=torch.Generator().manual_seed(examples.seed),
        )
        return Found(None, lower)


class IBP(Certifier):
    """Interval arithmetic."""

    NAME = "ibp"

    def bounds(self, examples: Examples, asked: Tensor) -> Found:
        layers = examples.layers("interval")
        return Found(interval_objective(examples.network, layers, examples.box, examples.goal), None)


class CROWN(Certifier):
    """Lines substituted backwards once.

    Args:
        slopes: `adaptive` (CROWN) or `parallel` (Wong and Kolter).
        intermediate: where the layers' bounds come from.
    """

    NAME = "crown"

    def __init__(self, *, slopes: Slopes, intermediate: Intermediate) -> None:
        self.slopes, self.intermediate = slopes, intermediate

    def bounds(self, examples: Examples, asked: Tensor) -> Found:
        layers = examples.layers(self.intermediate)
        upper = crown_objective(examples.network, layers, examples.box, examples.goal, self.slopes)
        return Found(upper, None)


class LP(Certifier):
    """The LP relaxation, by its dual (optimised slopes) or by HiGHS.

    Args:
        solver: `dual` or `highs`.
        steps, lr: of `dual`.
        intermediate: as in CROWN.
        attack, linear: run first, and then only what they leave open is solved; null for none.

    Raises:
        UserError: steps below 0 or lr not above 0.
    """

    NAME = "lp"

    def __init__(
        self,
        *,
        solver: Literal["dual", "highs"],
        steps: int,
        lr: float,
        intermediate: Intermediate,
        attack: Certifier | None,
        linear: Certifier | None,
    ) -> None:
        if steps < 0 or lr <= 0:
            raise UserError(f"method.steps={steps}, method.lr={lr}; valid: >= 0, > 0")
        self.solver, self.steps, self.lr, self.intermediate = solver, steps, lr, intermediate
        self.before = tuple(one for one in (attack, linear) if one is not None)
        self.decides = bool(self.before)

    def bounds(self, examples: Examples, asked: Tensor) -> Found:
        layers = examples.layers(self.intermediate)
        if self.solver == "highs":
            upper, failed = linear_programme_bounds(
                examples.network, layers, examples.box, examples.goal, asked
            )
            return Found(upper, None, failed)
        upper = optimised_linear_bounds(
            examples.network,
            layers,
            examples.box,
            examples.goal,
            steps=self.steps,
            lr=self.lr,
            stop_below=0.0 if self.decides else None,
        )
        return Found(upper, None)


class SDP(Certifier):
    """The paper's relaxation, with or without the linear cut, whole or by layers.

    Args:
        linear_cut, layerwise: see `relaxation.relax`.
        solver: `interior` (dual.py, any size), `clarabel` or `scs` (cvxpy, up to 200 variables).
        tolerance, max_steps: of `interior`.
        intermediate: as in CROWN; the paper's is `interval`.
        attack, linear: as in LP.

    Raises:
        UserError: tolerance not above 0 or max_steps below 1.
    """

    NAME = "sdp"

    def __init__(
        self,
        *,
        linear_cut: bool,
        layerwise: bool,
        solver: Literal["interior", "clarabel", "scs"],
        tolerance: float,
        max_steps: int,
        intermediate: Intermediate,
        attack: Certifier | None,
        linear: Certifier | None,
    ) -> None:
        if tolerance <= 0 or max_steps < 1:
            raise UserError(f"method.tolerance={tolerance}, method.max_steps={max_steps}; valid: > 0, >= 1")
        self.linear_cut, self.layerwise, self.solver = linear_cut, layerwise, solver
        self.tolerance, self.max_steps, self.intermediate = tolerance, max_steps, intermediate
        self.before = tuple(one for one in (attack, linear) if one is not None)
        self.decides = bool(self.before)

    def bounds(self, examples: Examples, asked: Tensor) -> Found:
        layers, goal = examples.layers(self.intermediate), examples.goal
        if self.solver != "interior":
            return self._reference(examples, layers, asked)
        upper, _, failed = certified_bound(
            examples.network,
            layers,
            examples.box,
            goal,
            linear_cut=self.linear_cut,
            layerwise=self.layerwise,
            tolerance=self.tolerance,
            max_steps=self.max_steps,
            decide=self.decides,
            asked=asked,
        )
        return Found(upper, None, failed)

    def _reference(self, examples: Examples, layers: list[Interval], asked: Tensor) -> Found:
        assert self.solver != "interior"
        upper = interval_objective(examples.network, layers, examples.box, examples.goal)
        failed = torch.zeros_like(asked)
        whole = relax(
            examples.network, layers, examples.box, examples.goal,
            linear_cut=self.linear_cut, layerwise=self.layerwise,
        )  # fmt: skip
        bound, wrong = reference_bound(whole.take(asked.flatten().nonzero().squeeze(1)), self.solver)
        upper[asked] = upper[asked].minimum(bound)
        failed[asked] = wrong.to(failed.device)
        return Found(upper, None, failed)


class GradCert(Certifier):
    """Grad-cert, for networks with one hidden layer; it never clips the inputs to [0, 1].

    Args:
        sweeps, rank: see `grad_cert.gradient_bounds`.

    Raises:
        UserError: a number out of range.
    """

    NAME = "grad_cert"

    def __init__(self, *, sweeps: int, rank: int | None) -> None:
        if sweeps < 1 or (rank is not None and rank < 1):
            raise UserError(f"method.sweeps={sweeps}, method.rank={rank}; valid: >= 1, >= 1 or null")
        self.sweeps, self.rank = sweeps, rank
        self._solved: Tensor | None = None

    def bounds(self, examples: Examples, asked: Tensor) -> Found:
        if self._solved is None:
            self._solved, _ = gradient_bounds(examples.network, sweeps=self.sweeps, rank=self.rank, seed=0)
        logits, goal = examples.network(examples.x), examples.goal
        clean = logits.gather(1, goal.targets) - logits.gather(1, examples.labels[:, None])
        return Found(clean + examples.eps / 4 * self._solved[goal.targets, examples.labels[:, None]], None)


class Exact(Certifier):
    """The exact optimum by mixed-integer programming: tiny networks.

    Args:
        seconds: at most, a target.
        intermediate: as in CROWN.

    Raises:
        UserError: seconds not above 0.
    """

    NAME = "exact"

    def __init__(self, *, seconds: float, intermediate: Intermediate) -> None:
        if seconds <= 0:
            raise UserError(f"method.seconds={seconds}; valid: > 0")
        self.seconds, self.intermediate = seconds, intermediate

    def bounds(self, examples: Examples, asked: Tensor) -> Found:
        layers = examples.layers(self.intermediate)
        upper, lower = exact_bounds(
            examples.network, layers, examples.box, examples.goal, asked, seconds=self.seconds
        )
        return Found(upper, lower)


class Sandwich(Certifier):
    """Several certifiers, each on every example in full, to compare their bounds.

    Args:
        methods: by any name; `mean_margin` of a run is that of the last.

    Raises:
        UserError: no method.
    """

    NAME = "sandwich"

    def __init__(self, *, methods: dict[str, Certifier]) -> None:
        if not methods:
            raise UserError("method.methods is empty; valid: at least one certifier")
        self.before = tuple(methods.values())

    def bounds(self, examples: Examples, asked: Tensor) -> Found:
        return Found(None, None)
