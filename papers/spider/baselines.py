"""The methods that SPIDER is compared with, in the same accounting of gradient calls.

L is the smoothness constant, n the number of components, b a minibatch, all drawn with replacement.
"""

import math
from typing import ClassVar, Literal

import torch

from papers.spider.method import Method, ceil, components, objective_gap, positive
from papers.spider.spider import PathIntegrated, Schedule


class GradientDescent(Method):
    """x_{k+1} = x_k - eta grad f(x_k): n calls a step; eta = 1/L (Nesterov 2004).

    Theory: ||grad f|| <= eps after at most 2 L Delta / eps^2 steps, so n calls times that.

    Args:
        eps: the accuracy that `theory` speaks of.
        step_size: eta; None: 1/L.
        smoothness: L; None: the problem's.
    """

    def __init__(self, *, eps: float, step_size: float | None, smoothness: float | None) -> None:
        positive(eps=eps, step_size=step_size, smoothness=smoothness)
        self.eps, self.step_size, self.smoothness = eps, step_size, smoothness

    def prepare(self) -> None:
        components(self.oracle, "gd")
        self.eta = self.step_size or 1 / self.constant("smoothness")
        self._x0 = self.x[:1]

    def step(self) -> None:
        self.move(self.x - self.eta * self.oracle.checkpoint_gradient(self.x, None))
        self.k += 1

    def theory(self) -> dict[str, float]:
        problem = self.oracle.problem
        if problem.smoothness is None:
            return {}
        L = self.constant("smoothness")
        K = ceil(2 * L * objective_gap(None, self.oracle, self._x0) / self.eps**2)
        return {"theory_steps": K, "theory_calls": K * components(self.oracle, "gd")}


class SGD(Method):
    """x_{k+1} = x_k - eta_k g_b(x_k).

    "constant": eta = min(1/L, eps^2 b / (2 L sigma^2)), with which
    K = 4 Delta / (eta eps^2) steps give E||grad f||^2 <= eps^2 at a uniform iterate, so that the calls
    b K = 8 L Delta sigma^2 eps^-4 do not depend on b (Ghadimi and Lan 2013, with a minibatch).
    "inverse_sqrt": eta_k = step_size / sqrt(k + 1), from 1/L.

    Args:
        eps: the accuracy aimed at.
        batch_size: b; None: ceil(sqrt n), or ceil(sigma / eps) online.
        step_size: eta; None: as above.
        decay: as above.
        smoothness, sigma: None: the problem's.
    """

    def __init__(
        self,
        *,
        eps: float,
        batch_size: int | None,
        step_size: float | None,
        decay: Literal["constant", "inverse_sqrt"],
        smoothness: float | None,
        sigma: float | None,
    ) -> None:
        positive(eps=eps, batch_size=batch_size, step_size=step_size, smoothness=smoothness, sigma=sigma)
        self.eps, self.batch_size, self.step_size, self.decay = eps, batch_size, step_size, decay
        self.smoothness, self.sigma = smoothness, sigma

    def prepare(self) -> None:
        problem = self.oracle.problem
        self._x0 = self.x[:1]
        if self.batch_size is not None:
            self.b = self.batch_size
        elif problem.n is not None:
            self.b = ceil(math.sqrt(problem.n))
        else:
            self.b = ceil(self.constant("sigma") / self.eps)
        self.eta = self.step_size or self._formula()

    def _formula(self) -> float:
        L = self.constant("smoothness")
        if self.decay == "inverse_sqrt":
            return 1 / L
        sigma = self.constant("sigma")
        return min(1 / L, self.eps**2 * self.b / (2 * L * sigma**2))

    def step(self) -> None:
        eta = self.eta / math.sqrt(self.k + 1) if self.decay == "inverse_sqrt" else self.eta
        self.move(self.x - eta * self.oracle.minibatch_gradient(self.x, self.b))
        self.k += 1

    def theory(self) -> dict[str, float]:
        if self.decay != "constant" or self.oracle.problem.smoothness is None:
            return {}
        K = ceil(4 * objective_gap(None, self.oracle, self._x0) / (self.eta * self.eps**2))
        return {"theory_steps": K, "theory_calls": K * self.b}


