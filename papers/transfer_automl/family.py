"""A made-up family of tasks that share what makes a design good, and differ in the rest.

With one choice a_t at each of L decisions, the utility of a design on task k is

    u_k(a) = shared sum_t g_t[a_t] + own sum_t h_kt[a_t] + sum over pairs (s, t) of P_st[a_s, a_t] / sqrt(L)

with standard normal g, h, P (h is that of k's cluster where there are clusters), and its score is
lo_k + s_k tanh(u_k / 4), plus noise on each evaluation.
"""

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from common.base.limits import require
from papers.transfer_automl.ground import DesignTasks, Ground
from papers.transfer_automl.space import DesignSpace

# pairs of decisions whose choices act together, for each decision
PAIRS = 1.0


class FamilyGround(Ground):
    """The utilities of all choices.

    Args:
        names: of the tasks, K.
        space: of the designs.
        levels: lo, [K].
        spreads: s, [K].
        singles: of each decision t the terms of its choices, [K, counts[t]].
        pairs: (s, t, P) with P [counts[s], counts[t]].
        noise: standard deviation of an evaluation.
    """

    def __init__(
        self,
        names: list[str],
        space: DesignSpace,
        levels: Tensor,
        spreads: Tensor,
        singles: list[Tensor],
        pairs: list[tuple[int, int, Tensor]],
        noise: float,
    ) -> None:
        self.names, self.space, self.counts, self.designs = names, space, space.counts, space
        self.levels, self.spreads, self.singles, self.pairs = levels, spreads, singles, pairs
        self.noise = noise

    def scores(self, tasks: Tensor, codes: Tensor, noise: Tensor) -> Tensor:
        """The test score is the one without noise."""
        self.designs.check(codes)
        utility = torch.zeros(len(codes), dtype=torch.float64)
        for t, terms in enumerate(self.singles):
            utility += terms[tasks, codes[:, t]]
        for s, t, terms in self.pairs:
            utility += terms[codes[:, s], codes[:, t]]
        clean = self.levels[tasks] + self.spreads[tasks] * torch.tanh(utility / 4)
        return torch.stack([clean + self.noise * noise, clean], -1)

    def describe(self, code: Any) -> Any:
        return self.designs.values(code)


class DesignFamily(DesignTasks):
    """Tasks task0, task1, ... of a family.

    Args:
        kind: must be `design_tasks`.
        tasks: names of those that are searched; null: all.
        count: K, how many there are.
        seed: of the family.
        shared, own: weights of what all tasks share and of what is a task's own.
        clusters: how many groups share their own part, task k in group k modulo that; null: none does.
        spreads: s of the tasks, over and over; null: drawn from 0.1 to 0.4.
        noise: of an evaluation, in units of the score.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "design_family"

    def __init__(
        self,
        *,
        kind: str,
        tasks: list[str] | None,
        count: int,
        seed: int,
        shared: float,
        own: float,
        clusters: int | None,
        spreads: list[float] | None,
        noise: float,
    ) -> None:
        require("at least 1", "dataset", count=count, clusters=clusters)
        require("at least 0", "dataset", shared=shared, own=own, noise=noise)
        super().__init__(kind=kind, all_names=[f"task{k}" for k in range(count)], tasks=tasks)
        self.count, self.seed, self.shared, self.own = count, seed, shared, own
        self.clusters, self.spreads, self.noise = clusters, spreads, noise

    def groups(self) -> list[int] | None:
        if self.clusters is None:
            return None
        return [int(name.removeprefix("task")) % self.clusters for name in self.names]

    def ground(self, space: DesignSpace, seed: int, budget: float) -> Ground:
        random = np.random.default_rng((self.seed % 2**64, 1))
        counts, length = space.counts, len(space.counts)
        groups = self.clusters or self.count
        common = [random.standard_normal(count) for count in counts]
        own = [random.standard_normal((groups, count)) for count in counts]
        pairs = []
        for _ in range(round(PAIRS * length) if length > 1 else 0):
            s, t = sorted(int(one) for one in random.choice(length, 2, replace=False))
            terms = random.standard_normal((counts[s], counts[t])) / math.sqrt(length)
            pairs.append((s, t, torch.from_numpy(terms)))
        levels = random.uniform(0.2, 0.6, self.count)
        drawn = random.uniform(0.1, 0.4, self.count)
        spreads = drawn if self.spreads is None else np.resize(np.array(self.spreads, float), self.count)
        chosen = [int(name.removeprefix("task")) for name in self.names]
        group = [k % groups for k in chosen]
        singles = [
            torch.from_numpy(self.shared * g + self.own * h[group]) for g, h in zip(common, own, strict=True)
        ]
        return FamilyGround(
            self.names,
            space,
            torch.from_numpy(levels[chosen]),
            torch.from_numpy(spreads[chosen]),
            singles,
            pairs,
            self.noise,
        )
