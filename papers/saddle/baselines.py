"""What the framework is compared with: first-order methods, and two other ways out of a saddle.

All stop at G(x) <= eps, which is what first-order methods can see.
"""

from typing import ClassVar, Literal

import numpy as np

from papers.saddle.choice import make_oracle
from papers.saddle.framework import line_search_first, line_search_second
from papers.saddle.method import Method, Step, first_guarantee, positive
from papers.saddle.oracles import OracleName, Tangent
from papers.saddle.problems import Array


class FrankWolfe(Method):
    """x <- x + t (v - x) with v from the linear oracle; the framework with gamma = infinity.

    Args:
        eps: stops at G(x) <= eps.
        step: "short": t = min(1, G / (L |v - x|^2)); "decay": t = 2 / (k + 2).
    """

    def __init__(self, *, eps: float, step: Literal["short", "decay"]) -> None:
        positive(eps=eps)
        self.eps, self.step_rule = eps, step
        # the decaying steps may rise
        self.promises = step == "short"  # type: ignore[misc]

    def step(self) -> Step:
        p = self.programme
        gap, v = p.gap(self.x, p.problem.gradient(self.x))
        if gap <= self.eps:
            self.stopped = True
            return Step("stop", gap)
        t = 2 / (self.k + 2) if self.step_rule == "decay" else line_search_first(gap, p.L, v - self.x)
        self.k += 1
        promised = first_guarantee(self.eps, p.L, p.D) if self.step_rule == "short" else None
        return Step("first", gap, self.move(self.x + t * (v - self.x)), promised)


class ProjectedGradient(Method):
    """x <- Proj_C(x - grad f(x) / L).

    Args:
        eps: stops at G(x) <= eps.
    """

    promises: ClassVar = True

    def __init__(self, *, eps: float) -> None:
        positive(eps=eps)
        self.eps = eps

    def step(self) -> Step:
        p = self.programme
        g = p.problem.gradient(self.x)
        gap, _ = p.gap(self.x, g)
        if gap <= self.eps:
            self.stopped = True
            return Step("stop", gap)
        self.k += 1
        fall = self.move(p.region.project(self.x - g / p.L))
        return Step("first", gap, fall, first_guarantee(self.eps, p.L, p.D))


class PerturbedProjectedGradient(Method):
    """Projected gradient that jumps: at G(x) <= eps to a uniform point of a small ball, projected.

    After `patience` steps it must have fallen by `decrease`, else the point before the jump is returned (Jin
    et al. 2017, who treat the unconstrained case).

    Args:
        eps: jumps at G(x) <= eps.
        radius: of the ball.
        patience: steps from one jump to the next.
        decrease: of f, that makes it go on.
    """

    STATE: ClassVar = (*Method.STATE, "anchor", "since")

    def __init__(self, *, eps: float, radius: float, patience: int, decrease: float) -> None:
        positive(eps=eps, radius=radius, patience=patience, decrease=decrease)
        self.eps, self.radius, self.patience, self.decrease = eps, radius, patience, decrease

    def prepare(self) -> None:
        self.anchor: Array | None = None
        self.since = 0

    def step(self) -> Step:
        p = self.programme
        g = p.problem.gradient(self.x)
        gap, _ = p.gap(self.x, g)
        if self.anchor is not None and self.since >= self.patience:
            anchor, self.anchor = self.anchor, None
            if p.problem.value(anchor) - p.problem.value(self.x) < self.decrease:
                self.x, self.stopped = anchor, True
                return Step("stop", gap)
        self.k += 1
        if gap <= self.eps and self.anchor is None:
            self.anchor, self.since = self.x, 0
            return Step("random", gap, self.move(p.region.project(self.x + self._jump())))
        self.since += 1
        return Step("first", gap, self.move(p.region.project(self.x - g / p.L)))

    def _jump(self) -> Array:
        """Uniform in the ball."""
        random, d = self.random(), len(self.x)
        normal = random.standard_normal(d)
        return normal * (self.radius * random.random() ** (1 / d) / float(np.linalg.norm(normal)))


class SecondOrderFrankWolfe(Method):
    """Nouiehed, Lee, Razaviyayn 2018: of a first- and a second-order direction the one whose model falls
    more.

    Both directions s have x + s in C and |s| <= 1: X = max -grad's, and Psi = max -s'Hs with grad's <= 0.
    Along each the step in [0, 1] minimises the model, of second order with L for the first and of third order
    with M for the second. It stops at X <= eps and Psi <= gamma. Deviation: their programmes have |s| <= 1 as
    a constraint; here the oracle's solution over C is scaled down to it, which keeps it feasible and may miss
    part of both.

    Args:
        eps, gamma: see above.
        oracle: see `choice.make_oracle`.
    """

    def __init__(self, *, eps: float, gamma: float, oracle: OracleName) -> None:
        positive(eps=eps, gamma=gamma)
        self.eps, self.gamma, self.oracle_name = eps, gamma, oracle

    def prepare(self) -> None:
        self.oracle = make_oracle(self.oracle_name, self.programme.region, self.seed)

    def step(self) -> Step:
        p = self.programme
        g = p.problem.gradient(self.x)
        gap, v = p.gap(self.x, g)
        first = _within(v - self.x)
        X = -float(g @ first)
        answer = self.oracle(p.problem.hessian(self.x), self.x, Tangent("leq", g))
        u = answer.points[int(self.random().integers(len(answer.points)))]
        second = _within(u - self.x)
        length = float(np.linalg.norm(u - self.x))
        q = answer.value / max(1.0, length) ** 2
        if self.eps >= X and -q <= self.gamma:
            self.stopped = True
            return Step("stop", gap, answer=answer)
        self.k += 1
        t = line_search_first(max(X, 0.0), p.L, first)
        sigma = line_search_second(float(g @ second), q, p.M, second) if q < 0 else 0.0
        model_first = -t * X + t**2 * p.L * float(first @ first) / 2
        cubic = p.M * float(np.linalg.norm(second)) ** 3
        model_second = sigma * float(g @ second) + sigma**2 * q / 2 + sigma**3 * cubic / 6
        if model_first <= model_second:
            return Step("first", gap, self.move(self.x + t * first), answer=answer)
        return Step("second", gap, self.move(self.x + sigma * second), answer=answer)


def _within(s: Array) -> Array:
    """s scaled down to length 1."""
    return s / max(1.0, float(np.linalg.norm(s)))
