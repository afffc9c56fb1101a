"""Sequential black-box search as a LightningModule: a round is propose, evaluate, update."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from common.base.errors import UserError
from common.base.loader import RoundLoader
from common.base.module import PaperModule, Progress
from common.base.objective import Earlier, Objective
from common.numerics.bands import band
from common.numerics.sampling import ReplicateSampler
from common.search.evaluate import evaluate
from common.search.searcher import Observations, Searcher, Task, check_inside
from common.search.surrogate import Surrogate

# seconds of rounds in one training step: Lightning's own 1-2 ms vanish beside it
ROUND_SECONDS = 0.15
OBSERVATIONS = "observations.npz"
# a regret of 0 is this in logarithms
LEAST_REGRET = 1e-12
# the noise of evaluations and the initial points have streams apart from the searcher's
STREAMS = 1_000_003
# as has the scrambling of Sobol points
SCRAMBLES = 2 * STREAMS

Design = Literal["sobol", "uniform"]


class SearchSettings(TypedDict):
    """What a search takes beside its searcher.

    Attributes:
        data, model: the objective, the surrogate.
        seed: of replicate 0; the others follow on.
        evaluations: T.
        initial: of them, how many come before the searcher's first proposal, by `design`.
        design: `sobol`: the first points of the sequence, scrambled anew for each replicate (Owen 1998), so
            that no two replicates share a point; `uniform`.
        batch: q.
        repeats: R.
        workers: processes that evaluate (1: this one, all points in one call).
    """

    data: Objective
    model: Surrogate
    seed: int
    evaluations: int
    initial: int
    design: Design
    batch: int
    repeats: int
    workers: int


class SearchModule(PaperModule):
    """Maximises an objective by a searcher, R replicates at once, until T evaluations are made.

    A round evaluates `batch` points of each replicate. Everything that was observed, all random streams and
    the searcher's own state are in the checkpoint, so a killed search goes on as if nothing had been. At the
    end `observations.npz` holds x [R, T, d], y and f [R, T] (f without noise).

    An evaluation that fails or is not finite stays in the record, and is left out of the surrogate. A
    repeated point is evaluated again. Both are said once, and counted.

    Args:
        method: the searcher.
        settings: see `SearchSettings`.

    Raises:
        UserError: a value out of range.
    """

    data: Objective

    def __init__(self, *, method: Searcher, **settings: Unpack[SearchSettings]) -> None:
        super().__init__()
        self.data, self.model, self.searcher = settings["data"], settings["model"], method
        self.total, self.initial = settings["evaluations"], settings["initial"]
        self.batch, self.workers, self.design = settings["batch"], settings["workers"], settings["design"]
        repeats = settings["repeats"]
        counts = {"evaluations": self.total, "batch": self.batch, "repeats": repeats, "workers": self.workers}
        for name, value in counts.items():
            if value < 1:
                raise UserError(f"paper.{name}={value}; valid: at least 1")
        if not 0 <= self.initial <= self.total:
            raise UserError(f"paper.initial={self.initial}; valid: 0 to paper.evaluations={self.total}")
        self.seeds = [settings["seed"] + r for r in range(repeats)]
        self.failed = self.repeated = 0
        self.propose_seconds = 0.0
        self._resumed: dict[str, Any] | None = None

    def setup(self, stage: str) -> None:
        self.data.setup(stage)

    def train_dataloader(self) -> RoundLoader:
        return RoundLoader()

    def on_fit_start(self) -> None:
        """Draw the functions; start, or go on."""
        device = torch.device("cpu") if self.searcher.ON_CPU else torch.device(self.device)
        self.data.move(device)
        self.data.draw(self.seeds)
        self.optimum = self.data.optimum()
        replicates, dim = len(self.seeds), self.data.space.dim
        self.own = self._streams(self.seeds[0] + STREAMS, device)
        random = self._streams(self.seeds[0], device)
        empty = torch.zeros(replicates, 0, dim, dtype=torch.float64, device=device)
        self.seen = Observations(empty, empty[..., 0])
        # f without noise, [R, t]
        self.f = empty[..., 0]
        # of each round: evaluations made, and f at the answers, [R]
        self.answers = torch.zeros(replicates, 0, dtype=torch.float64, device=device)
        earlier = tuple(one.to(device) for one in self._earlier())
        self.set = Task(self.data, self.model, self.seeds, self.total, random, device, earlier)
        self.searcher.start(self.set)
        if self._resumed is not None:
            self._restore(self._resumed)

    def _earlier(self) -> tuple[Earlier, ...]:
        """What is known before anything is evaluated."""
        return tuple(self.data.earlier())

    def _streams(self, seed: int, device: torch.device) -> ReplicateSampler:
        return ReplicateSampler(seed, len(self.seeds), None, device, torch.float64)

    @property
    def done(self) -> bool:
        """Whether all evaluations are made."""
        return self.seen.count >= self.total

    def training_step(self, batch: int, batch_idx: int) -> None:
        """As many rounds as fit in `ROUND_SECONDS`, at least one."""
        end = time.perf_counter() + ROUND_SECONDS
        while not self.done:
            self._round()
            if time.perf_counter() > end:
                break
        self.trainer.should_stop = self.done

    def _round(self) -> None:
        left = self.total - self.seen.count
        if self.seen.count < self.initial:
            x = self._initial()
        else:
            start = time.perf_counter()
            x = self.searcher.propose(self.seen, min(self.batch, left))
            self.propose_seconds += time.perf_counter() - start
        check_inside(self.searcher, x)
        x = self.data.space.snapped(x)
        f, said = evaluate(self.data, x, self.workers)
        noise = self.own.normal((x.shape[1],)) * self.data.noise
        before = self.seen
        self.seen = before.plus(x, f + noise)
        self.f = torch.cat([self.f, f], 1)
        self._tell_failures(before.count, said)
        self._tell_repeats(before, x)
        self._look()

    def _initial(self) -> Tensor:
        count, dim = self.initial, self.data.space.dim
        if count == 0:
            return torch.zeros(len(self.seeds), 0, dim, dtype=torch.float64, device=self.data.device)
        if self.design == "uniform":
            return self.data.space.scaled(self.own.uniform(count * dim).reshape(-1, count, dim))
        drawn = [
            SobolEngine(dim, scramble=True, seed=seed + SCRAMBLES).draw(count, dtype=torch.float64)
            for seed in self.seeds
        ]
        return self.data.space.scaled(torch.stack(drawn).to(self.data.device))

    def _tell_failures(self, first: int, said: str | None) -> None:
        failed = ~self.seen.y[:, first:].isfinite()
        if failed.any() and not self.failed:
            what = said or "a value that is not finite"
            print(
                f"[{self.data.NAME}] evaluation {first + 1} failed ({what}): it stays in the record, "
                "the surrogate goes without it"
            )
        self.failed += int(failed.sum())
        if self.failed == self.seen.y.numel() and self.seen.count >= 10:
            raise UserError(f"dataset={self.data.NAME}: all {self.failed} evaluations so far failed")

    def _tell_repeats(self, before: Observations, x: Tensor) -> None:
        earlier = torch.cat([before.x, x], 1)
        same = (x[:, :, None] == earlier[:, None]).all(-1)
        # a point equals itself once
        repeats = same.sum(2) > 1
        if repeats.any() and not self.repeated:
            print(f"[{self.data.NAME}] evaluation {before.count + 1} repeats a point: it is evaluated again")
        self.repeated += int(repeats.sum())

    def _look(self) -> None:
        """Add a point to the curves; means of the replicates, with 95% intervals where there are several."""
        if self.optimum is not None:
            answer = self.searcher.answer(self.seen)
            self.answers = torch.cat([self.answers, self.data.values(answer[:, None])], 1)
        values: dict[str, float] = {}
        for name, series in self.curves().items():
            values |= band(name, series.cpu())
        last = self.seen.x[0, -1].tolist()
        if len(last) <= 10:
            values |= {f"x{i + 1}": value for i, value in enumerate(last)}
        self.record(self.seen.count, **{k: v for k, v in values.items() if math.isfinite(v)})

    def curves(self) -> dict[str, Tensor]:
        """What is followed, for each replicate [R].

        best: the largest value so far, without noise. Where the optimum is known, also simple_regret: the
        optimum minus that; inference_regret: the optimum minus the value at the searcher's answer, and
        log10_regret, its logarithm; avg_regret: the mean of the optimum minus f(x_t) over all t so far.
        Failed evaluations count for nothing.
        """
        best = self.best_of_first(self.seen.count)
        found = {"best": best}
        if self.optimum is not None:
            inference = self.optimum - self.answers[:, -1]
            found |= {
                "simple_regret": self.optimum - best,
                "inference_regret": inference,
                "log10_regret": inference.clamp_min(LEAST_REGRET).log10(),
                "avg_regret": (self.optimum[:, None] - self.f).nanmean(1),
            }
        return found

    def best_of_first(self, count: int) -> Tensor:
        """The largest value of so many evaluations, without noise, [R]; -inf where all failed."""
        known = self.f[:, :count]
        return torch.where(known.isfinite(), known, torch.full_like(known, -torch.inf)).max(1).values

    def read_at(self, counts: Sequence[int], regret: str) -> dict[str, float]:
        """The numbers of a figure: `best_at_t`, where the optimum is known `{regret}_at_t`, of t in counts.

        The best value in the objective's own unit and the simple regret, as `mean_and_error` gives them;
        nothing for a t that the search has not come to.
        """
        found: dict[str, float] = {}
        for t in (t for t in counts if t <= self.seen.count):
            best = self.best_of_first(t)
            found |= self.mean_and_error(f"best_at_{t}", self.data.sign * best)
            if self.optimum is not None:
                found |= self.mean_and_error(f"{regret}_at_{t}", self.optimum - best)
        return found

    def on_train_end(self) -> None:
        if self.done:
            path = Path(self.trainer.default_root_dir) / OBSERVATIONS
            np.savez_compressed(
                path, x=self.seen.x.cpu().numpy(), y=self.seen.y.cpu().numpy(), f=self.f.cpu().numpy()
            )

    def progress(self) -> Progress:
        best = self.history.get("best", [None])[-1]
        what = "best" if self.data.metric == "f" else f"best {self.data.metric}"
        text = "" if best is None else f"{what} {self.data.sign * best:.5g}"
        return Progress(self.seen.count, self.total, "evaluations", text)

    def results(self) -> dict[str, Any]:
        """The last point of each curve, a mean of replicates with its standard error `_sem`, and counts."""
        found: dict[str, Any] = {}
        curves = self.curves()
        if self.data.metric != "f":
            curves[f"best_{self.data.metric}"] = self.data.sign * curves["best"]
        for name, series in curves.items():
            found |= self.mean_and_error(name, series)
        return found | {
            "evaluations": self.seen.count,
            "replicates": len(self.seeds),
            "failed_evaluations": self.failed,
            "repeated_points": self.repeated,
            "propose_seconds": self.propose_seconds,
        }

    @staticmethod
    def mean_and_error(name: str, series: Tensor) -> dict[str, float]:
        """The mean of replicates [R] under a name, and where there are several its standard error."""
        found = {name: float(series.mean())}
        if len(series) > 1:
            found[f"{name}_sem"] = float(series.std()) / len(series) ** 0.5
        return found

    def search_state(self) -> dict[str, Any]:
        return {
            "x": self.seen.x,
            "y": self.seen.y,
            "f": self.f,
            "answers": self.answers,
            "failed": self.failed,
            "repeated": self.repeated,
            "propose_seconds": self.propose_seconds,
            "own": self.own.state_dict(),
            "random": self.searcher.task.random.state_dict(),
            "searcher": self.searcher.state_dict(),
        }

    def load_search_state(self, state: dict[str, Any]) -> None:
        """Kept until `on_fit_start`, when there is a searcher to put it into."""
        self._resumed = state

    def _restore(self, state: dict[str, Any]) -> None:
        device = self.data.device
        self.seen = Observations(state["x"].to(device), state["y"].to(device))
        self.f, self.answers = state["f"].to(device), state["answers"].to(device)
        self.failed, self.repeated = state["failed"], state["repeated"]
        self.propose_seconds = state["propose_seconds"]
        self.own.load_state_dict(state["own"])
        self.searcher.task.random.load_state_dict(state["random"])
        self.searcher.load_state_dict(state["searcher"])
        self._resumed = None