class SVRG(Method):
    """v_k = g_b(x_k) - g_b(snapshot) + grad f(snapshot), a new snapshot every m steps.

    Nonconvex settings: b = n^(2/3), m = n^(1/3), eta = 1/(3L) (Reddi et al. 2016; Allen-Zhu and Hazan 2016).

    Args:
        batch_size, epoch_length, step_size: None: as above.
        smoothness: L; None: the problem's.
    """

    STATE: ClassVar = ("x", "k", "v", "previous", "snapshot", "anchor")

    def __init__(
        self,
        *,
        batch_size: int | None,
        epoch_length: int | None,
        step_size: float | None,
        smoothness: float | None,
    ) -> None:
        positive(batch_size=batch_size, epoch_length=epoch_length)
        positive(step_size=step_size, smoothness=smoothness)
        self.batch_size, self.epoch_length = batch_size, epoch_length
        self.step_size, self.smoothness = step_size, smoothness

    def prepare(self) -> None:
        n = components(self.oracle, "svrg")
        self.b = self.batch_size or ceil(n ** (2 / 3))
        self.m = self.epoch_length or ceil(n ** (1 / 3))
        self.eta = self.step_size or 1 / (3 * self.constant("smoothness"))
        self.snapshot, self.anchor = self.x, torch.zeros_like(self.x)
        self.v, self.previous = torch.zeros_like(self.x), self.x

    @property
    def period(self) -> int:
        return self.m

    def step(self) -> None:
        if self.k % self.m == 0:
            self.snapshot = self.x
            self.anchor = self.oracle.checkpoint_gradient(self.x, None)
        batch = self.oracle.draw(self.b)
        self.v = self.oracle.gradient_difference(self.x, self.snapshot, batch) + self.anchor
        self.previous = self.x
        self.move(self.x - self.eta * self.v)
        self.k += 1


class SCSG(Method):
    """SVRG with checkpoints of B samples and epochs of random length (Lei et al. 2017).

    B = min(n, c sigma^2 / eps^2); the length of an epoch is geometric with mean B/b;
    eta = (b/B)^(2/3) / (6L). Each replicate has epochs of its own.

    Args:
        eps: the accuracy aimed at.
        batch_size: b.
        checkpoint_size: B; None: as above.
        checkpoint_constant: c.
        step_size: None: as above.
        smoothness, sigma: None: the problem's.
    """

    STATE: ClassVar = ("x", "k", "snapshot", "anchor", "left")

    def __init__(
        self,
        *,
        eps: float,
        batch_size: int,
        checkpoint_size: int | None,
        checkpoint_constant: float,
        step_size: float | None,
        smoothness: float | None,
        sigma: float | None,
    ) -> None:
        positive(eps=eps, batch_size=batch_size, checkpoint_size=checkpoint_size, step_size=step_size)
        positive(checkpoint_constant=checkpoint_constant, smoothness=smoothness, sigma=sigma)
        self.eps, self.b, self.checkpoint_size = eps, batch_size, checkpoint_size
        self.checkpoint_constant, self.step_size = checkpoint_constant, step_size
        self.smoothness, self.sigma = smoothness, sigma

    def prepare(self) -> None:
        problem = self.oracle.problem
        self.B = self.checkpoint_size or self._formula()
        self.whole = problem.n is not None and problem.n <= self.B
        if problem.n is not None:
            self.B = min(self.B, problem.n)
        L = None if self.step_size else self.constant("smoothness")
        self.eta = self.step_size or (self.b / self.B) ** (2 / 3) / (6 * L)  # type: ignore[operator]
        self.snapshot, self.anchor = self.x.clone(), torch.zeros_like(self.x)
        self.left = [0] * len(self.x)

    def _formula(self) -> int:
        sigma = self.constant("sigma")
        return ceil(self.checkpoint_constant * sigma**2 / self.eps**2)

    def step(self) -> None:
        while rows := [r for r, left in enumerate(self.left) if left == 0]:
            self._checkpoint(rows)
        batch = self.oracle.draw(self.b)
        v = self.oracle.gradient_difference(self.x, self.snapshot, batch) + self.anchor
        self.move(self.x - self.eta * v)
        self.left = [left - 1 for left in self.left]
        self.k += 1

    def _checkpoint(self, rows: list[int]) -> None:
        """A new snapshot of some replicates, with P(length = j) = (b/B + 1)^-1 (1 + b/B)^-j b/B."""
        self.snapshot[rows] = self.x[rows]
        size = None if self.whole else self.B
        self.anchor[rows] = self.oracle.checkpoint_gradient(self.x[rows], size, rows)
        uniform = 1.0 - self.oracle.sampler.uniform(1, rows).squeeze(1)
        lengths = torch.floor(uniform.log() / -math.log1p(self.b / self.B)).tolist()
        for r, length in zip(rows, lengths, strict=True):
            self.left[r] = int(length)


