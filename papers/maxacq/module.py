"""The paper as LightningModules: searches, the inner problem alone, Table 1 and figure 1d."""

import time
from collections.abc import Sequence
from typing import Any, Literal, Unpack

import torch
from torch import Tensor

from common.base.errors import UserError
from common.base.loader import RoundLoader
from common.base.module import PaperModule, Progress
from common.base.objective import Objective
from common.numerics.sampling import ReplicateSampler
from common.search.module import SearchModule, SearchSettings
from common.search.searcher import Observations, Searcher, Task
from common.search.surrogate import Surrogate
from common.search.trial_search import TrialSearchModule
from papers.maxacq.acquisition import MyopicMaximal
from papers.maxacq.budget import Budget
from papers.maxacq.definition import decomposition_gap
from papers.maxacq.maximise import Adam, appraise
from papers.maxacq.problem import greedy
from papers.maxacq.searcher import AcquisitionSearch

Measure = Literal["search", "inner", "definition", "runtime"]
# a decomposition that holds up to rounding
EXACT = 1e-9
# of figure 1d: evaluations and samples
RUNTIME_EVALUATIONS, SAMPLES = 2**14, 1024
# sets of one timed call
SHARD = 256
# common samples by which the batches of different methods are compared
COMMON_SAMPLES = 2**14
# of the reference, greedy Adam: how much more it may spend
REFERENCE_BUDGET = 4


def make_module(
    *, method: Searcher, measure: Measure, observations: Sequence[int], **settings: Unpack[SearchSettings]
) -> PaperModule:
    """A search (`SearchModule`), or one of the two other measurements of the paper.

    Args:
        measure: `search`; `inner`: one round's acquisition value (`InnerModule`); `definition`: whether the
            acquisition is myopic maximal (`DefinitionModule`); `runtime`: seconds of its values
            (`RuntimeModule`).
        observations: n, of `runtime`.
        settings: see `SearchSettings`; `evaluations` are T of a search, the observations of `inner`, and the
            sets that are valued otherwise.

    Raises:
        UserError: a value out of range, or a method without an acquisition function to measure.
    """
    if measure == "search" and settings["data"].LONG:
        return TrialSearchModule(method=method, **settings)
    if measure == "search":
        return SearchModule(method=method, **settings)
    if not isinstance(method, AcquisitionSearch):
        raise UserError(f"paper.measure={measure} needs method=acquisition/...")
    data, model, seed = settings["data"], settings["model"], settings["seed"]
    evaluations, batch = settings["evaluations"], settings["batch"]
    if measure == "inner":
        return InnerModule(data, model, method, seed, evaluations, batch, settings["repeats"])
    if measure == "definition":
        return DefinitionModule(data, model, method, seed, evaluations, batch)
    return RuntimeModule(data, model, method, seed, evaluations, batch, list(observations))


class _Rounds(PaperModule):
    """A measurement that is made in rounds, each from its own random numbers: nothing is lost by a kill."""

    data: Objective

    def __init__(self, data: Objective, model: Surrogate, method: AcquisitionSearch, seed: int) -> None:
        super().__init__()
        self.data, self.model, self.method, self.seed = data, model, method, seed
        self.made = 0
        # of the replicates
        self.seeds = [seed]

    def setup(self, stage: str) -> None:
        self.data.setup(stage)

    def train_dataloader(self) -> RoundLoader:
        return RoundLoader()

    def on_fit_start(self) -> None:
        self.data.move(torch.device(self.device))
        self.data.draw(self.seeds)
        self._begin(self.seed)

    def _begin(self, seed: int) -> None:
        """Start a round by random numbers of its own."""
        device = torch.device(self.device)
        self.random = ReplicateSampler(seed, len(self.seeds), None, device, torch.float64)
        self.method.start(Task(self.data, self.model, self.seeds, 1, self.random, device))

    def _points(self, count: int) -> Tensor:
        """Uniform points of the cube, [R, count, d]."""
        dim = self.data.space.dim
        return self.random.uniform(count * dim).reshape(-1, count, dim).clone()

    def _observe(self, count: int) -> Observations:
        """That many uniform points with noisy values (of no data: draws of the noise)."""
        x = self._points(count)
        f = self.data.values(self.data.space.scaled(x)).nan_to_num(nan=0.0)
        noise = self.method.prior.noise_variance.sqrt()
        return Observations(self.data.space.scaled(x), f + noise[:, None] * self.random.normal((count,)))

    def search_state(self) -> dict[str, Any]:
        return {"made": self.made}

    def load_search_state(self, state: dict[str, Any]) -> None:
        self.made = state["made"]


