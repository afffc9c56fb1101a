"""Algorithm 1 of Mokhtari, Ozdaglar, Jadbabaie 2018: escaping saddle points over a convex set, and its arms.

    v = argmin_{v in C} grad f(x)'v
    stage 1, if grad f(x)'(v - x) < -eps:   x <- (1 - eta) x + eta v,       eta = eps / (D^2 L)
    stage 2, else:  u = rho-approximate minimiser of q(u) = (u - x)'Hess f(x)(u - x) over C and the tangent
                    if q(u) < -rho gamma:   x <- (1 - sigma) x + sigma u,   sigma = rho gamma / (M D^3)
                    else:                   return x, an (eps, gamma)-second-order point

f falls by eps^2 / (2 L D^2) or more in stage 1 and by rho^3 gamma^3 / (3 M^2 D^6) or more in stage 2, so
there are at most (f(x_0) - f*) max{2 L D^2 / eps^2, 3 M^2 D^6 / (rho^3 gamma^3)} iterations. (Sizes above 1
are cut to 1.)

`tangent="eq"` is the paper's grad'(u - x) = 0; "leq", grad'(u - x) <= 0, has the same proof and a stronger
certificate. The stochastic arm is Algorithm 2. Deviation: a stop asks for a lower bound of q of at least
-gamma, by the oracle's own certificate rather than an assumed rho; where it is missing, the step goes on with
the threshold that q(u) allows.
"""

import math
from typing import ClassVar, Literal

import numpy as np

from common.base.errors import UserError
from papers.saddle.choice import make_oracle
from papers.saddle.method import (
    Method,
    Step,
    first_guarantee,
    first_step_size,
    positive,
    second_guarantee,
    second_step_size,
)
from papers.saddle.oracles import Answer, Kind, OracleName, Tangent
from papers.saddle.problems import Array

# a stage-2 step with less than this part of gamma is not made
LEAST_RHO = 1e-3
# values of f that differ by less than this part of them are the same
SAME_VALUE = 4e-15


class Framework(Method):
    """Algorithm 1.

    Args:
        eps, gamma: of the (eps, gamma)-second-order point.
        rho: the oracle's quality that the test assumes, 0 < rho <= 1.
        tangent: "eq", "leq" or "none".
        step: "theory" for eta and sigma above; "line_search" for the minimiser over [0, 1] of the model
            with the true lengths: t g'p + t^2 L |p|^2 / 2 in stage 1, t g'p + t^2 q / 2 + t^3 M |p|^3 / 6 in
            2.
        first_stage: "frank_wolfe", or "projected_gradient": x <- Proj(x - grad / L), which falls at least as
            much, as it minimises a model that bounds Frank-Wolfe's.
        oracle: see `choice.make_oracle`.
        sign: of two optimal u: the better "f" after the step, or at random by the "seed".

    Raises:
        UserError: a value out of range.
    """

    promises: ClassVar = True

    def __init__(
        self,
        *,
        eps: float,
        gamma: float,
        rho: float,
        tangent: Kind,
        step: Literal["theory", "line_search"],
        first_stage: Literal["frank_wolfe", "projected_gradient"],
        oracle: OracleName,
        sign: Literal["f", "seed"],
    ) -> None:
        positive(eps=eps, gamma=gamma, rho=rho)
        if rho > 1:
            raise UserError(f"method.rho={rho}; valid: above 0 and at most 1")
        self.eps, self.gamma, self.rho, self.tangent = eps, gamma, rho, tangent
        self.step_rule, self.first_stage, self.oracle_name, self.sign = step, first_stage, oracle, sign

    def prepare(self) -> None:
        self.oracle = make_oracle(self.oracle_name, self.programme.region, self.seed)

    def iteration_bound(self, fall: float) -> float:
        """fall * max{2 L D^2 / eps^2, 3 M^2 D^6 / (rho^3 gamma^3)}."""
        p = self.programme
        least = min(first_guarantee(self.eps, p.L, p.D), second_guarantee(self.rho * self.gamma, p.M, p.D))
        return fall / least

    def step(self) -> Step:
        g = self.programme.problem.gradient(self.x)
        gap, v = self.programme.gap(self.x, g)
        made = self._first(g, gap, v) if gap > self.eps else self._second(g, gap)
        self.k += made.kind != "stop"
        return made

    def _first(self, g: Array, gap: float, v: Array) -> Step:
        p = self.programme
        if self.first_stage == "projected_gradient":
            new = p.region.project(self.x - g / p.L)
        elif self.step_rule == "line_search":
            new = self.x + line_search_first(gap, p.L, v - self.x) * (v - self.x)
        else:
            new = self.x + first_step_size(self.eps, p.L, p.D) * (v - self.x)
        return Step("first", gap, self.move(new), first_guarantee(self.eps, p.L, p.D))

    def _second(self, g: Array, gap: float) -> Step:
        p = self.programme
        answer = self.oracle(p.problem.hessian(self.x), self.x, Tangent(self.tangent, g))
        threshold = self._threshold(answer, self.rho * self.gamma, self.gamma)
        if threshold is None:
            self.stopped = True
            return Step("stop", gap, answer=answer)
        fall = self.move(self._chosen(answer, g, threshold))
        return Step("second", gap, fall, second_guarantee(threshold, p.M, p.D), answer)

    def _threshold(self, answer: Answer, threshold: float, gamma: float) -> float | None:
        """q(u) is below minus this, so that the step is worth it; None: stop."""
        if answer.value < -threshold:
            return threshold
        if answer.lower >= -gamma or -answer.value < LEAST_RHO * gamma:
            return None
        return -answer.value

    def _chosen(self, answer: Answer, g: Array, threshold: float) -> Array:
        """Where the step ends, of the u that tie."""
        p = self.programme
        ends = []
        for u in answer.points:
            move = u - self.x
            sigma = second_step_size(threshold, p.M, p.D)
            if self.step_rule == "line_search":
                sigma = line_search_second(float(g @ move), answer.value, p.M, move)
            ends.append(self.x + sigma * move)
        values = np.array([p.problem.value(end) for end in ends])
        tied = values <= values.min() + SAME_VALUE * np.abs(values).max()
        good = np.arange(len(ends)) if self.sign == "seed" else np.nonzero(tied)[0]
        return ends[int(good[self.random().integers(len(good))])]


