"""SPIDER-SFO (Algorithm 1): Stochastic Path-Integrated Differential EstimatoR, first order.

    v_k = mean gradient of S1 samples at x_k                       every q steps
    v_k = g_S2(x_k) - g_S2(x_{k-1}) + v_{k-1}                      otherwise
    x_{k+1} = x_k - eta_k v_k

Fang, Li, Lin, Zhang, NeurIPS 2018, arXiv 1807.01695.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from common.base.errors import UserError
from papers.spider.method import Method, UniformIterate, ceil, objective_gap, positive, row_norms


@dataclass(frozen=True)
class Schedule:
    """How often and with how many samples the estimator is renewed.

    Attributes:
        S1: samples of a checkpoint; None: all n.
        S2: samples of a difference.
        q: steps from checkpoint to checkpoint.
    """

    S1: int | None
    S2: int
    q: int

    def calls(self, K: int, n: int | None) -> int:
        """Gradient calls of K steps: ceil(K/q) checkpoints, the others at two points each."""
        checkpoints = -(-K // self.q)
        return checkpoints * self._checkpoint(n) + 2 * self.S2 * (K - checkpoints)

    def printed_calls(self, K: int, n: int | None) -> int:
        """The count as the paper's proof writes it, ceil(K/q) S1 + K S2: a pair counts once."""
        return -(-K // self.q) * self._checkpoint(n) + K * self.S2

    def _checkpoint(self, n: int | None) -> int:
        size = n if self.S1 is None else self.S1
        assert size is not None
        return size


@dataclass(frozen=True)
class Steps:
    """Step sizes: `length` = eps / (L n0) is how far a step may go, `cap` = 1 / (2 L n0) its largest eta."""

    length: float
    cap: float


def schedule_finite_sum(n: int, n0: float) -> Schedule:
    """Theorem 2: S1 = n, S2 = sqrt(n) / n0, q = n0 sqrt(n), rounded up.

    Raises:
        UserError: n0 outside [1, sqrt n].
    """
    _check_n0(n0, math.sqrt(n), "sqrt(n)")
    return Schedule(None, max(ceil(math.sqrt(n) / n0), 1), max(ceil(n0 * math.sqrt(n)), 1))


def schedule_online(sigma: float, eps: float, n0: float) -> Schedule:
    """Theorem 1: S1 = 2 sigma^2 / eps^2, S2 = 2 sigma / (eps n0), q = sigma n0 / eps, rounded up.

    Raises:
        UserError: n0 outside [1, 2 sigma / eps].
    """
    _check_n0(n0, 2 * sigma / eps, "2 sigma/eps")
    S1, S2, q = 2 * sigma**2 / eps**2, 2 * sigma / (eps * n0), sigma * n0 / eps
    return Schedule(ceil(S1), max(ceil(S2), 1), max(ceil(q), 1))


def _check_n0(n0: float, largest: float, formula: str) -> None:
    if not 1 <= n0 <= largest:
        raise UserError(f"method.n0={n0}; valid: 1 to {formula} = {largest:.6g}")


def steps(L: float, eps: float, n0: float) -> Steps:
    """Step sizes of both theorems."""
    return Steps(eps / (L * n0), 1 / (2 * L * n0))


def iterations(L: float, Delta: float, eps: float, n0: float) -> int:
    """K = floor(4 L Delta n0 / eps^2) + 1 (Theorems 1 and 2)."""
    return math.floor(4 * L * Delta * n0 / eps**2) + 1


def cost_finite_sum(n: int, L: float, Delta: float, eps: float, n0: float) -> float:
    """Theorem 2: at most n + 8 L Delta sqrt(n) eps^-2 + 2 sqrt(n) / n0 calls give E||grad f|| <= 5 eps."""
    return n + 8 * L * Delta * math.sqrt(n) / eps**2 + 2 * math.sqrt(n) / n0


def cost_online(sigma: float, L: float, Delta: float, eps: float, n0: float) -> float:
    """Theorem 1: at most 16 L Delta sigma eps^-3 + 2 sigma^2 eps^-2 + 4 sigma / (n0 eps) calls."""
    return 16 * L * Delta * sigma / eps**3 + 2 * sigma**2 / eps**2 + 4 * sigma / (n0 * eps)


def stopping_level(K: int, eps: float, p: float) -> float:
    """Theorem 3: eps~ = 10 eps log((4 floor(4 L Delta n0 / eps^2) + 12) / p), with K = floor(...) + 1."""
    return 10 * eps * math.log((4 * (K - 1) + 12) / p)


class PathIntegrated(Method):
    """The estimator v_k, common to SPIDER, SpiderBoost and SARAH. Subclasses set `schedule` and move."""

    STATE: ClassVar[tuple[str, ...]] = ("x", "k", "v", "previous")

    schedule: Schedule

    def prepare(self) -> None:
        self.v, self.previous = torch.zeros_like(self.x), self.x

    @property
    def period(self) -> int:
        return self.schedule.q

    def estimate(self) -> Tensor:
        """v_k at the present x."""
        if self.k % self.schedule.q == 0:
            self.v = self.oracle.checkpoint_gradient(self.x, self.schedule.S1)
        else:
            batch = self.oracle.draw(self.schedule.S2)
            self.v = self.v + self.oracle.gradient_difference(self.x, self.previous, batch)
        return self.v

    def advance(self, new: Tensor) -> None:
        """x_{k+1} = new; counts the step."""
        self.previous = self.x
        self.move(new)
        self.k += 1


class SpiderSFO(PathIntegrated):
    """SPIDER-SFO with the settings of Theorems 1 (online) and 2 (finite sum).

    Option I:  x_{k+1} = x_k - (eps / (L n0)) v_k / ||v_k||; returns x_k as soon as ||v_k|| <= 2 eps~.
    Option II: eta_k = min(eps / (L n0 ||v_k||), 1 / (2 L n0)); returns x~ uniform in x_0..x_{K-1}.

    Args:
        option: 1 or 2.
        eps: the accuracy aimed at.
        n0: trades batch for step, in [1, sqrt n] or [1, 2 sigma / eps].
        smoothness: L; None: the problem's.
        gap: Delta = f(x_0) - inf f; None: from the problem's lower bound.
        sigma: of online problems; None: the problem's.
        S1, S2, q: None: by the theorem. S1 on a finite sum means fresh samples instead of all n.
        eps_tilde_over_eps: of Option I's stop; None: Theorem 3's, with probability 1 - p.
        p: failure probability of Theorem 3.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        *,
        option: Literal[1, 2],
        eps: float,
        n0: float,
        smoothness: float | None,
        gap: float | None,
        sigma: float | None,
        S1: int | None,
        S2: int | None,
        q: int | None,
        eps_tilde_over_eps: float | None,
        p: float,
    ) -> None:
        positive(eps=eps, n0=n0, smoothness=smoothness, gap=gap, sigma=sigma, S1=S1, S2=S2, q=q)
        positive(eps_tilde_over_eps=eps_tilde_over_eps)
        if not 0 < p < 1:
            raise UserError(f"method.p={p}; valid: a probability between 0 and 1")
        self.option, self.eps, self.n0, self.p = option, eps, n0, p
        self.smoothness, self.gap, self.sigma = smoothness, gap, sigma
        self.S1, self.S2, self.q, self.eps_tilde_over_eps = S1, S2, q, eps_tilde_over_eps
        self._uniform: UniformIterate | None = None

    def prepare(self) -> None:
        super().prepare()
        problem = self.oracle.problem
        self.L = self.constant("smoothness")
        self.steps = steps(self.L, self.eps, self.n0)
        self.schedule = self._schedule(problem.n)
        self._uniform = self._new_uniform() if self.option == 2 else None
        self._x0 = self.x[:1]
        self._gap = self.gap

    def _new_uniform(self) -> UniformIterate:
        return UniformIterate(self.oracle.sampler, self.x, list(range(len(self.x))))

    def _schedule(self, n: int | None) -> Schedule:
        if n is None:
            sigma = self.constant("sigma")
            default = schedule_online(sigma, self.eps, self.n0)
        else:
            default = schedule_finite_sum(n, self.n0)
        return Schedule(self.S1 or default.S1, self.S2 or default.S2, self.q or default.q)

    @property
    def initial_gap(self) -> float:
        """f(x_0) - inf f; looked up once, only where it is needed."""
        if self._gap is None:
            self._gap = objective_gap(None, self.oracle, self._x0)
        return self._gap

    @property
    def iterations(self) -> int:
        """K of the theorems."""
        return iterations(self.L, self.initial_gap, self.eps, self.n0)

    @property
    def returned(self) -> Tensor:
        return self.x if self._uniform is None else self._uniform.kept

    def step(self) -> None:
        v = self.estimate()
        if self._uniform is not None:
            self._uniform.see(self.k, self.x, self.oracle.active)
        norm = row_norms(v)
        if self.own_stop and self.option == 1:
            self.oracle.retire(norm.squeeze(1) <= 2 * self.stopping_level)
        self.advance(self.x - self.step_size(norm) * v)
        if self.own_stop and self.k >= self.iterations + (self.option == 1):
            self.oracle.retire(torch.ones(len(v), dtype=torch.bool))

    def step_size(self, norm: Tensor) -> Tensor:
        """eta_k of each replicate, from ||v_k||: [R, 1]. Where v_k = 0 the step is 0 anyway."""
        if self.option == 1:
            return self.steps.length / norm.clamp_min(torch.finfo(norm.dtype).tiny)
        return (self.steps.length / norm).clamp_max(self.steps.cap)

    @property
    def stopping_level(self) -> float:
        """eps~ of Option I."""
        if self.eps_tilde_over_eps is not None:
            return self.eps_tilde_over_eps * self.eps
        return stopping_level(self.iterations, self.eps, self.p)

    def error_bound(self) -> float | None:
        """Claim 5: E||v_k - grad f(x_k)||^2 <= E||v_0 - grad f(x_0)||^2 + k L^2 (eps / (L n0))^2 / S2.

        k counts the steps since the checkpoint; its own error is 0 with all n, else at most sigma^2 / S1.
        """
        S1, age = self.schedule.S1, (self.k - 1) % self.schedule.q
        first = 0.0 if S1 is None else self.constant("sigma") ** 2 / S1
        return first + age * (self.L * self.steps.length) ** 2 / self.schedule.S2

    def theory(self) -> dict[str, float]:
        problem = self.oracle.problem
        if self.gap is None and problem.smoothness is None:
            return {}
        K = self.iterations
        if problem.n is None:
            sigma = self.constant("sigma")
            bound = cost_online(sigma, self.L, self.initial_gap, self.eps, self.n0)
        else:
            bound = cost_finite_sum(problem.n, self.L, self.initial_gap, self.eps, self.n0)
        calls, printed = self.schedule.calls(K, problem.n), self.schedule.printed_calls(K, problem.n)
        return {
            "theory_steps": K,
            "theory_calls": bound,
            "theory_calls_exact": calls,
            "theory_calls_printed": printed,
        }

    def state_dict(self) -> dict[str, Any]:
        uniform = None if self._uniform is None else self._uniform.state_dict()
        return super().state_dict() | {"uniform": uniform}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self._uniform is not None:
            self._uniform.load_state_dict(state["uniform"])
