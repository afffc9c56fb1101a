"""SPIDER-SFO+ (Algorithm 2): SPIDER-SFO that leaves saddle points by negative curvature."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from papers.spider.method import row_norms
from papers.spider.negative_curvature import Curvature, Search
from papers.spider.spider import SpiderSFO


class SpiderSFOPlus(SpiderSFO):
    """Finds points with ||grad f|| <= O(eps) and lambda_min(Hess f) >= -O(sqrt(rho eps)).

    Blocks of kappa = delta L n0 / (rho eps) steps of length eps / (L n0), so of length delta / rho in all,
    with delta = sqrt(rho eps). A block begins with a search for negative curvature at x:
    - found w: x_{k+1} = x_k - s (eps / (L n0)) w with a random sign s; v goes on meanwhile.
    - none: the normalised steps of Option I; returns x_k as soon as ||v_k|| <= 2 eps~.
    At most J = 4 max(floor(81 rho^2 Delta / delta^3), floor(120 Delta rho / (delta eps))) + 4 blocks.

    Args:
        search: finds negative curvature.
        hessian_lipschitz: rho; None: the problem's.
        The others as in `SpiderSFO`.
    """

    STATE: ClassVar = ("x", "k", "v", "previous", "found", "escape")

    found: Tensor
    escape: Tensor

    def __init__(
        self,
        *,
        search: Search,
        eps: float,
        n0: float,
        smoothness: float | None,
        hessian_lipschitz: float | None,
        gap: float | None,
        sigma: float | None,
        S1: int | None,
        S2: int | None,
        q: int | None,
        eps_tilde_over_eps: float | None,
        p: float,
    ) -> None:
        super().__init__(
            option=1,
            eps=eps,
            n0=n0,
            smoothness=smoothness,
            gap=gap,
            sigma=sigma,
            S1=S1,
            S2=S2,
            q=q,
            eps_tilde_over_eps=eps_tilde_over_eps,
            p=p,
        )
        self.search, self.hessian_lipschitz = search, hessian_lipschitz

    def prepare(self) -> None:
        super().prepare()
        rho = self.constant("hessian_lipschitz")
        self.curvature = Curvature(self.L, rho, math.sqrt(rho * self.eps))
        self.block = max(math.ceil(self.curvature.delta * self.L * self.n0 / (rho * self.eps)), 1)
        self.found = torch.zeros(len(self.x), 1, dtype=torch.bool, device=self.x.device)
        self.escape = torch.zeros_like(self.x)

    @property
    def blocks(self) -> int:
        """J."""
        rho, delta = self.curvature.rho, self.curvature.delta
        by_curvature = math.floor(81 * rho**2 * self.initial_gap / delta**3)
        by_gradient = math.floor(120 * self.initial_gap * rho / (delta * self.eps))
        return 4 * max(by_curvature, by_gradient) + 4

    def step(self) -> None:
        if self.k % self.block == 0:
            self._search()
        v = self.estimate()
        norm = row_norms(v)
        if self.own_stop:
            small = (norm <= 2 * self.stopping_level) & ~self.found
            self.oracle.retire(small.squeeze(1))
        gradient = v / norm.clamp_min(torch.finfo(norm.dtype).tiny)
        self.advance(self.x - self.steps.length * torch.where(self.found, self.escape, gradient))
        if self.own_stop and self.k >= self.blocks * self.block:
            self.oracle.retire(torch.ones(len(v), dtype=torch.bool))

    def _search(self) -> None:
        """Negative curvature at x, and a random sign for it."""
        found = self.search(self.oracle, self.x, self.curvature, self.schedule.S1)
        sign = torch.where(self.oracle.sampler.uniform(1) < 0.5, -1.0, 1.0)
        self.found, self.escape = found.mask[:, None], found.direction * sign

    def theory(self) -> dict[str, Any]:
        if self.gap is None and self.oracle.problem.smoothness is None:
            return {}
        return {"theory_steps": self.blocks * self.block}
