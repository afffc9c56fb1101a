"""How the losses of several tasks become one step: MGDA, MGDA-UB, and what the paper compares them with.

Each method gets a `SharedPass` and leaves gradients in all parameters; an ordinary optimizer does the rest.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, NamedTuple, TypedDict, Unpack, get_args

import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.base.task_spec import TaskSpec
from papers.mgda.min_norm import SOLVERS
from papers.mgda.normalise import Normaliser, divisors, normalised
from papers.mgda.shared import SharedPass, gram, lengths

Optimizer = Callable[..., torch.optim.Optimizer]
Solver = Literal["exact", "frank_wolfe", "projected_gradient"]


class MultiTaskMethod(nn.Module, ABC):
    """From the losses of a minibatch to gradients.

    Attributes:
        separate: whether every task has a network of its own.

    Args:
        optimizer: takes parameters and gives the optimizer that makes the steps.
    """

    separate: ClassVar[bool] = False

    def __init__(self, *, optimizer: Optimizer) -> None:
        super().__init__()
        self.optimizer = optimizer

    def start(self, specs: Sequence[TaskSpec], last_shared: list[nn.Parameter]) -> None:
        """Get to know the tasks, and the parameters of the last layer that they share.

        Raises:
            UserError: settings that do not fit them.
        """

    @abstractmethod
    def backward(self, shared: SharedPass) -> Tensor:
        """Leave gradients in encoder and heads (and in the method's own parameters).

        Returns: the weights [T] of the tasks' gradients in the encoder.
        """


class Weighted(MultiTaskMethod):
    """Methods that minimise sum_t w_t L_t in all parameters, with their own w_t for every step."""

    @abstractmethod
    def weights(self, shared: SharedPass) -> Tensor:
        """w, [T], once dL_t/dZ are known."""

    def backward(self, shared: SharedPass) -> Tensor:
        shared.backward_heads()
        weights = self.weights(shared)
        shared.scale_heads(weights)
        shared.backward_encoder(weights)
        return weights


class Uniform(Weighted):
    """The mean of the losses: w_t = 1/T."""

    def weights(self, shared: SharedPass) -> Tensor:
        """1/T."""
        return torch.full_like(shared.losses.detach(), 1 / len(shared.losses))


class FixedWeights(Weighted):
    """(1/T) sum_t c_t L_t with fixed c_t: a point of the paper's grid search.

    Args:
        weights: c_t >= 0, one a task, not all 0; they are scaled to sum to 1. Null for equal ones.
        optimizer: see MultiTaskMethod.

    Raises:
        UserError: a weight that is negative or no number, only zeros, or not one a task.
    """

    def __init__(self, *, optimizer: Optimizer, weights: list[float] | None) -> None:
        super().__init__(optimizer=optimizer)
        if weights is not None and not (all(0 <= w < float("inf") for w in weights) and sum(weights) > 0):
            raise UserError(f"method.weights={weights}: give numbers >= 0, not all of them 0")
        self.given = weights
        self.fixed: Tensor
        self.register_buffer("fixed", torch.tensor(weights or []), persistent=False)

    def start(self, specs: Sequence[TaskSpec], last_shared: list[nn.Parameter]) -> None:
        given = self.given or [1.0] * len(specs)
        if len(given) != len(specs):
            raise UserError(
                f"method.weights={given}: {len(given)} weights for {len(specs)} tasks; give one for each of "
                f"{', '.join(spec.name for spec in specs)}, or null for equal ones"
            )
        whole = torch.tensor(given, dtype=torch.float64)
        self.fixed = (whole / whole.sum() / len(given)).float()

    def weights(self, shared: SharedPass) -> Tensor:
        """c_t / T."""
        return self.fixed


class SingleTask(MultiTaskMethod):
    """A network of its own for every task, each trained on its own loss alone."""

    separate: ClassVar[bool] = True

    def backward(self, shared: SharedPass) -> Tensor:
        """Never asked: networks that share nothing have no `SharedPass`.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError


class Kendall(Weighted):
    """Weighting by uncertainty (Kendall, Gal, Cipolla 2018): sum_t exp(-s_t) f_t L_t + s_t / 2.

    s_t = log sigma_t^2 is trained with the network; f_t is 1 for classes and 1/2 for numbers.

    Args:
        start: of every s_t.
        optimizer: see MultiTaskMethod.
    """

    factors: Tensor

    def __init__(self, *, optimizer: Optimizer, start: float) -> None:
        super().__init__(optimizer=optimizer)
        self.start_at = start

    def start(self, specs: Sequence[TaskSpec], last_shared: list[nn.Parameter]) -> None:
        self.log_variances = nn.Parameter(torch.full((len(specs),), self.start_at))
        factors = [1.0 if "class" in spec.kind else 0.5 for spec in specs]
        self.register_buffer("factors", torch.tensor(factors), persistent=False)

    def weights(self, shared: SharedPass) -> Tensor:
        """exp(-s_t) f_t; and s_t gets its gradient 1/2 - exp(-s_t) f_t L_t."""
        weights = torch.exp(-self.log_variances.detach()) * self.factors
        self.log_variances.grad = 0.5 - weights * shared.losses.detach()
        return weights


class GradNorm(Weighted):
    """Weights that even the gradients out (Chen et al. 2018), w_t > 0 of sum T, started at 1.

    With G_t = w_t |dL_t/dW|, r_t = (L_t / L_t(0)) / mean_s (L_s / L_s(0)), after every step's gradients are
    taken w goes down the gradient of sum_t |G_t - mean_s(G_s) r_t^alpha|, the second term held constant, and
    is scaled to sum T. L_t(0) is the loss of the first minibatch.

    Args:
        alpha: how strongly tasks that learn slower are pulled up.
        weight_lr: of w's steps.
        layer: W: the encoder's last layer with parameters ("last_shared"), or Z itself.
        optimizer: see MultiTaskMethod.

    Raises:
        UserError: alpha or weight_lr negative.
    """

    task_weights: Tensor
    first_losses: Tensor
    # weights stay above it
    LEAST: ClassVar[float] = 1e-3

    def __init__(
        self,
        *,
        optimizer: Optimizer,
        alpha: float,
        weight_lr: float,
        layer: Literal["last_shared", "representation"],
    ) -> None:
        super().__init__(optimizer=optimizer)
        for key, value in {"alpha": alpha, "weight_lr": weight_lr}.items():
            if not value >= 0:
                raise UserError(f"method.{key}={value}; valid: a number >= 0")
        self.alpha, self.weight_lr, self.layer = alpha, weight_lr, layer
        self.last_shared: list[nn.Parameter] = []

    def start(self, specs: Sequence[TaskSpec], last_shared: list[nn.Parameter]) -> None:
        self.last_shared = list(last_shared) if self.layer == "last_shared" else []
        self.register_buffer("task_weights", torch.ones(len(specs)))
        # NaN until the first minibatch has been seen
        self.register_buffer("first_losses", torch.full((len(specs),), torch.nan))

    def weights(self, shared: SharedPass) -> Tensor:
        """The w of this step; the next step's are moved already."""
        losses = shared.losses.detach()
        self.first_losses = torch.where(self.first_losses.isnan(), losses, self.first_losses)
        used = self.task_weights
        self.task_weights = self.moved(used, self._lengths(shared), losses / self.first_losses)
        return used

    def moved(self, weights: Tensor, lengths: Tensor, ratios: Tensor) -> Tensor:
        """w after its step, from |dL_t/dW| and L_t / L_t(0), each [T]."""
        sizes = weights * lengths
        wanted = sizes.mean() * (ratios / ratios.mean()) ** self.alpha
        moved = (weights - self.weight_lr * torch.sign(sizes - wanted) * lengths).clamp_min(self.LEAST)
        return moved * len(moved) / moved.sum()

    def _lengths(self, shared: SharedPass) -> Tensor:
        """|dL_t/dW|, [T]."""
        if not self.last_shared:
            return lengths(shared.gradients.flatten(1))
        each = [
            torch.autograd.grad(shared.representation, self.last_shared, gradient, retain_graph=True)
            for gradient in shared.gradients
        ]
        return lengths(torch.stack([torch.cat([part.flatten() for part in parts]) for parts in each]))


class Found(NamedTuple):
    """What a solver said: of the shared gradients, and of the heads' own."""

    shared: Tensor
    heads: Tensor | None


class Descent(TypedDict):
    """What MGDA and its kin take.

    Attributes:
        optimizer: see MultiTaskMethod.
        solver: "exact", "frank_wolfe" (the paper's Algorithm 2) or "projected_gradient" (the authors').
        normaliser: see `papers.mgda.normalise`.
        normaliser_applies_to: "solver", as in the authors' code: the weights a_t are those of the normalised
            gradients and are applied to the plain ones; or "solver_and_update": the update is of the
            normalised gradients too, w_t = step_scale a_t / n_t, and with "l2" or "loss" does not depend on
            the losses' scales.
        step_scale: see above, > 0; 1 where nothing is normalised in the update.
        head_scaling: "none" as in the paper, or "alpha": head t's gradient is scaled by w_t.
        batched: take the T passes at once, vectorised.
    """

    optimizer: Optimizer
    solver: Solver
    normaliser: Normaliser
    normaliser_applies_to: Literal["solver", "solver_and_update"]
    step_scale: float
    head_scaling: Literal["none", "alpha"]
    batched: bool


class MGDA(MultiTaskMethod):
    """The multiple-gradient descent algorithm, exact: u = sum_t a_t dL_t/dth of smallest norm.

    a is `min_norm_weights` of the Gram matrix of the tasks' gradients, divided by a normaliser. T backward
    passes through the encoder, none of them twice. The paper leaves the heads' own gradients as they are; the
    authors' code scales them by a_t too.

    Args:
        settings: see `Descent`.

    Raises:
        UserError: an unknown choice, or a step_scale that is not above 0.
    """

    def __init__(self, **settings: Unpack[Descent]) -> None:
        super().__init__(optimizer=settings["optimizer"])
        _choice("normaliser", settings["normaliser"], get_args(Normaliser))
        _choice("solver", settings["solver"], tuple(SOLVERS))
        _choice("normaliser_applies_to", settings["normaliser_applies_to"], ("solver", "solver_and_update"))
        _choice("head_scaling", settings["head_scaling"], ("none", "alpha"))
        if not 0 < settings["step_scale"] < float("inf"):
            raise UserError(f"method.step_scale={settings['step_scale']}; valid: a number > 0")
        self.solve, self.normaliser = SOLVERS[settings["solver"]], settings["normaliser"]
        self.in_update, self.step_scale = settings["normaliser_applies_to"], settings["step_scale"]
        self.head_scaling, self.batched = settings["head_scaling"], settings["batched"]

    def backward(self, shared: SharedPass) -> Tensor:
        shared.backward_heads()
        return self._exact(shared)

    def _exact(self, shared: SharedPass) -> Tensor:
        gradients = shared.encoder_gradients(self.batched)
        found = self.weigh(gram(gradients), shared.losses.detach())
        shared.combine(gradients, found.shared)
        self._heads(shared, found)
        return found.shared

    def weigh(self, matrix: Tensor, losses: Tensor) -> Found:
        """Weights of the tasks' gradients, from their Gram matrix [T, T] and the losses [T]."""
        by = divisors(self.normaliser, matrix.diagonal().clamp_min(0.0).sqrt(), losses)
        weights = self.solve(normalised(matrix, by))
        if self.in_update == "solver_and_update" and self.normaliser != "none":
            weights = self.step_scale * weights / by
        return Found(weights, weights if self.head_scaling == "alpha" else None)

    @staticmethod
    def _heads(shared: SharedPass, found: Found) -> None:
        if found.heads is not None:
            shared.scale_heads(found.heads.to(shared.losses.dtype))


class MGDAUB(MGDA):
    """MGDA-UB: the weights of the gradients in the representation Z, so one backward pass through the
    encoder.

    |sum_t a_t dL_t/dth|^2 <= |dZ/dth|^2 |sum_t a_t dL_t/dZ|^2, and the right side is what is minimised. Z is
    that of the whole minibatch, as one vector.

    Args:
        rep_reduction: "flatten" as in the paper and the authors' code, or "sum" over the minibatch first, as
        in
            LibMTL, which is another algorithm.
        settings: see `Descent`.

    Raises:
        UserError: as MGDA.
    """

    def __init__(self, *, rep_reduction: Literal["flatten", "sum"], **settings: Unpack[Descent]) -> None:
        super().__init__(**settings)
        _choice("rep_reduction", rep_reduction, ("flatten", "sum"))
        self.rep_reduction = rep_reduction

    def backward(self, shared: SharedPass) -> Tensor:
        shared.backward_heads()
        found = self._bound(shared)
        self._heads(shared, found)
        return found.shared

    def _bound(self, shared: SharedPass) -> Found:
        gradients = shared.gradients if self.rep_reduction == "flatten" else shared.gradients.sum(1)
        found = self.weigh(gram([gradients]), shared.losses.detach())
        shared.backward_encoder(found.shared)
        return found


class MGDAUBSafe(MGDAUB):
    """MGDA-UB, unless its direction would let a task's loss rise: then exact MGDA.

    Theorem 1(b) of the paper says that this cannot be, but it can. <dL_t/dth, u> of all tasks take two more
    passes; where one is negative (beyond rounding), the T passes of exact MGDA follow. The choice waits for
    the device once a step.

    Attributes:
        fallbacks: steps that were exact, [].
    """

    fallbacks: Tensor

    def start(self, specs: Sequence[TaskSpec], last_shared: list[nn.Parameter]) -> None:
        self.register_buffer("fallbacks", torch.zeros((), dtype=torch.int64))

    def backward(self, shared: SharedPass) -> Tensor:
        shared.keep_graph = True
        shared.backward_heads()
        found = self._bound(shared)
        if bool(shared.descents().rises):
            self.fallbacks += 1
            return self._exact(shared)
        self._heads(shared, found)
        return found.shared


def _choice(key: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise UserError(f"method.{key}={value}; valid: {', '.join(valid)}")
