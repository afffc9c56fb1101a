"""The search for pipelines as a LightningModule: it learns from a matrix, then searches test data sets."""

import time
from typing import Any

import numpy as np
import torch

from common.base.errors import UserError
from common.base.limits import require
from common.base.loader import RoundLoader
from common.base.module import PaperModule, Progress
from common.numerics.bands import band
from papers.pmf_automl.chance import expected_ranks
from papers.pmf_automl.gp_lvm import LatentSettings
from papers.pmf_automl.own_table import PipelineTable
from papers.pmf_automl.recommender import Competitor, Problem
from papers.pmf_automl.recorded import AutoSklearn, OpenML49
from papers.pmf_automl.scores import PipelineScores
from papers.pmf_automl.table_search import TableModule

Array = np.ndarray

# seconds of one training step: Lightning's own 1-2 ms vanish beside it
BLOCK_SECONDS = 0.2
# iterations after which the figures are read
READ_AT = (5, 10, 20, 50, 100, 200)


class Compared:
    """Several methods on the same data sets in one run, so that they can be ranked.

    Args:
        methods: by their names, at least two.

    Raises:
        UserError: fewer.
    """

    NAME = "compared"

    def __init__(self, *, methods: dict[str, Any]) -> None:
        if len(methods) < 2:
            raise UserError("method.methods: valid: at least two methods to compare")
        self.methods: dict[str, Competitor] = methods