def line_search_first(gap: float, L: float, p: Array) -> float:
    """argmin over [0, 1] of -t gap + t^2 L |p|^2 / 2."""
    curved = L * float(p @ p)
    return min(1.0, gap / curved) if curved > 0 else 1.0


def line_search_second(slope: float, q: float, M: float, p: Array) -> float:
    """argmin over [0, 1] of t slope + t^2 q / 2 + t^3 M |p|^3 / 6, for slope <= 0 and q < 0."""
    c = M * float(np.linalg.norm(p)) ** 3
    if c <= 0:
        return 1.0
    return min(1.0, (-q + math.sqrt(max(q**2 - 2 * min(slope, 0.0) * c, 0.0))) / c)


class FiniteSum:
    """n components f_i(x) = f(x) + a_i'x + x'B_i x / 2 whose a_i and B_i (symmetric) sum to 0.

    Args:
        dim, samples: d and n >= 2.
        gradient_noise, hessian_noise: root mean squares of |a_i| and of the spectral norms of B_i.
        seed: of all of them.
    """

    def __init__(
        self, dim: int, samples: int, gradient_noise: float, hessian_noise: float, seed: int
    ) -> None:
        random = np.random.default_rng(seed)
        a, B = random.standard_normal((samples, dim)), random.standard_normal((samples, dim, dim))
        a, B = a - a.mean(0), B + B.transpose(0, 2, 1)
        B = B - B.mean(0)
        self.a = a * (gradient_noise / np.sqrt(np.square(a).sum(1).mean()))
        norms = np.abs(np.linalg.eigvalsh(B)).max(1)
        self.B = B * (hessian_noise / np.sqrt(np.square(norms).mean()))
        self.n = samples

    def gradient(self, x: Array, batch: int, random: np.random.Generator) -> Array:
        """The mean of `batch` draws of grad f_i(x) - grad f(x); 0, all components, where batch >= n."""
        if batch >= self.n:
            return np.zeros_like(x)
        rows = random.integers(self.n, size=batch)
        return self.a[rows].mean(0) + self.B[rows].mean(0) @ x

    def hessian(self, batch: int, random: np.random.Generator) -> Array:
        """The same of Hess f_i - Hess f."""
        if batch >= self.n:
            return np.zeros(self.B.shape[1:])
        mean: Array = self.B[random.integers(self.n, size=batch)].mean(0)
        return mean


