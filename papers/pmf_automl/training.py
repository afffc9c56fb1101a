"""How the latent variable model is trained: columns and rows drawn in turn, SGD as the authors, or Adam."""

import time
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from common.base.errors import UserError
from common.base.limits import require
from papers.pmf_automl.gp_lvm import LatentModel, LatentSettings, pca_start, prior_mean


class Deck:
    """The numbers 0 to n - 1 in random order, some at a time; mixed anew where fewer than asked are left.

    Each draw is a uniform set without repeats, and over one order none comes twice.
    """

    def __init__(self, size: int, generator: Generator) -> None:
        self.size, self.generator = size, generator
        self.order = torch.randperm(size, generator=generator)
        self.position = 0

    def draw(self, count: int) -> Tensor:
        """The next min(count, n) numbers, ascending."""
        if count >= self.size:
            return torch.arange(self.size)
        if self.position + count > self.size:
            self.order, self.position = torch.randperm(self.size, generator=self.generator), 0
        drawn = self.order[self.position : self.position + count]
        self.position += count
        return drawn.sort().values

    def state_dict(self) -> dict[str, Any]:
        return {"order": self.order.clone(), "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order, self.position = state["order"], state["position"]


class StochasticObjective:
    """The loss of one step: some columns, and of each at most so many of its observed rows.

    loss = (D / B) sum over B columns of the NLL of their drawn rows. Over the draws of columns its mean is
    the full objective; over those of rows it is not, as a column counts by the rows that are drawn
    (`row_scaling` multiplies by N_d / n_d, which mends the weight of the columns, and is still another
    objective, as rows are not independent).

    Args:
        Y: [N, D], NaN where nothing is known. columns: B; None or at least D: all. rows: at most of a column.
        row_scaling: see above. seed: of the draws.
    """

    def __init__(self, Y: Tensor, columns: int | None, rows: int, row_scaling: bool, seed: int) -> None:
        self.Y, self.rows, self.row_scaling = Y, rows, row_scaling
        observed = ~Y.isnan()
        self.observed = [observed[:, d].nonzero()[:, 0].cpu() for d in range(Y.shape[1])]
        self.batch = min(columns or Y.shape[1], Y.shape[1])
        self.generator = Generator().manual_seed(seed)
        self.deck = Deck(Y.shape[1], self.generator)
        self.decks = [Deck(len(own), self.generator) for own in self.observed]

    def loss(self, model: LatentModel) -> Tensor:
        """The loss of the next draw."""
        columns = self.deck.draw(self.batch).tolist()
        rows = [self.observed[d][self.decks[d].draw(self.rows)] for d in columns]
        share = self.Y.shape[1] / len(columns)
        scale = [
            share * (len(self.observed[d]) / max(len(own), 1) if self.row_scaling else 1.0)
            for d, own in zip(columns, rows, strict=True)
        ]
        return model.nll(self.Y, columns, rows, scale)

    def state_dict(self) -> dict[str, Any]:
        return {
            "generator": self.generator.get_state(),
            "deck": self.deck.state_dict(),
            "decks": [deck.state_dict() for deck in self.decks],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"].cpu())
        self.deck.load_state_dict(state["deck"])
        for deck, own in zip(self.decks, state["decks"], strict=True):
            deck.load_state_dict(own)


class Training:
    """The training of a latent model of Y, some steps at a time; it can be saved and gone on with.

    Args:
        Y: [N, D]; settings: of the model.
        optimizer: `sgd` (the authors', without momentum) or `adam`. lr: its step size.
        epochs: passes over the columns: int(epochs D / B) - 1 steps of the stochastic objective, or where
            B is all columns, `epochs` steps.
        columns, rows, row_scaling, seed: see `StochasticObjective`.

    Attributes:
        taken, steps: how many steps were taken, and are to be.
        mean: prior mean of a new data set, [N].

    Raises:
        UserError: a value out of range; nothing is observed; the loss is no number.
    """

    def __init__(
        self,
        Y: Tensor,
        settings: LatentSettings,
        *,
        optimizer: Literal["sgd", "adam"],
        lr: float,
        epochs: float,
        columns: int | None,
        rows: int,
        row_scaling: bool,
        seed: int,
    ) -> None:
        require("positive", "method", lr=lr)
        require("at least 0", "method", epochs=epochs)
        require("at least 1", "method", columns=columns, rows=rows)
        if bool(Y.isnan().all()):
            raise UserError(
                "dataset: no entry of the training matrix is observed; valid: a matrix with scores"
            )
        offset, self.mean = prior_mean(Y, settings.center)
        self.objective = StochasticObjective(Y - offset, columns, rows, row_scaling, seed)
        self.model = LatentModel(pca_start(Y, settings.latent_dim), settings.lengthscales)
        own = list(self.model.parameters())
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.SGD(own, lr=lr) if optimizer == "sgd" else torch.optim.Adam(own, lr=lr)
        )
        data_sets = Y.shape[1]
        whole = self.objective.batch == data_sets
        self.steps = max(int(epochs) if whole else int(data_sets / self.objective.batch * epochs) - 1, 0)
        self.taken = 0

    @property
    def done(self) -> bool:
        """Whether all steps are taken."""
        return self.taken >= self.steps

    def go_on(self, seconds: float) -> None:
        """Steps for so long, at least one, or until all are taken."""
        end = time.perf_counter() + seconds
        while not self.done:
            self.step()
            if time.perf_counter() > end:
                break

    def step(self) -> float:
        """One step; the loss before it."""
        self.optimizer.zero_grad()
        loss = self.objective.loss(self.model)
        if not bool(loss.isfinite()):
            raise UserError(
                f"method.lr={self.optimizer.param_groups[0]['lr']}: the objective is no number after step "
                f"{self.taken} "
                "(valid: a smaller one)"
            )
        loss.backward()
        self.optimizer.step()
        self.taken += 1
        return float(loss.detach())

    def nll_per_dataset(self) -> float:
        """The full objective over the number of data sets, in nats."""
        with torch.no_grad():
            return float(self.model.full_nll(self.objective.Y)) / self.objective.Y.shape[1]

    def state_dict(self) -> dict[str, Any]:
        return {
            "taken": self.taken,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "objective": self.objective.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.taken = state["taken"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.objective.load_state_dict(state["objective"])
