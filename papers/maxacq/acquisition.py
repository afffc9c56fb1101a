"""Acquisition functions as reparameterised Monte Carlo integrals (Table 1), in closed form for q = 1.

With y = mean + root z, z ~ N(0, I), the value of a set X of q points is the mean over samples z of a utility

    EI    max_i relu(y_i - alpha)                            alpha: the largest observation
    PI    max_i sigmoid((y_i - alpha) / tau)                 tau = 0: 1[max_i y_i > alpha]
    SR    max_i y_i
    UCB   max_i (mean_i + sqrt(beta pi / 2) |(root z)_i|)
    ES    -H[ mean over z_b of softmax((mean_b|a + root_b|a z_b) / tau) ]
    KG    max_b (mean_b + Sigma_ba A^-T z_a) - max_b mean_b    A A' = Sigma_aa + noise

where a = X and b is a discretisation of the space. The first four are myopic maximal: the utility of a set
is the largest of its points' utilities. All are to be maximised, and differentiable in X for tau > 0.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from common.base.errors import UserError
from common.numerics.improvement import expected_improvement
from papers.maxacq.posterior import Belief, Posterior, root

Number = TypeVar("Number", int, float)
# standard normals [R, *shape] of each replicate's own stream
Normals = Callable[[tuple[int, ...]], Tensor]
# samples of one estimate; an acquisition knows what they mean
Draws = tuple[Tensor, ...]
# nodes of the quadrature by which ES and KG are known for single points
NODES = 32
# added to the variances of a discretisation, in units of the prior's
JITTER = 1e-6


@dataclass(frozen=True)
class Setting:
    """What an acquisition is computed from.

    Attributes:
        observed: the belief given the observations alone; posterior: with the pending points.
        incumbent: alpha, [R].
        pending: points that are already chosen for this round, [R, p, d].
        discretisation: b, [R, B, d], of acquisitions that need one.
    """

    observed: Posterior
    posterior: Posterior
    incumbent: Tensor
    pending: Tensor
    discretisation: Tensor | None = None

    def with_pending(self, x: Tensor) -> "Setting":
        """With one more pending point x [R, d]."""
        pending = torch.cat([self.pending, x[:, None]], 1)
        return replace(self, posterior=self.posterior.with_pending(x), pending=pending)

    def level(self) -> Tensor:
        """alpha once the pending outcomes are at their means, [R, 1]."""
        means = self.posterior.pending_mean
        return torch.cat([self.incumbent[:, None], means], 1).max(1, keepdim=True).values


def setting(posterior: Posterior, incumbent: Tensor, discretisation: Tensor | None = None) -> Setting:
    """Without pending points."""
    none = posterior.points[:, :0]
    return Setting(posterior, posterior, incumbent, none, discretisation)


class Acquisition(ABC):
    """An acquisition function of sets of points.

    Attributes:
        MYOPIC: whether it is myopic maximal.
        NONNEGATIVE: whether its values are, so that they can weigh starting points as they are.
        UNITS: whether its values have the units of f; otherwise they are probabilities or nats.
        discretisation: B, the points of the discretisation; 0: it needs none.
    """

    NAME: ClassVar[str]
    MYOPIC: ClassVar[bool] = True
    NONNEGATIVE: ClassVar[bool] = False
    UNITS: ClassVar[bool] = True
    discretisation: int = 0

    @property
    def differentiable(self) -> bool:
        """Whether gradients say anything."""
        return True

    def draw(self, normals: Normals, points: int, samples: int) -> Draws:
        """Samples for sets of `points` points, pending ones included."""
        return (normals((points, samples)),)

    @abstractmethod
    def value(self, given: Setting, X: Tensor, draws: Draws) -> Tensor:
        """The estimate for the pending points and X [R, S, q, d] together, [R, S]."""

    @abstractmethod
    def marginal(self, given: Setting, x: Tensor) -> Tensor:
        """The exact value of single points x [R, P, d], the pending outcomes at their means: [R, P]."""


class MyopicMaximal(Acquisition):
    """Acquisitions that are means over z of max_i l(y_i)."""

    def value(self, given: Setting, X: Tensor, draws: Draws) -> Tensor:
        (z,) = draws
        belief = given.posterior.belief(X)
        best = self.best(belief, z)
        if given.posterior.pending:
            best = torch.maximum(best, self._pending(given.posterior, z)[:, None])
        return self.utility(best, given.incumbent[:, None, None]).mean(-1)

    def _pending(self, posterior: Posterior, z: Tensor) -> Tensor:
        """The best score of the pending points, [R, m]."""
        together = Belief(posterior.pending_mean[:, None], posterior.pending_root[:, None])
        return self.best(together, z[:, : posterior.pending])[:, 0]

    def best(self, belief: Belief, z: Tensor) -> Tensor:
        """The best score of each set, of which the utility is made: [R, S, m]."""
        return belief.largest(z)

    @abstractmethod
    def utility(self, best: Tensor, alpha: Tensor) -> Tensor:
        """Of the best score of a set."""

    def marginal(self, given: Setting, x: Tensor) -> Tensor:
        mean, variance = given.posterior.marginal(x)
        return self.closed_form(mean, variance.sqrt(), given.level())

    @abstractmethod
    def closed_form(self, mean: Tensor, deviation: Tensor, alpha: Tensor) -> Tensor:
        """The exact value of single points with y ~ N(mean, deviation^2)."""


class ExpectedImprovement(MyopicMaximal):
    """q-EI."""

    NAME: ClassVar = "ei"
    NONNEGATIVE: ClassVar = True

    def utility(self, best: Tensor, alpha: Tensor) -> Tensor:
        return torch.relu(best - alpha)

    def closed_form(self, mean: Tensor, deviation: Tensor, alpha: Tensor) -> Tensor:
        return expected_improvement(mean, deviation, alpha)


class ProbabilityOfImprovement(MyopicMaximal):
    """q-PI, softened by the temperature tau.

    Args:
        tau: >= 0, in units of f; 0: exact, without a gradient.

    Raises:
        UserError: tau < 0.
    """

    NAME: ClassVar = "pi"
    UNITS: ClassVar = False
    NONNEGATIVE: ClassVar = True

    def __init__(self, *, tau: float) -> None:
        self.tau = _checked("tau", tau, tau >= 0, "at least 0")

    @property
    def differentiable(self) -> bool:
        return self.tau > 0

    def utility(self, best: Tensor, alpha: Tensor) -> Tensor:
        if self.tau == 0:
            return (best > alpha).to(best.dtype)
        return torch.sigmoid((best - alpha) / self.tau)

    def closed_form(self, mean: Tensor, deviation: Tensor, alpha: Tensor) -> Tensor:
        """Phi(u), of tau = 0."""
        return torch.special.ndtr((mean - alpha) / deviation)


class SimpleRegret(MyopicMaximal):
    """q-SR."""

    NAME: ClassVar = "sr"

    def utility(self, best: Tensor, alpha: Tensor) -> Tensor:
        return best

    def closed_form(self, mean: Tensor, deviation: Tensor, alpha: Tensor) -> Tensor:
        return mean


class UpperConfidenceBound(MyopicMaximal):
    """q-UCB: by E|N(0, 1)| = sqrt(2 / pi) it is mean + sqrt(beta) s for q = 1.

    Args:
        beta: >= 0.

    Raises:
        UserError: beta < 0.
    """

    NAME: ClassVar = "ucb"

    def __init__(self, *, beta: float) -> None:
        self.beta = _checked("beta", beta, beta >= 0, "at least 0")

    def best(self, belief: Belief, z: Tensor) -> Tensor:
        spread = math.sqrt(self.beta * math.pi / 2) * belief.deviations(z).abs()
        return (belief.mean[..., None] + spread).amax(2)

    def utility(self, best: Tensor, alpha: Tensor) -> Tensor:
        return best

    def closed_form(self, mean: Tensor, deviation: Tensor, alpha: Tensor) -> Tensor:
        return mean + math.sqrt(self.beta) * deviation


@dataclass(frozen=True)
class Lookahead:
    """The belief at b once outcomes at a are known: mean + z_a' gain, with a covariance of its own.

    Attributes:
        mean: [R, 1, B]; gain: A^-1 Sigma_ab, [R, S, a, B].
    """

    mean: Tensor
    gain: Tensor

    def means(self, z: Tensor) -> Tensor:
        """mean_b given a, z [R, a, m] -> [R, S, m, B]."""
        return self.mean[:, :, None] + z.mT[:, None] @ self.gain


def lookahead(given: Setting, X: Tensor) -> Lookahead:
    """Of the pending points and X [R, S, q, d] together, with noisy outcomes."""
    assert given.discretisation is not None
    observed, b = given.observed, given.discretisation
    a = torch.cat([given.pending[:, None].expand(-1, X.shape[1], -1, -1), X], 2)
    S = observed.moments(a)[1]
    noise = observed.prior.noise_variance[:, None, None, None]
    A = root(S + noise * torch.eye(a.shape[2], dtype=S.dtype, device=S.device), observed.prior.variance)
    gain = torch.linalg.solve_triangular(A, observed.cross(a, b), upper=False)
    return Lookahead(observed.moments(b[:, None])[0], gain)


class Discretised(Acquisition):
    """Acquisitions that look at the posterior over a discretisation of the space."""

    MYOPIC: ClassVar = False

    def __init__(self, *, discretisation: int) -> None:
        self.discretisation = _checked("discretisation", discretisation, discretisation >= 2, "at least 2")

    def marginal(self, given: Setting, x: Tensor) -> Tensor:
        """By quadrature over the outcome at x; pending points are left out."""
        alone = replace(given, posterior=given.observed, pending=given.pending[:, :0])
        return self.value(alone, x[:, :, None], self.quadrature(given, NODES))

    @abstractmethod
    def quadrature(self, given: Setting, nodes: int) -> Draws:
        """Fixed draws for single points."""


class KnowledgeGradient(Discretised):
    """q-KG over a discretisation: the rise of the largest posterior mean. Samples come in pairs z, -z.

    Args:
        discretisation: B >= 2.

    Raises:
        UserError: B < 2.
    """

    NAME: ClassVar = "kg"
    NONNEGATIVE: ClassVar = True

    def draw(self, normals: Normals, points: int, samples: int) -> Draws:
        half = normals((points, (samples + 1) // 2))
        return (torch.cat([half, -half], -1),)

    def value(self, given: Setting, X: Tensor, draws: Draws) -> Tensor:
        ahead = lookahead(given, X)
        return ahead.means(draws[0]).amax(-1).mean(-1) - ahead.mean.amax(-1)

    def quadrature(self, given: Setting, nodes: int) -> Draws:
        return (_quantiles(nodes, given.incumbent),)


class EntropySearch(Discretised):
    """q-ES over a discretisation: minus the entropy that the maximiser's place will have, in nats.

    Args:
        discretisation: B >= 2.
        tau: > 0, the temperature of the softmax that stands for the argmax, in units of f.
        inner: samples of f at b for each outcome at a.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "es"
    UNITS: ClassVar = False

    def __init__(self, *, discretisation: int, tau: float, inner: int) -> None:
        super().__init__(discretisation=discretisation)
        self.tau = _checked("tau", tau, tau > 0, "greater than 0")
        self.inner = _checked("inner", inner, inner >= 1, "at least 1")

    def draw(self, normals: Normals, points: int, samples: int) -> Draws:
        """z_a of as many outcomes as make `samples` in all, and z_b."""
        outcomes = max(1, samples // self.inner)
        return normals((points, outcomes)), normals((self.discretisation, self.inner))

    def value(self, given: Setting, X: Tensor, draws: Draws) -> Tensor:
        z_a, z_b = draws
        assert given.discretisation is not None
        ahead = lookahead(given, X)
        now = given.observed.moments(given.discretisation[:, None])[1]
        jitter = JITTER * given.observed.prior.variance[:, None, None, None]
        eye = torch.eye(now.shape[-1], dtype=now.dtype, device=now.device)
        later = now - ahead.gain.mT @ ahead.gain + jitter * eye
        spread = (root(later, given.observed.prior.variance) @ z_b[:, None]).mT
        f = ahead.means(z_a)[:, :, :, None] + spread[:, :, None]
        p = torch.softmax(f / self.tau, -1).mean(3)
        return torch.special.entr(p).sum(-1).mean(-1).neg()

    def quadrature(self, given: Setting, nodes: int) -> Draws:
        z_b = torch.randn(
            self.discretisation, self.inner, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        outcomes = max(1, nodes // 8)
        return _quantiles(outcomes, given.incumbent), z_b.to(given.incumbent).expand(
            len(given.incumbent), -1, -1
        )


def _quantiles(nodes: int, like: Tensor) -> Tensor:
    """The means of N(0, 1) in `nodes` intervals of equal probability, [R, 1, nodes]."""
    inner = torch.special.ndtri(torch.arange(1, nodes, dtype=torch.float64, device=like.device) / nodes)
    density = torch.exp(-0.5 * inner.square()) / math.sqrt(2 * math.pi)
    edges = torch.cat([density.new_zeros(1), density, density.new_zeros(1)])
    return (nodes * (edges[:-1] - edges[1:])).expand(len(like), 1, -1)


def incremental_improvement(belief: Belief, z: Tensor, alpha: Tensor) -> Tensor:
    """Incremental EI of one more point, averaged over fantasy states: [R, S].

    State k has outcomes pending_mean + pending_root z_k at the pending points; given them y is normal, so its
    EI above max(alpha, those outcomes) has a closed form.

    Args:
        belief: of single points, S of them, given p pending ones.
        z: of the states, [R, p, m].
        alpha: the largest outcome of each state so far, [R, m].
    """
    p = z.shape[1]
    mean = belief.mean + belief.root[:, :, 0, :p] @ z
    deviation = belief.root[:, :, 0, p:]
    return ExpectedImprovement().closed_form(mean, deviation, alpha[:, None]).mean(-1)


def _checked(name: str, value: Number, valid: bool, words: str) -> Number:
    if not valid:
        raise UserError(f"method.acquisition.{name}={value}; valid: {words}")
    return value
