"""What all first- and zeroth-order methods of this paper share: the protocol and the constants."""

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from common.base.errors import UserError
from common.numerics.sampling import ReplicateSampler
from papers.spider.problems.protocol import Oracle


def positive(**values: float | None) -> None:
    """Refuse hyperparameters that are given and not positive.

    Raises:
        UserError: the first such value, by name.
    """
    for name, value in values.items():
        if value is not None and not value > 0:
            raise UserError(
                f"method.{name}={value}; valid: a number > 0, or null where the paper has a formula"
            )


class Method(ABC):
    """An iterative method on R replicates, which sees its problem through an `Oracle` only.

    Hyperparameters left None follow the paper's formula from the problem's constants.

    Attributes:
        x: the iterates, [R, d].
        k: steps made.
        own_stop: whether the method ends by its own rule (it then retires replicates); else it goes on
            for as long as it is stepped.
        v, previous: of methods with a `period`, the latest estimate of the gradient, and the iterate where it
            was made, both [R, d].
    """

    # attributes that a checkpoint must hold: tensors or numbers
    STATE: ClassVar[tuple[str, ...]] = ("x", "k")

    oracle: Oracle
    smoothness: float | None = None
    sigma: float | None = None
    hessian_lipschitz: float | None = None
    x: Tensor
    k: int
    own_stop: bool
    v: Tensor
    previous: Tensor

    def start(self, oracle: Oracle, x0: Tensor, own_stop: bool) -> None:
        """Begin at x0 [R, d]; computes what the hyperparameters leave open.

        Raises:
            UserError: a constant is needed that the problem does not know.
        """
        self.oracle, self.x, self.k, self.own_stop = oracle, x0.clone(), 0, own_stop
        self.prepare()

    def prepare(self) -> None:  # noqa: B027
        """Compute settings and the initial state, once the oracle is known."""

    def constant(self, name: Literal["smoothness", "sigma", "hessian_lipschitz"]) -> float:
        """L, sigma or rho: as given to the method, else as the problem knows it.

        Raises:
            UserError: neither.
        """
        given, problem = getattr(self, name), self.oracle.problem
        value = given if given is not None else getattr(problem, name)
        if value is None:
            raise UserError(
                f"method.{name}=null: {type(problem).__name__} does not know it "
                "(valid: a number > 0; for a network it sets the step sizes)"
            )
        return value

    @abstractmethod
    def step(self) -> None:
        """One step of every replicate."""

    @property
    def returned(self) -> Tensor:
        """The point that the method returns: [R, d]."""
        return self.x

    @property
    def period(self) -> int | None:
        """Steps from checkpoint to checkpoint; None: no estimate is carried from step to step."""
        return None

    def error_bound(self) -> float | None:
        """What E||v - grad f(previous)||^2 is at most, by the theory; None where it says nothing."""
        return None

    def theory(self) -> dict[str, float]:
        """What the theory says of this run: `theory_steps`, `theory_calls`; empty where it says nothing."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in self.STATE}
        return {name: v.clone() if isinstance(v, Tensor) else v for name, v in state.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.STATE:
            value = state[name]
            setattr(self, name, value.to(self.x.device) if isinstance(value, Tensor) else value)

    def move(self, new: Tensor) -> None:
        """Put the iterates of the replicates that are not retired at `new` [R, d]."""
        self.x = self.oracle.keep_retired(new, self.x)


def components(oracle: Oracle, method: str) -> int:
    """n of a finite sum.

    Raises:
        UserError: the problem is online.
    """
    n = oracle.problem.n
    if n is None:
        raise UserError(f"method {method} needs a finite sum (valid on a stream: sgd, scsg, spider_sfo_*)")
    return n


def objective_gap(given: float | None, oracle: Oracle, x0: Tensor) -> float:
    """Delta = f(x_0) - inf f, as given, else from the problem's lower bound (not counted)."""
    if given is not None:
        return given
    return float(oracle.problem.true_value(x0).max()) - oracle.problem.lower_bound


def ceil(value: float) -> int:
    """The least integer not below a value, which rounding errors do not lift."""
    return math.ceil(value - 1e-9)


class UniformIterate:
    """One iterate of each replicate, uniform among those seen so far, in O(log K) random numbers.

    Iterate k replaces the kept one with probability 1/(k+1). So after a replacement at k the next is at m
    or later with probability (k+1)/m: it is at floor((k+1)/U) for U uniform in (0, 1].

    Args:
        sampler: gives the uniforms.
        x: points of the right shape, [len(rows), d].
        rows: which replicates these are.
    """

    def __init__(self, sampler: ReplicateSampler, x: Tensor, rows: list[int]) -> None:
        self.sampler, self.kept, self.rows = sampler, x.clone(), list(rows)
        self.next = [0] * len(rows)

    def see(self, k: int, x: Tensor, active: list[bool] | None = None) -> None:
        """Show iterate k = 0, 1, ... (x as in the constructor) of those that are active (None: all)."""
        for i, due in enumerate(self.next):
            if due == k and (active is None or active[i]):
                self.kept[i] = x[i]
                uniform = 1.0 - float(self.sampler.uniform(1, [self.rows[i]]))
                self.next[i] = int((k + 1) / uniform)

    def drop(self, which: Tensor) -> None:
        """Forget some replicates: a mask over those still here."""
        here = [not out for out in which.tolist()]
        self.kept = self.kept[~which]
        self.rows = [r for r, keep in zip(self.rows, here, strict=True) if keep]
        self.next = [due for due, keep in zip(self.next, here, strict=True) if keep]

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept.clone(), "rows": list(self.rows), "next": list(self.next)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept = state["kept"].to(self.kept.device)
        self.rows, self.next = list(state["rows"]), list(state["next"])


def row_norms(v: Tensor) -> Tensor:
    """||v_r|| of each replicate: [R, 1]."""
    return torch.linalg.vector_norm(v, dim=1, keepdim=True)
