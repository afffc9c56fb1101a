"""What all methods of this paper share: the programme, the protocol, what is counted, and the guarantees."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from common.base.errors import UserError
from papers.saddle.oracles import Answer
from papers.saddle.problems import Array, SaddleProblem
from papers.saddle.sets import ConstraintSet


@dataclass(frozen=True)
class Programme:
    """min f over C with the constants of both: |x - y| <= D, grad f L-Lipschitz and Hess f M-Lipschitz on
    C."""

    problem: SaddleProblem
    region: ConstraintSet
    L: float
    M: float
    D: float

    def gap(self, x: Array, g: Array) -> tuple[float, Array]:
        """G(x) = max_{v in C} -g'(v - x), the Frank-Wolfe gap, and its v."""
        v = self.region.lmo(g)
        return float(g @ (x - v)), v


@dataclass(frozen=True)
class Step:
    """What one iteration did.

    Attributes:
        kind: a first- or second-stage step, a random move of a baseline, or "stop": x stays.
        gap: G(x) before it, by the gradient that the method saw.
        fall: f before minus f after.
        guaranteed: what the theory promises of `fall`, None where it promises nothing.
        answer: of the oracle, where it was asked.
    """

    kind: Literal["first", "second", "random", "stop"]
    gap: float
    fall: float = 0.0
    guaranteed: float | None = None
    answer: Answer | None = None


def first_step_size(eps: float, L: float, D: float) -> float:
    """eta = eps / (D^2 L), at most 1."""
    return min(1.0, eps / (D**2 * L)) if L > 0 else 1.0


def first_guarantee(eps: float, L: float, D: float) -> float:
    """The fall of f of a first-stage step: eta eps - eta^2 L D^2 / 2; eps^2 / (2 L D^2) for eta < 1."""
    eta = first_step_size(eps, L, D)
    return eta * eps - eta**2 * L * D**2 / 2


def second_step_size(threshold: float, M: float, D: float) -> float:
    """sigma = threshold / (M D^3), at most 1, where q(u) < -threshold; the threshold is rho gamma."""
    return min(1.0, threshold / (M * D**3)) if M > 0 else 1.0


def second_guarantee(threshold: float, M: float, D: float) -> float:
    """The fall of a second-stage step: sigma^2 threshold / 2 - sigma^3 M D^3 / 6.

    It is threshold^3 / (3 M^2 D^6) for sigma < 1, with threshold = rho gamma.
    """
    sigma = second_step_size(threshold, M, D)
    return sigma**2 * threshold / 2 - sigma**3 * M * D**3 / 6


def positive(**values: float) -> None:
    """Refuse hyperparameters that are not positive.

    Raises:
        UserError: the first such value, by name.
    """
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"method.{name}={value}; valid: a number > 0")


class Method(ABC):
    """An iterative method for min f over C, from x_0 in C.

    Attributes:
        x: the present point; k: iterations made; stopped: whether the method has returned x.
        certificate: the last answer of its oracle at the point returned, None where it has none.
        promises: whether each step's fall is bounded below by `Step.guaranteed`.
        STATE: the attributes that change on the way, for `state_dict`.
    """

    STATE: ClassVar[tuple[str, ...]] = ("x", "k", "stopped")
    promises: ClassVar[bool] = False

    x: Array
    programme: Programme

    def start(self, programme: Programme, x: Array, seed: int) -> None:
        """Begin at x [d]."""
        self.programme, self.x, self.seed = programme, x.copy(), seed
        self.k, self.stopped = 0, False
        self.prepare()

    def prepare(self) -> None:  # noqa: B027
        """What a method needs besides, once it has its programme; for most nothing."""

    @abstractmethod
    def step(self) -> Step:
        """One iteration; moves x, or sets `stopped`."""

    def iteration_bound(self, fall: float) -> float | None:
        """The most iterations that theory allows for a fall of f from start to minimum; None: no bound."""
        return None

    def random(self) -> np.random.Generator:
        """The generator of this iteration: what it draws depends on the seed and k alone."""
        return np.random.default_rng((self.seed, self.k))

    def move(self, new: Array) -> float:
        """Go to a point of C; how far f fell."""
        problem = self.programme.problem
        fall = problem.value(self.x) - problem.value(new)
        self.x = new
        return fall

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and None."""
        values = {name: getattr(self, name) for name in self.STATE}
        return {
            name: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
            for name, value in values.items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value.numpy().copy() if isinstance(value, torch.Tensor) else value)