class StochasticFramework(Framework):
    """Algorithm 2: means of b_g gradients and of b_H Hessians of a finite sum, and looser tests.

    Stage 1 goes on while d'(v - x) < -eps / 2; stage 2 minimises (u - x)'H_t(u - x) over C and d'(u - x) <=
    r, and goes on while that is below -rho gamma / 2, with sigma = rho gamma / (2 M D^3). Nulls: r is half of
    what a step of that size gains, r = (rho gamma / 2)^2 / (6 M D^3) for sigma < 1; b_g = nu^2 D^2 max{1/r^2,
    4/eps^2} and b_H = 16 xi^2 D^4 / (rho gamma)^2 with nu^2 = gradient_noise^2 + (hessian_noise * radius)^2,
    xi = hessian_noise. A batch of n or more is the whole sum.

    Args:
        eps, gamma, rho, oracle: as in `Framework`.
        samples: n.
        gradient_noise, hessian_noise: see `FiniteSum`; null: eps / D and gamma / D^2.
        gradient_batch, hessian_batch, slack: b_g, b_H, r; null: as above.
        design_seed: of the components.
    """

    promises: ClassVar = False

    def __init__(
        self,
        *,
        eps: float,
        gamma: float,
        rho: float,
        oracle: OracleName,
        samples: int,
        gradient_noise: float | None,
        hessian_noise: float | None,
        gradient_batch: int | None,
        hessian_batch: int | None,
        slack: float | None,
        design_seed: int,
    ) -> None:
        super().__init__(
            eps=eps, gamma=gamma, rho=rho, tangent="leq", step="theory", first_stage="frank_wolfe",
            oracle=oracle, sign="seed",
        )  # fmt: skip
        positive(gradient_batch=gradient_batch or 1, hessian_batch=hessian_batch or 1)
        if samples < 2 or min(gradient_noise or 0.0, hessian_noise or 0.0) < 0:
            raise UserError(
                f"method.samples={samples}, method.gradient_noise={gradient_noise}, "
                f"method.hessian_noise={hessian_noise}; valid: at least 2, and noise >= 0"
            )
        self.samples, self.gradient_noise, self.hessian_noise = samples, gradient_noise, hessian_noise
        self.gradient_batch, self.hessian_batch, self.slack = gradient_batch, hessian_batch, slack
        self.design_seed = design_seed

    def prepare(self) -> None:
        super().prepare()
        p = self.programme
        nu = self.eps / p.D if self.gradient_noise is None else self.gradient_noise
        xi = self.gamma / p.D**2 if self.hessian_noise is None else self.hessian_noise
        self.sum = FiniteSum(len(self.x), self.samples, nu, xi, self.design_seed)
        half = self.rho * self.gamma / 2
        gain = second_guarantee(half, p.M, p.D) / (2 * second_step_size(half, p.M, p.D))
        self.r = gain if self.slack is None else self.slack
        nu_squared = nu**2 + (xi * p.region.radius) ** 2
        worst = max(1 / self.r, 2 / self.eps)
        self.b_g = self.gradient_batch or math.ceil(max(1.0, nu_squared * p.D**2 * worst**2))
        self.b_H = self.hessian_batch or math.ceil(max(1.0, 4 * xi**2 * p.D**4 / half**2))

    def step(self) -> Step:
        random, p = self.random(), self.programme
        d = p.problem.gradient(self.x) + self.sum.gradient(self.x, self.b_g, random)
        gap, v = p.gap(self.x, d)
        if gap > self.eps / 2:
            fall = self.move(self.x + first_step_size(self.eps, p.L, p.D) * (v - self.x))
            self.k += 1
            return Step("first", gap, fall)
        H = p.problem.hessian(self.x) + self.sum.hessian(self.b_H, random)
        answer = self.oracle(H, self.x, Tangent("leq", d, self.r))
        half = self.rho * self.gamma / 2
        threshold = self._threshold(answer, half, self.gamma / 2)
        if threshold is None:
            self.stopped = True
            return Step("stop", gap, answer=answer)
        fall = self.move(self._chosen(answer, d, threshold))
        self.k += 1
        return Step("second", gap, fall, answer=answer)
