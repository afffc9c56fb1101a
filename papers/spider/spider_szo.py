"""SPIDER-SZO (Algorithm 3): SPIDER from function values alone."""

import math

import torch
from torch import Tensor

from papers.spider.method import ceil
from papers.spider.spider import Schedule, SpiderSFO

# points a sample batch is cut into, which bounds memory
CHUNK = 1 << 16


class SpiderSZO(SpiderSFO):
    """SPIDER-SFO, Option II, with estimates by finite differences.

    - every q steps, for each coordinate j: v_j = (1/S1) sum_i [f_i(x + mu e_j) - f_i(x)] / mu,
      in S1 (d + 1) value calls (the paper, which evaluates f_i(x) for each j, counts 2 d S1);
    - otherwise, with S2 pairs (i, u), u standard normal:
      v_k = v_{k-1} + (1/S2) sum [f_i(x_k + mu u) - f_i(x_k) - f_i(x_{k-1} + mu u) + f_i(x_{k-1})] u / mu,
      in 4 S2 value calls.

    mu = min(eps / (2 sqrt 6 L sqrt d), eps / (sqrt 6 n0 L (d + 6)^(3/2))).
    Online: S1 = 96 d sigma^2 / eps^2, S2 = 30 (2d + 9) sigma / (eps n0), q = 5 n0 sigma / eps.
    Finite sum: S1 = n, S2 = 30 (2d + 9) sqrt(n) / n0, q = n0 sqrt(n) / 6.
    Of these settings the orders are certain, the constants are not.

    Args:
        mu: None: as above.
        The others as in `SpiderSFO`.
    """

    def __init__(
        self,
        *,
        eps: float,
        n0: float,
        smoothness: float | None,
        gap: float | None,
        sigma: float | None,
        S1: int | None,
        S2: int | None,
        q: int | None,
        mu: float | None,
    ) -> None:
        super().__init__(
            option=2,
            eps=eps,
            n0=n0,
            smoothness=smoothness,
            gap=gap,
            sigma=sigma,
            S1=S1,
            S2=S2,
            q=q,
            eps_tilde_over_eps=None,
            p=0.5,
        )
        self.mu = mu

    def prepare(self) -> None:
        super().prepare()
        self.radius = self.mu or smoothing(self.L, self.eps, self.n0, self.x.shape[1])

    def _schedule(self, n: int | None) -> Schedule:
        d, n0, eps = self.x.shape[1], self.n0, self.eps
        if n is None:
            ratio = self.constant("sigma") / eps
            S1, S2, q = 96 * d * ratio**2, 30 * (2 * d + 9) * ratio / n0, 5 * n0 * ratio
        else:
            root = math.sqrt(n)
            S1, S2, q = None, 30 * (2 * d + 9) * root / n0, n0 * root / 6
        checkpoint = self.S1 or (None if S1 is None else ceil(S1))
        return Schedule(checkpoint, self.S2 or max(ceil(S2), 1), self.q or max(ceil(q), 1))

    def estimate(self) -> Tensor:
        if self.k % self.schedule.q == 0:
            self.v = self._coordinates()
        else:
            self.v = self.v + self._difference()
        return self.v

    def _coordinates(self) -> Tensor:
        """Forward differences along the axes: [R, d]."""
        S1 = self.schedule.S1
        batch = self.oracle.everything() if S1 is None else self.oracle.draw(S1)
        d = self.x.shape[1]
        shifts = torch.zeros(d + 1, d, device=self.x.device, dtype=self.x.dtype)
        shifts[1:] = self.radius * torch.eye(d, device=self.x.device, dtype=self.x.dtype)
        values = self.oracle.values(self.x[:, None] + shifts, batch)
        return (values[:, 1:] - values[:, :1]) / self.radius

    def _difference(self) -> Tensor:
        """The mean of S2 two-point estimates of grad f(x_k) - grad f(x_{k-1}): [R, d]."""
        S2, total = self.schedule.S2, torch.zeros_like(self.x)
        for start in range(0, S2, CHUNK):
            size = min(CHUNK, S2 - start)
            batch = self.oracle.draw(size)
            u = self.oracle.sampler.normal((size, self.x.shape[1]))
            now, before = self.x[:, None].expand_as(u), self.previous[:, None].expand_as(u)
            change = self.oracle.paired_values(now + self.radius * u, batch)
            change = change - self.oracle.paired_values(now, batch)
            change = change - self.oracle.paired_values(before + self.radius * u, batch)
            change = change + self.oracle.paired_values(before, batch)
            total += (change.unsqueeze(1) @ u).squeeze(1)
        return total / (S2 * self.radius)

    def error_bound(self) -> None:
        """The lemma is about gradients, not about finite differences."""

    def theory(self) -> dict[str, float]:
        if self.gap is None and self.oracle.problem.smoothness is None:
            return {}
        K, schedule, n = self.iterations, self.schedule, self.oracle.problem.n
        checkpoints = -(-K // schedule.q)
        size = n if schedule.S1 is None else schedule.S1
        assert size is not None
        pairs = 4 * schedule.S2 * (K - checkpoints)
        return {"theory_steps": K, "theory_calls": checkpoints * size * (self.x.shape[1] + 1) + pairs}


def smoothing(L: float, eps: float, n0: float, d: int) -> float:
    """mu: how far apart the points of a difference are."""
    return min(eps / (2 * math.sqrt(6) * L * math.sqrt(d)), eps / (math.sqrt(6) * n0 * L * (d + 6) ** 1.5))
