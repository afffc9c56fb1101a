"""First-order methods for convex problems, batched over R replicates, that ask for one oracle call at a time.

A method gives `query`, the points [R, d] at which it wants f and a gradient, and takes them by `receive`.
So every oracle call is counted, line searches included, and several methods can share one matrix product
(`Together`). Replicates may have their own D, minibatches and line searches.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from common.base.errors import UserError
from common.training.made_optimizer import made_optimizer, stepping
from papers.accelegrad.accelegrad import StepSize, step_size, weight
from papers.accelegrad.averaging import check_not_negative, check_positive
from papers.accelegrad.baselines import normalised_step, root_of_sum


class Solver(ABC):
    """A method.

    Attributes:
        STATE: what a checkpoint holds: attributes that are tensors, numbers or None.
        x0: the start, [R, d].
        distance: ||x* - x0||, a number or [R]; the scale of D.
        smoothness: beta, None where the problem has none.
    """

    NAME: ClassVar[str]
    STATE: ClassVar[tuple[str, ...]] = ()
    # whether gradients may be those of minibatches: line searches and AGD need exact ones
    STOCHASTIC: ClassVar[bool] = True

    x0: Tensor
    distance: float | Tensor
    smoothness: float | None

    def start(self, x0: Tensor, distance: float | Tensor, smoothness: float | None) -> None:
        """Begin at x0 [R, d].

        Raises:
            UserError: the method needs what the problem does not have.
        """
        self.x0, self.distance, self.smoothness = x0, distance, smoothness
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """The first state."""

    @property
    @abstractmethod
    def query(self) -> Tensor:
        """Where f and its gradient are wanted: [R, d]."""

    @abstractmethod
    def receive(self, values: Tensor, gradients: Tensor) -> None:
        """Take f [R] and its gradients [R, d] at `query`."""

    @property
    @abstractmethod
    def output(self) -> Tensor:
        """The method's result so far: [R, d]."""

    def column(self, value: float | Tensor) -> Tensor:
        """A number, or one for each replicate, as [R, 1]."""
        made = torch.as_tensor(value, dtype=self.x0.dtype, device=self.x0.device)
        return made.reshape(-1, 1).expand(len(self.x0), 1).clone()

    def state_dict(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in self.STATE}
        return {name: v.clone() if isinstance(v, Tensor) else v for name, v in state.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.STATE:
            value = state[name]
            setattr(self, name, value.to(self.x0.device) if isinstance(value, Tensor) else value)


def norms(v: Tensor) -> Tensor:
    """||v_r||: [R, 1]."""
    return torch.linalg.vector_norm(v, dim=1, keepdim=True)


def into_ball(x: Tensor, centre: Tensor, radius: float | None) -> Tensor:
    """The projection onto the ball around the centre; x itself where it is inside, or there is no ball."""
    if radius is None:
        return x
    offset = x - centre
    length = norms(offset)
    return torch.where(length > radius, centre + offset * (radius / length), x)


class DiameterSolver(Solver):
    """A method whose step sizes come from D, the diameter of a set that holds a minimiser.

    Args:
        D: the diameter; None: d_scale times ||x* - x0||, which an experiment knows.
        d_scale: by what factor D is wrong.
        radius: of the ball around the start that iterates are projected onto; None: none.

    Raises:
        UserError: one of them is not positive.
    """

    def __init__(self, *, D: float | None, d_scale: float, radius: float | None) -> None:
        check_positive("method", D=D, d_scale=d_scale, radius=radius)
        self.given, self.d_scale, self.radius = D, d_scale, radius

    @property
    def diameter(self) -> Tensor:
        """D: [R, 1]."""
        return self.column(self.distance if self.given is None else self.given) * (
            self.d_scale if self.given is None else 1.0
        )


class AcceleGradSolver(DiameterSolver):
    """AcceleGrad (Algorithm 2): see `papers.accelegrad.accelegrad.AcceleGrad`, whose x, y and z it has.

    Args:
        D, d_scale, radius: see `DiameterSolver`; z is projected, y is not.
        G, stepsize, doubling: as in the optimizer.
        output: "average": sum alpha_t y_{t+1} / sum alpha_t; "last": the last y.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "accelegrad"
    STATE: ClassVar = ("t", "x", "y", "z", "D", "root", "average", "weights")

    def __init__(
        self,
        *,
        D: float | None,
        d_scale: float,
        G: float,
        stepsize: StepSize,
        radius: float | None,
        doubling: bool,
        output: Literal["average", "last"],
    ) -> None:
        super().__init__(D=D, d_scale=d_scale, radius=radius)
        check_not_negative("method", G=G)
        self.G, self.stepsize, self.doubling, self.which = G, stepsize, doubling, output

    def prepare(self) -> None:
        self.t, self.weights = 0, 0.0
        self.x, self.y, self.z, self.average = (self.x0.clone() for _ in range(4))
        self.D, self.root = self.diameter, self.column(0.0)

    @property
    def query(self) -> Tensor:
        return self.x

    def receive(self, values: Tensor, gradients: Tensor) -> None:
        alpha = weight(self.t)
        self.root = torch.hypot(self.root, alpha * norms(gradients))
        step = step_size(self.D, self.G, self.root, self.stepsize) * gradients
        self.z = into_ball(self.z - alpha * step, self.x0, self.radius)
        self.y = self.x - step
        self.weights += alpha
        self.average = self.average + alpha / self.weights * (self.y - self.average)
        if self.doubling:
            self.D = torch.where(norms(self.y - self.x0) > self.D, 2 * self.D, self.D)
        self.t += 1
        tau = 1 / weight(self.t)
        self.x = tau * self.z + (1 - tau) * self.y

    @property
    def output(self) -> Tensor:
        return self.average if self.which == "average" else self.y


class AdaNGDSolver(DiameterSolver):
    """AdaNGD_k: see `papers.accelegrad.baselines.AdaNGD`; k = 0 is scalar AdaGrad.

    Args:
        D, d_scale, radius: see `DiameterSolver`.
        k: >= 0.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "adangd"
    STATE: ClassVar = ("x", "root", "average", "weights")

    def __init__(self, *, D: float | None, d_scale: float, radius: float | None, k: float) -> None:
        super().__init__(D=D, d_scale=d_scale, radius=radius)
        check_not_negative("method", k=k)
        self.k = k

    def prepare(self) -> None:
        self.x, self.average = self.x0.clone(), self.x0.clone()
        self.D, self.root, self.weights = self.diameter, self.column(0.0), self.column(0.0)

    @property
    def query(self) -> Tensor:
        return self.x

    def receive(self, values: Tensor, gradients: Tensor) -> None:
        norm = norms(gradients)
        zero = torch.zeros_like(norm)
        self.root = root_of_sum(self.root, self.k, norm)
        weight = torch.where(norm == 0, zero, norm.pow(-self.k))
        self.weights = self.weights + weight
        share = torch.where(norm == 0, zero + 1, weight / self.weights)
        self.average = self.average + share * (self.x - self.average)
        step = normalised_step(self.D, self.k, norm, self.root) * gradients
        self.x = into_ball(self.x - step, self.x0, self.radius)

    @property
    def output(self) -> Tensor:
        return self.average


class SGDSolver(DiameterSolver):
    """(Sub)gradient descent: x <- the projection of x - eta_t g, t = 1, 2, ...

    Args:
        D, d_scale, radius: see `DiameterSolver`.
        c: eta_t = c / sqrt t; None: D / (G sqrt t).
        G: the bound on the gradients' norm; None: the largest that was seen.
        output: "average": the uniform average of the x; "last": the last.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "sgd"
    STATE: ClassVar = ("t", "x", "largest", "average")

    def __init__(
        self,
        *,
        D: float | None,
        d_scale: float,
        radius: float | None,
        c: float | None,
        G: float | None,
        output: Literal["average", "last"],
    ) -> None:
        super().__init__(D=D, d_scale=d_scale, radius=radius)
        check_positive("method", c=c, G=G)
        self.c, self.G, self.which = c, G, output

    def prepare(self) -> None:
        self.t = 0
        self.x, self.average, self.largest = self.x0.clone(), self.x0.clone(), self.column(0.0)
        self.D = self.diameter

    @property
    def query(self) -> Tensor:
        return self.x

    def receive(self, values: Tensor, gradients: Tensor) -> None:
        self.t += 1
        self.average = self.average + (self.x - self.average) / self.t
        self.largest = torch.maximum(self.largest, norms(gradients))
        bound = self.largest if self.G is None else self.column(self.G)
        size = torch.where(bound == 0, torch.zeros_like(bound), self.D / bound)
        size = size if self.c is None else self.column(self.c)
        self.x = into_ball(self.x - size / self.t**0.5 * gradients, self.x0, self.radius)

    @property
    def output(self) -> Tensor:
        return self.average if self.which == "average" else self.x


class AGDSolver(Solver):
    """Nesterov's accelerated gradient descent for a known smoothness, in the form of FISTA.

    y_{k+1} = x_k - grad f(x_k) / beta,  x_{k+1} = y_{k+1} + (t_k - 1) / t_{k+1} (y_{k+1} - y_k),
    t_{k+1} = (1 + sqrt(1 + 4 t_k^2)) / 2. Output: y.

    Args:
        beta: the smoothness; None: beta_scale times the problem's own.
        beta_scale: by what factor beta is wrong.

    Raises:
        UserError: a value not positive; the problem is not smooth and beta is not given (`start`).
    """

    NAME: ClassVar = "agd"
    STATE: ClassVar = ("x", "y", "t")
    STOCHASTIC: ClassVar = False

    def __init__(self, *, beta: float | None, beta_scale: float) -> None:
        check_positive("method", beta=beta, beta_scale=beta_scale)
        self.given, self.beta_scale = beta, beta_scale

    def prepare(self) -> None:
        if self.given is None and self.smoothness is None:
            raise UserError("method.beta=null: this problem is not smooth; valid: a number > 0, or model.p=2")
        self.x, self.y, self.t = self.x0.clone(), self.x0.clone(), 1.0

    @property
    def beta(self) -> float:
        """What is taken for the smoothness."""
        return self.given if self.given is not None else self.beta_scale * (self.smoothness or 0.0)

    @property
    def query(self) -> Tensor:
        return self.x

    def receive(self, values: Tensor, gradients: Tensor) -> None:
        new = self.x - gradients / self.beta
        following = (1 + (1 + 4 * self.t**2) ** 0.5) / 2
        self.x = new + (self.t - 1) / following * (new - self.y)
        self.y, self.t = new, following

    @property
    def output(self) -> Tensor:
        return self.y


class UniversalGradient(Solver):
    """What Nesterov's universal primal and dual gradient methods share: steps -grad / M, M searched for.

    Source: Nesterov, "Universal gradient methods for convex optimization problems", 2015. M = 2^i L for the
    smallest i with f(x+) <= f(x) + <g, x+ - x> + M/2 ||x+ - x||^2 + eps/2; then L <- M/2. Each trial is one
    oracle call, whose gradient the next step uses.

    Args:
        eps: the accuracy that is aimed at (as an attribute also [R, 1]).
        L: the first L.
        output: "average": the average of the x+, weighted by 1/M; "best": the one with the least f.

    Raises:
        UserError: eps or L not positive.
    """

    STATE: ClassVar[tuple[str, ...]] = (
        "x",
        "new",
        "value",
        "gradient",
        "M",
        "average",
        "weights",
        "best",
        "least",
    )
    STOCHASTIC: ClassVar = False

    eps: float | Tensor

    def __init__(self, *, eps: float, L: float, output: Literal["average", "best"]) -> None:
        check_positive("method", eps=eps, L=L)
        self.eps, self.L, self.which = eps, L, output

    def prepare(self) -> None:
        self.x, self.best, self.average = self.x0.clone(), self.x0.clone(), self.x0.clone()
        self.M, self.weights, self.least = self.column(self.L), self.column(0.0), self.column(float("inf"))
        # f(x); None before the first call
        self.value: Tensor | None = None
        self.gradient = torch.zeros_like(self.x0)
        self.new = self.x0.clone()

    @abstractmethod
    def trial(self) -> Tensor:
        """x+ for the present M."""

    @property
    def query(self) -> Tensor:
        return self.new

    def receive(self, values: Tensor, gradients: Tensor) -> None:
        values = values[:, None]
        if self.value is None:
            self.value, self.gradient = values, gradients
        else:
            self.judge(values, gradients)
        self.new = self.trial()

    def judge(self, values: Tensor, gradients: Tensor) -> None:
        """Go to x+ in the replicates where its value passes the test, and change M."""
        assert self.value is not None
        new = self.new
        step = new - self.x
        model = self.value + (step * (self.gradient + self.M / 2 * step)).sum(1, keepdim=True)
        taken = values <= model + self.eps / 2
        self.accept(taken)
        weights = self.weights + 1 / self.M
        if self.which == "average":
            share = torch.where(taken, 1 / (self.M * weights), torch.zeros_like(weights))
            self.average = self.average + share * (new - self.average)
        else:
            better = taken & (values < self.least)
            self.best = torch.where(better, new, self.best)
            self.least = torch.where(better, values, self.least)
        self.weights = torch.where(taken, weights, self.weights)
        self.x, self.value = torch.where(taken, new, self.x), torch.where(taken, values, self.value)
        self.gradient = torch.where(taken, gradients, self.gradient)
        self.M = torch.where(taken, self.M / 2, self.M * 2)

    def accept(self, taken: Tensor) -> None:
        """Called before x moves in the replicates `taken` [R, 1]."""

    @property
    def output(self) -> Tensor:
        return self.average if self.which == "average" else self.best


class UniversalPrimal(UniversalGradient):
    """The universal primal gradient method: x+ = x - grad f(x) / M. See `UniversalGradient`."""

    NAME: ClassVar = "universal_pgm"

    def trial(self) -> Tensor:
        return self.x - self.gradient / self.M


class UniversalDual(UniversalGradient):
    """The universal dual gradient method: x+ = x_0 - (sum over the steps of grad f / M), by dual averaging.

    Without constraints, in the Euclidean norm, its points are those of the primal method, up to rounding; the
    outputs differ.
    """

    NAME: ClassVar = "universal_dgm"
    STATE: ClassVar = (*UniversalGradient.STATE, "sum")

    def prepare(self) -> None:
        super().prepare()
        self.sum = torch.zeros_like(self.x0)

    def trial(self) -> Tensor:
        return self.x0 - (self.sum + self.gradient / self.M)

    def accept(self, taken: Tensor) -> None:
        self.sum = torch.where(taken, self.sum + self.gradient / self.M, self.sum)


class UniversalFast(Solver):
    """Nesterov's universal fast gradient method (2015).

    With M = 2^i L for the smallest i that is accepted: a = (1 + sqrt(1 + 4 M A)) / (2 M), tau = a / (A + a),
    x = tau v + (1 - tau) y, x^ = v - a grad f(x), y+ = tau x^ + (1 - tau) y; accepted if
    f(y+) <= f(x) + <g, y+ - x> + M/2 ||y+ - x||^2 + eps tau / 2. Then v = x^, A <- A + a, L <- M/2.
    A trial is two oracle calls, one at x and one at y+. Output: y.

    Args:
        eps: the accuracy that is aimed at.
        L: the first L.
        line_search: false: M = L throughout, without tests; one call a step.

    Raises:
        UserError: eps or L not positive.
    """

    NAME: ClassVar = "universal_fgm"
    STATE: ClassVar = ("v", "y", "x", "a", "tau", "A", "M", "value", "gradient", "forward", "new")
    STOCHASTIC: ClassVar = False

    eps: float | Tensor

    def __init__(self, *, eps: float, L: float, line_search: bool) -> None:
        check_positive("method", eps=eps, L=L)
        self.eps, self.L, self.line_search = eps, L, line_search

    def prepare(self) -> None:
        self.v, self.y = self.x0.clone(), self.x0.clone()
        self.forward, self.new, self.gradient = (torch.zeros_like(self.x0) for _ in range(3))
        self.A, self.M = self.column(0.0), self.column(self.L)
        # f(x) of the trial under way; None before x was asked for
        self.value: Tensor | None = None
        self.couple()

    def couple(self) -> None:
        """a, the positive root of M a^2 = A + a; tau; and x."""
        self.a = (1 + (1 + 4 * self.M * self.A).sqrt()) / (2 * self.M)
        self.tau = self.a / (self.A + self.a)
        self.x = torch.lerp(self.y, self.v, self.tau)

    @property
    def query(self) -> Tensor:
        return self.x if self.value is None else self.new

    def receive(self, values: Tensor, gradients: Tensor) -> None:
        values = values[:, None]
        if self.value is None:
            self.value, self.gradient = values, gradients
            self.forward = self.v - self.a * gradients
            self.new = torch.lerp(self.y, self.forward, self.tau)
            if self.line_search:
                return
            taken = torch.ones_like(self.M, dtype=torch.bool)
        else:
            step = self.new - self.x
            model = self.value + (step * (self.gradient + self.M / 2 * step)).sum(1, keepdim=True)
            taken = values <= model + self.eps / 2 * self.tau
            self.M = torch.where(taken, self.M / 2, self.M * 2)
        self.A = torch.where(taken, self.A + self.a, self.A)
        self.v, self.y = torch.where(taken, self.forward, self.v), torch.where(taken, self.new, self.y)
        self.value = None
        self.couple()

    @property
    def output(self) -> Tensor:
        return self.y


class TorchSolver(Solver):
    """Any torch optimizer, one for each replicate; output: its average where it has `averaged`.

    Args:
        build: makes the optimizer from a list of parameters.
    """

    NAME: ClassVar = "optimizer"

    def __init__(self, build: Callable[[list[nn.Parameter]], Optimizer]) -> None:
        self.build = build

    def prepare(self) -> None:
        self.points = [nn.Parameter(row.clone()) for row in self.x0]
        self.optimizers = [made_optimizer(self.build, [point]) for point in self.points]

    @property
    def query(self) -> Tensor:
        return torch.stack([point.detach() for point in self.points])

    def receive(self, values: Tensor, gradients: Tensor) -> None:
        for point, optimizer, gradient in zip(self.points, self.optimizers, gradients, strict=True):
            point.grad = gradient.clone()
            with stepping(optimizer, self.build):
                optimizer.step()

    @property
    def output(self) -> Tensor:
        found = []
        for point, optimizer in zip(self.points, self.optimizers, strict=True):
            if hasattr(optimizer, "averaged"):
                with optimizer.averaged():
                    found.append(point.detach().clone())
            else:
                found.append(point.detach().clone())
        return torch.stack(found)

    def state_dict(self) -> dict[str, Any]:
        return {"points": self.query, "optimizers": [o.state_dict() for o in self.optimizers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for point, value in zip(self.points, state["points"], strict=True):
            point.data.copy_(value)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


class Together(Solver):
    """Several methods in lockstep: their queries are one batch, so one matrix product serves all.

    Args:
        solvers: methods that have been started.
    """

    NAME: ClassVar = "together"

    def __init__(self, solvers: list[Solver]) -> None:
        self.solvers = solvers
        self.sizes = [len(solver.x0) for solver in solvers]

    def prepare(self) -> None:
        """Nothing: each has its own state."""

    @property
    def query(self) -> Tensor:
        return torch.cat([solver.query for solver in self.solvers])

    def receive(self, values: Tensor, gradients: Tensor) -> None:
        parts = zip(self.solvers, values.split(self.sizes), gradients.split(self.sizes), strict=True)
        for solver, value, gradient in parts:
            solver.receive(value, gradient)

    @property
    def output(self) -> Tensor:
        return torch.cat([solver.output for solver in self.solvers])