class AutoMLModule(PaperModule):
    """Each iteration every method evaluates a pipeline (or some) on each of R test data sets.

    First the methods learn from the training matrix. All of it is in the checkpoint. Of a single method are
    followed the regret, the best score of the data set minus the best so far, as a mean over data sets with
    a 95% interval; of several also their mean ranks, ties shared. What is random is there in expectation
    (`chance`). Before a method has found any score, the worst of the data set counts.

    Args:
        data: the matrix; of recorded curves themselves (`OpenML49`) the best so far is followed.
        model: the settings of latent variable models. method: one, or `Compared`. seed: of what is random,
            and the number of the first test data set.
        iterations: T. datasets: R, the test data sets that are searched; null: all.

    Raises:
        UserError: a value out of range.
    """

    data: PipelineScores | OpenML49

    def __init__(
        self,
        *,
        data: PipelineScores | OpenML49,
        model: LatentSettings,
        method: Competitor | Compared,
        seed: int,
        iterations: int,
        datasets: int | None,
    ) -> None:
        super().__init__()
        require("at least 1", "paper", iterations=iterations, datasets=datasets)
        self.data, self.model, self.seed, self.total, self.datasets = data, model, seed, iterations, datasets
        self.methods = method.methods if isinstance(method, Compared) else {"": method}
        recorded = [one for one in self.methods.values() if isinstance(one, AutoSklearn)]
        if isinstance(data, OpenML49) != bool(recorded) or (recorded and len(self.methods) > 1):
            raise UserError(
                "dataset=openml49 holds recorded curves of auto-sklearn, and goes with "
                "method=automl/auto_sklearn alone "
                "(valid: both, or another data set and another method)"
            )
        self._resumed: dict[str, Any] | None = None

    def setup(self, stage: str) -> None:
        self.data.setup(stage)

    def train_dataloader(self) -> RoundLoader:
        return RoundLoader()

    def on_fit_start(self) -> None:
        """Draw the data sets; start, or go on."""
        device = torch.device(self.device)
        self.data.move(device)
        if isinstance(self.data, OpenML49):
            for method in self.methods.values():
                assert isinstance(method, AutoSklearn)
                method.of(self.data)
        else:
            self._start(self.data, device)
        if self._resumed is not None:
            for name, method in self.methods.items():
                method.load_state_dict(self._resumed["methods"][name])
            self._resumed = None

    def _start(self, data: PipelineScores, device: torch.device) -> None:
        # 0 is drawn first
        there = data.matrix.test.shape[1]
        count = self.datasets or there
        if count > there:
            raise UserError(
                f"paper.datasets={count}; valid: at most {there}, the test data sets, or null for all"
            )
        data.draw([self.seed + r for r in range(count)])
        pipelines = data.matrix.test.shape[0]
        if self.total > pipelines:
            raise UserError(f"paper.iterations={self.total}; valid: at most {pipelines}, the pipelines")
        observed = data.mine.cpu().numpy()
        self.best, self.worst = np.nanmax(observed, 1), np.nanmin(observed, 1)
        for method in self.methods.values():
            method.start(Problem(data, self.model, self.seed, self.total, device))

    @property
    def count(self) -> int:
        """Iterations that all methods have taken."""
        return min(method.count for method in self.methods.values())

    @property
    def done(self) -> bool:
        """Whether all is learnt and all iterations are taken."""
        return self.count >= self.total

    def training_step(self, batch: int, batch_idx: int) -> None:
        """A block of learning, or as many iterations as fit in `BLOCK_SECONDS`, at least one."""
        learner = next((one for one in self.methods.values() if one.taken < one.steps), None)
        if learner is not None:
            learner.train(BLOCK_SECONDS)
            return
        end = time.perf_counter() + BLOCK_SECONDS
        while not self.done:
            for method in self.methods.values():
                method.iterate()
            self._look()
            if time.perf_counter() > end:
                break
        self.trainer.should_stop = self.done

    def _look(self) -> None:
        t, values = self.count, dict[str, float]()
        for name, series in self.curves(t).items():
            values |= band(name, series)
        self.record(t, **values)

    def curves(self, t: int) -> dict[str, Array]:
        """What is followed after t iterations, for each data set [R]."""
        if isinstance(self.data, OpenML49):
            return {"auc": np.array([values[0] for values, _ in self.methods[""].outcomes(t)])}
        found, outcomes = {}, {}
        for name, method in self.methods.items():
            outcomes[name] = [
                (np.where(np.isnan(values), worst, values), p)
                for (values, p), worst in zip(method.outcomes(t), self.worst, strict=True)
            ]
            expected = np.array([float(values @ p) for values, p in outcomes[name]])
            found[_named("regret", name)] = self.best - expected
        if len(self.methods) > 1:
            ranks = np.array([expected_ranks(list(own)) for own in zip(*outcomes.values(), strict=True)])
            found |= {_named("mean_rank", name): ranks[:, m] for m, name in enumerate(outcomes)}
        return found

    def progress(self) -> Progress:
        steps = sum(method.steps for method in self.methods.values())
        taken = sum(method.taken for method in self.methods.values())
        if taken < steps:
            return Progress(taken, steps, "steps of learning", "")
        name = "auc" if isinstance(self.data, OpenML49) else _named("regret", next(iter(self.methods)))
        last = self.history.get(name, [None])[-1]
        return Progress(self.count, self.total, "iterations", "" if last is None else f"{name} {last:.4g}")

    def results(self) -> dict[str, Any]:
        """Each curve after some of the iterations and at the end, means with standard errors `_sem`."""
        found: dict[str, Any] = {"iterations": self.count}
        for t in [*(t for t in READ_AT if t <= self.count), None]:
            for name, series in self.curves(t or self.count).items():
                key = name if t is None else f"{name}_at_{t}"
                found[key] = float(series.mean())
                if len(series) > 1:
                    found[f"{key}_sem"] = float(series.std(ddof=1)) / len(series) ** 0.5
        for name, method in self.methods.items():
            found |= {_named(key, name): value for key, value in method.results().items()}
        return found

    def search_state(self) -> dict[str, Any]:
        return {"methods": {name: method.state_dict() for name, method in self.methods.items()}}

    def load_search_state(self, state: dict[str, Any]) -> None:
        """Kept until `on_fit_start`, when there are methods to put it into."""
        self._resumed = state


def make_module(
    *,
    data: PipelineScores | OpenML49 | PipelineTable,
    model: LatentSettings,
    method: Competitor | Compared,
    seed: int,
    iterations: int,
    datasets: int | None,
) -> PaperModule:
    """The search on recorded scores (`AutoMLModule`), or on a table of the user's own (`TableModule`).

    Raises:
        UserError: a value out of range, or several methods on one's own table.
    """
    if not isinstance(data, PipelineTable):
        return AutoMLModule(
            data=data, model=model, method=method, seed=seed, iterations=iterations, datasets=datasets
        )
    if isinstance(method, Compared):
        raise UserError("dataset=table is searched by one method (valid: method=automl/pmf_adam)")
    return TableModule(data=data, model=model, method=method, seed=seed, iterations=iterations)


def _named(key: str, method: str) -> str:
    return f"{key}_{method}" if method else key