class SNVRG(Method):
    """Nested variance reduction with two levels (Zhou, Xu, Gu 2018, with K = 2).

    v_k = grad f(y_0) + [g_B1(y_1) - g_B1(y_0)] + [g_B2(x_k) - g_B2(y_1)],
    with the outer reference y_0 renewed every T1 T2 steps and the inner one y_1 every T2.
    A level's variance is at most L^2 (distance to its reference)^2 / B, so B1 = (T1 T2)^2 and B2 = T2^2;
    equal costs n = T1 B1 = T1 T2 B2 then give T1 = n^(1/7), T2 = n^(2/7), B1 = n^(6/7), B2 = n^(4/7):
    n^(4/7) calls a unit of progress, between SVRG's n^(2/3) and SPIDER's n^(1/2). eta = 1/(3L).

    Args:
        step_size: None: as above.
        smoothness: L; None: the problem's.
    """

    STATE: ClassVar = ("x", "k", "outer", "inner", "outer_gradient", "inner_gradient")

    def __init__(self, *, step_size: float | None, smoothness: float | None) -> None:
        positive(step_size=step_size, smoothness=smoothness)
        self.step_size, self.smoothness = step_size, smoothness

    def prepare(self) -> None:
        n = components(self.oracle, "snvrg")
        self.T1, self.T2 = ceil(n ** (1 / 7)), ceil(n ** (2 / 7))
        self.B1, self.B2 = ceil(n ** (6 / 7)), ceil(n ** (4 / 7))
        self.eta = self.step_size or 1 / (3 * self.constant("smoothness"))
        self.outer = self.inner = self.x
        self.outer_gradient = self.inner_gradient = torch.zeros_like(self.x)

    def step(self) -> None:
        self._renew()
        batch = self.oracle.draw(self.B2)
        difference = self.oracle.gradient_difference(self.x, self.inner, batch)
        self.move(self.x - self.eta * (self.outer_gradient + self.inner_gradient + difference))
        self.k += 1

    def _renew(self) -> None:
        if self.k % (self.T1 * self.T2) == 0:
            self.outer = self.inner = self.x
            self.outer_gradient = self.oracle.checkpoint_gradient(self.x, None)
            self.inner_gradient = torch.zeros_like(self.x)
        elif self.k % self.T2 == 0:
            self.inner = self.x
            batch = self.oracle.draw(self.B1)
            self.inner_gradient = self.oracle.gradient_difference(self.inner, self.outer, batch).clone()


class SpiderBoost(PathIntegrated):
    """SPIDER's estimator with the constant step eta = 1/(2L), S2 = q = sqrt n (Wang et al. 2018).

    It is Option II of SPIDER-SFO with n0 = 1 and the cap always active.

    Args:
        S1, S2, q: S1 None: all n; the others None: ceil(sqrt n).
        step_size: None: 1/(2L).
        smoothness: L; None: the problem's.
    """

    def __init__(
        self,
        *,
        S1: int | None,
        S2: int | None,
        q: int | None,
        step_size: float | None,
        smoothness: float | None,
    ) -> None:
        positive(S1=S1, S2=S2, q=q, step_size=step_size, smoothness=smoothness)
        self.S1, self.S2, self.q, self.step_size, self.smoothness = S1, S2, q, step_size, smoothness

    def prepare(self) -> None:
        super().prepare()
        root = ceil(math.sqrt(components(self.oracle, "spiderboost")))
        self.schedule = Schedule(self.S1, self.S2 or root, self.q or root)
        self.eta = self.step_size or 1 / (2 * self.constant("smoothness"))

    def step(self) -> None:
        self.advance(self.x - self.eta * self.estimate())


class SARAH(PathIntegrated):
    """The recursion v_k with a full gradient every m steps (Nguyen et al. 2017), the last iterate kept.

    Nonconvex minibatch settings: eta = 2 / (L (sqrt(1 + 4 m / b) + 1)), here with b = m = sqrt n.

    Args:
        batch_size, epoch_length: b and m; None: ceil(sqrt n).
        step_size: None: as above.
        smoothness: L; None: the problem's.
    """

    def __init__(
        self,
        *,
        batch_size: int | None,
        epoch_length: int | None,
        step_size: float | None,
        smoothness: float | None,
    ) -> None:
        positive(batch_size=batch_size, epoch_length=epoch_length)
        positive(step_size=step_size, smoothness=smoothness)
        self.batch_size, self.epoch_length = batch_size, epoch_length
        self.step_size, self.smoothness = step_size, smoothness

    def prepare(self) -> None:
        super().prepare()
        root = ceil(math.sqrt(components(self.oracle, "sarah")))
        b, m = self.batch_size or root, self.epoch_length or root
        self.schedule = Schedule(None, b, m)
        self.eta = self.step_size or self._formula(b, m)

    def _formula(self, b: int, m: int) -> float:
        L = self.constant("smoothness")
        return 2 / (L * (math.sqrt(1 + 4 * m / b) + 1))

    def step(self) -> None:
        self.advance(self.x - self.eta * self.estimate())