class InnerModule(_Rounds):
    """One round alone: the acquisition value of the batch that the method finds, given random observations.

    Batches are valued by 2^14 common samples. `share` is the value as a fraction of that of a reference,
    greedy Adam with four times the budget.

    Args:
        evaluations: n, random observations; batch: q; repeats: R, tasks.
    """

    def __init__(
        self,
        data: Objective,
        model: Surrogate,
        method: AcquisitionSearch,
        seed: int,
        evaluations: int,
        batch: int,
        repeats: int,
    ) -> None:
        super().__init__(data, model, method, seed)
        if not isinstance(method.acquisition, MyopicMaximal):
            raise UserError("paper.measure=inner compares values of ei, pi, sr and ucb")
        self.count, self.batch = evaluations, batch
        self.seeds = [seed + r for r in range(repeats)]

    def training_step(self, batch: int, batch_idx: int) -> None:
        self._begin(self.seed)
        seen = self._observe(self.count)
        began = time.perf_counter()
        x = self.method.propose(seen, self.batch)
        self.seconds = time.perf_counter() - began
        problem = self.method.problem(seen, self.batch)
        reference = Adam(starts=32, samples=128, appraisal_samples=1024, lr=0.025)
        best = greedy(problem, reference, Budget(evaluations=REFERENCE_BUDGET * self.method.evaluations))
        unit = (x - self.method.lower) / self.method.width
        draws = problem.draw(COMMON_SAMPLES)
        both = appraise(problem, torch.stack([unit, best], 1), draws, COMMON_SAMPLES)
        self.values, self.shares = both[:, 0], both[:, 0] / both[:, 1]
        self.made = 1
        self.trainer.should_stop = True

    def progress(self) -> Progress:
        return Progress(self.made, 1, "rounds", "")

    def results(self) -> dict[str, Any]:
        return {
            "value": float(self.values.mean()),
            "share": float(self.shares.mean()),
            "propose_seconds": self.seconds,
        }


class DefinitionModule(_Rounds):
    """Table 1: whether an acquisition is myopic maximal, looked at in random sets of a random posterior.

    The gap is the largest difference, over sets and samples, between the utility of q outcomes and the
    largest of the utilities of the single outcomes; 0 up to rounding if it is myopic maximal.

    Args:
        evaluations: sets that are looked at; batch: q.
    """

    OBSERVED, TOGETHER = 8, 16

    def __init__(
        self,
        data: Objective,
        model: Surrogate,
        method: AcquisitionSearch,
        seed: int,
        evaluations: int,
        batch: int,
    ) -> None:
        super().__init__(data, model, method, seed)
        if batch < 2:
            raise UserError(f"paper.batch={batch}; valid: at least 2 with paper.measure=definition")
        self.total, self.batch, self.gap = evaluations, batch, 0.0

    def training_step(self, batch: int, batch_idx: int) -> None:
        self._begin(self.seed + self.made)
        seen = self._observe(self.OBSERVED)
        problem = self.method.problem(seen, self.batch)
        count = min(self.TOGETHER, self.total - self.made)
        X = self._points(count * self.batch).reshape(1, count, self.batch, -1)
        self.gap = max(self.gap, decomposition_gap(problem, X))
        self.made += count
        self.record(self.made, gap=self.gap)
        self.trainer.should_stop = self.made >= self.total

    def progress(self) -> Progress:
        return Progress(self.made, self.total, "sets", f"gap {self.gap:.2g}")

    def results(self) -> dict[str, Any]:
        return {"myopic_maximal": float(self.gap < EXACT), "decomposition_gap": self.gap}

    def search_state(self) -> dict[str, Any]:
        return {**super().search_state(), "gap": self.gap}

    def load_search_state(self, state: dict[str, Any]) -> None:
        super().load_search_state(state)
        self.gap = state["gap"]


class RuntimeModule(_Rounds):
    """Figure 1d: CPU seconds of 2^14 values of an MC acquisition by 1,024 samples, against observations.

    On a GPU they are seconds of the clock. With fewer evaluations the time of 2^14 is extrapolated.

    Args:
        evaluations: sets that are timed; batch: q; observations: the numbers n.
    """

    def __init__(
        self,
        data: Objective,
        model: Surrogate,
        method: AcquisitionSearch,
        seed: int,
        evaluations: int,
        batch: int,
        observations: list[int],
    ) -> None:
        super().__init__(data, model, method, seed)
        if not isinstance(method.acquisition, MyopicMaximal):
            raise UserError("paper.measure=runtime times ei, pi, sr and ucb")
        if not observations or min(observations) < 1:
            raise UserError(f"paper.observations={observations}; valid: numbers of at least 1")
        self.count, self.batch, self.observations = evaluations, batch, observations
        self.seconds: list[float] = []

    def training_step(self, batch: int, batch_idx: int) -> None:
        self._begin(self.seed + self.made)
        n = self.observations[self.made]
        problem = self.method.problem(self._observe(n), self.batch)
        draws = problem.draw(SAMPLES)
        X = self._points(self.count * self.batch).reshape(1, self.count, self.batch, -1)
        appraise(problem, X[:, :1], draws, SAMPLES)
        began = self._clock()
        for part in X.split(SHARD, 1):
            appraise(problem, part, draws, SAMPLES)
        self.seconds.append((self._clock() - began) * RUNTIME_EVALUATIONS / self.count)
        self.made += 1
        self.record(n, cpu_seconds=self.seconds[-1])
        self.trainer.should_stop = self.made >= len(self.observations)

    def _clock(self) -> float:
        if self.device.type == "cpu":
            return time.process_time()
        torch.accelerator.synchronize(self.device)
        return time.perf_counter()

    def progress(self) -> Progress:
        return Progress(self.made, len(self.observations), "sizes", "")

    def results(self) -> dict[str, Any]:
        return {f"cpu_seconds_at_{n}": s for n, s in zip(self.observations, self.seconds, strict=True)}

    def search_state(self) -> dict[str, Any]:
        return {**super().search_state(), "seconds": list(self.seconds)}

    def load_search_state(self, state: dict[str, Any]) -> None:
        super().load_search_state(state)
        self.seconds = list(state["seconds"])
