"""FMLP (Schilling et al. 2015): an ensemble of networks whose first layer is a factorisation machine.

    h_k(x) = w_k . x + c_k + sum_{i<j} x_i x_j <b_ki, b_kj>,   b_ki in R^8
           = w_k . x + c_k + 1/2 sum_f [(sum_i x_i b_kif)^2 - sum_i (x_i b_kif)^2]

then ReLU and a dense layer. x holds a pipeline's settings and the number of its data set, one-hot. Mean and
standard deviation of the ensemble give the expected improvement. Sizes, losses and steps follow the only
public account of how it was run (DeepPipe, KDD 2023).
"""

import time
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from common.base.errors import UserError
from common.base.limits import require
from papers.pmf_automl.posterior import most_promising
from papers.pmf_automl.recommender import WarmStarted
from papers.pmf_automl.scores import numbers_of

LATENT = 8
LR = 1e-4


class Ensemble(nn.Module):
    """E networks [E] side by side, each a factorised layer of K units, ReLU and a dense output.

    Args:
        networks: E; inputs: p; hidden: K; generator: of the first weights.
    """

    def __init__(self, networks: int, inputs: int, hidden: int, generator: Generator) -> None:
        super().__init__()

        def normal(*shape: int, scale: float) -> nn.Parameter:
            return nn.Parameter(scale * torch.randn(*shape, generator=generator))

        self.w = normal(networks, inputs, hidden, scale=inputs**-0.5)
        self.c = nn.Parameter(torch.zeros(networks, 1, hidden))
        self.b = normal(networks, inputs, hidden * LATENT, scale=0.1)
        self.out = normal(networks, hidden, 1, scale=hidden**-0.5)
        self.level = nn.Parameter(torch.zeros(networks, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Predictions [E, B] at x [B, p] or [E, B, p]."""
        pairs = (x @ self.b).square() - x.square() @ self.b.square()
        pairs = pairs.unflatten(-1, (-1, LATENT)).sum(-1) / 2
        return (torch.relu(x @ self.w + self.c + pairs) @ self.out + self.level)[..., 0]


class FMLP(WarmStarted):
    """Expected improvement on an ensemble of FMLPs, refined on what a new data set has shown.

    Args:
        networks: E; hidden: K; steps: Adam of lr 1e-4 on minibatches of `batch` training scores;
            refinements: steps on a new data set's own observations before each choice, from the trained
            weights on.
        xi: how far above the best an improvement begins.
        warm_start, neighbours, initial: see `WarmStarted`.

    Raises:
        UserError: a value out of range; nothing says the pipelines' settings.
    """

    NAME: ClassVar = "fmlp"

    def __init__(
        self,
        *,
        networks: int,
        hidden: int,
        steps: int,
        batch: int,
        refinements: int,
        xi: float,
        warm_start: str,
        neighbours: int,
        initial: int,
    ) -> None:
        super().__init__(warm_start=warm_start, neighbours=neighbours, initial=initial)
        require("at least 1", "method", networks=networks, hidden=hidden, batch=batch)
        require("at least 0", "method", steps=steps, refinements=refinements, xi=xi)
        self.networks, self.hidden, self.steps = networks, hidden, steps
        self.batch, self.refinements, self.xi = batch, refinements, xi

    def prepare(self) -> None:
        super().prepare()
        matrix = self.problem.scores.matrix
        if matrix.descriptions is None:
            raise UserError(
                "method=automl/fmlp reads the pipelines' settings, which "
                f"dataset={self.problem.scores.NAME} does not "
                "say (valid: oboe219; or the authors' pipelines.json beside their scores)"
            )
        device = self.problem.device
        self.settings = torch.from_numpy(numbers_of(matrix.descriptions)).float().to(device)
        scores = torch.from_numpy(matrix.train).float()
        self.where = (~scores.isnan()).nonzero()
        self.level, self.scale = scores[~scores.isnan()].mean(), scores[~scores.isnan()].std().clamp_min(1e-6)
        self.values = ((scores[~scores.isnan()] - self.level) / self.scale).to(device)
        self.generator = Generator().manual_seed(self.problem.seed)
        # one data set more: the new one
        self.data_sets = scores.shape[1] + 1
        inputs = self.settings.shape[1] + self.data_sets
        self.ensemble = Ensemble(self.networks, inputs, self.hidden, self.generator).to(device)
        self.optimizer = torch.optim.Adam(self.ensemble.parameters(), lr=LR)

    def _inputs(self, pipelines: Tensor, data_sets: Tensor) -> Tensor:
        one_hot = nn.functional.one_hot(data_sets.to(self.settings.device), self.data_sets)
        return torch.cat([self.settings[pipelines], one_hot.to(self.settings)], -1)

    def train(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while self.taken < self.steps:
            drawn = torch.randint(len(self.where), (self.batch,), generator=self.generator)
            pairs = self.where[drawn]
            predicted = self.ensemble(self._inputs(pairs[:, 0], pairs[:, 1]))
            self._step(self.optimizer, predicted, self.values[drawn])
            self.taken += 1
            if time.perf_counter() > end:
                break

    @staticmethod
    def _step(optimizer: torch.optim.Optimizer, predicted: Tensor, wanted: Tensor) -> None:
        optimizer.zero_grad()
        # each network has its own loss
        (predicted - wanted).square().mean(-1).sum().backward()
        optimizer.step()

    def informed(self, r: int, x: Tensor, y: Tensor, free: Tensor) -> int:
        valid = y.isfinite()
        own, values = x[valid], ((y[valid] - self.level) / self.scale).float()
        inputs = Ensemble(self.networks, self.ensemble.w.shape[1], self.hidden, Generator().manual_seed(0))
        inputs.to(self.settings.device).load_state_dict(self.ensemble.state_dict())
        new = self.data_sets - 1
        if len(own):
            optimizer = torch.optim.Adam(inputs.parameters(), lr=LR)
            seen = self._inputs(own, torch.full_like(own, new))
            for _ in range(self.refinements):
                self._step(optimizer, inputs(seen), values)
        with torch.no_grad():
            every = torch.arange(len(self.settings), device=own.device)
            found = inputs(self._inputs(every, torch.full_like(every, new))).double()
        spread = found.var(0) if self.networks > 1 else torch.zeros_like(found[0])
        if not len(values):
            return int(torch.where(free, found.mean(0), -torch.inf).argmax())
        best, xi = float(values.max()), self.xi / float(self.scale)
        return most_promising(found.mean(0), spread, free, best, xi)

    def state_dict(self) -> dict[str, Any]:
        own = {"ensemble": self.ensemble.state_dict(), "optimizer": self.optimizer.state_dict()}
        return {**super().state_dict(), **own, "generator": self.generator.get_state(), "taken": self.taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.ensemble.load_state_dict(state["ensemble"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.taken = state["taken"]
