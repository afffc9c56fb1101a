"""AcceleGrad's experiments as LightningModules: convex programmes with known optima, supervised training."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from common.base.errors import UserError
from common.base.loader import RoundLoader
from common.base.module import PaperModule, Progress
from common.data.shared.in_memory import TensorData
from common.numerics.sampling import ReplicateSampler
from common.training.finite import NonFinite
from common.training.supervised import Course, SupervisedModule
from papers.accelegrad.convex import Solver, TorchSolver
from papers.accelegrad.hinge import LinearSvm
from papers.accelegrad.lp_regression import LpRegression as LpModel
from papers.accelegrad.optimum import least_objective
from papers.accelegrad.problems import LpRegression
from papers.accelegrad.regression import SyntheticRegression

# seconds of oracle calls in one training step: Lightning's own 1-2 ms vanish beside it
ROUND_SECONDS = 0.15
# points of a curve are this far apart, as a fraction of the calls made
SPACING = 0.02
# the relative gap whose calls are counted
TARGET = 1e-3
# minibatches by which the statistics of batch normalisation are measured at the average
STATISTICS_BATCHES = 50


def accelegrad(
    *,
    model: nn.Module,
    make_model: Callable[[], nn.Module],
    method: Solver | Callable[..., Optimizer],
    repeats: int,
    **course: Unpack[Course],
) -> PaperModule:
    """The module for a data set and a model: `Programme` for convex problems, else `Training`.

    Args:
        model, make_model, method: built from the config groups.
        repeats: of a programme with minibatches: replicates with seeds seed, seed + 1, ... at once.
        course: see `Course`; of a programme without minibatches, `epochs` are oracle calls.

    Raises:
        UserError: a value out of range, or one that this data set has no use for.
    """
    data, epochs, test_every = course["data"], course["epochs"], course["test_every"]
    if not (epochs > 0 and math.isfinite(epochs)):
        raise UserError(f"paper.epochs={epochs}: must be above 0")
    if repeats < 1:
        raise UserError(f"paper.repeats={repeats}; valid: at least 1")
    if isinstance(data, SyntheticRegression) and isinstance(model, LpModel):
        if test_every is not None:
            raise UserError(f"paper.test_every={test_every}: a convex programme has no test set (null)")
        if repeats > 1 and data.exact:
            raise UserError(f"paper.repeats={repeats}: all are alike without dataset.batch_size (valid: 1)")
        return Programme(
            data=data, model=model, method=method, seed=course["seed"], epochs=epochs, repeats=repeats
        )
    if isinstance(method, Solver):
        raise UserError(
            f"method=convex/{method.NAME}: solves dataset=synthetic_regression; "
            "valid here: method=optimizer/..."
        )
    if repeats > 1:
        raise UserError(f"paper.repeats={repeats}: only convex programmes repeat; valid: 1, and seed=0,1,...")
    return Training(
        model=model, make_model=make_model, method=method, pixels="mean", measure_gradient=False, **course
    )


class Training(SupervisedModule):
    """Supervised training, judged at the optimizer's average.

    Running statistics of batch normalisation belong to the points where gradients were taken, so they are
    measured anew at the average, on the first `STATISTICS_BATCHES` training batches, for each evaluation.
    """

    @contextmanager
    def _judged(self) -> Iterator[None]:
        norms = [module for module in self.model.modules() if isinstance(module, _BatchNorm)]
        with super()._judged():
            if not norms or not hasattr(self._optimizer, "averaged"):
                yield
                return
            kept = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
            self._measure_statistics(norms)
            yield
            for norm, buffers in zip(norms, kept, strict=True):
                for name, buffer in norm.named_buffers():
                    buffer.copy_(buffers[name])

    @torch.no_grad()
    def _measure_statistics(self, norms: list[_BatchNorm]) -> None:
        momenta = [norm.momentum for norm in norms]
        was_training = self.model.training
        self.model.train()
        for norm in norms:
            norm.reset_running_stats()
            # a cumulative average
            norm.momentum = None
        size, batch = self.data.size("train"), self.data.batch_size
        for start in range(0, min(size, STATISTICS_BATCHES * batch), batch):
            inputs, _ = self.data.batch("train", slice(start, min(start + batch, size)), augment=False)
            self.model(inputs)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        self.model.train(was_training)

    def results(self) -> dict[str, Any]:
        """The shared metrics; of a `LinearSvm` also `objective_gap`, from the least training objective."""
        found = super().results()
        if isinstance(self.model, LinearSvm) and isinstance(self.data, TensorData):
            found["objective_minimum"] = least_objective(self.data, self.model)
            found["objective_gap"] = found["train_loss"] - found["objective_minimum"]
        return found


class Programme(PaperModule):
    """A convex problem with a known optimum: R replicates at once, every oracle call counted.

    The gap of a method's output, f(x) - f*, is looked at each 2% of the calls; that is not counted.

    Args:
        data, model: the problem.
        method: a `Solver`, or what makes a torch optimizer.
        seed: of the first replicate's minibatches; the others follow on.
        epochs: passes over the rows.
        repeats: R.

    Raises:
        UserError: a method that needs exact gradients, with minibatches.
    """

    data: SyntheticRegression

    def __init__(
        self,
        *,
        data: SyntheticRegression,
        model: LpModel,
        method: Solver | Callable[..., Optimizer],
        seed: int,
        epochs: float,
        repeats: int,
    ) -> None:
        super().__init__()
        self.data, self.model, self.seed, self.repeats = data, model, seed, repeats
        self.solver = method if isinstance(method, Solver) else TorchSolver(method)
        if not (data.exact or self.solver.STOCHASTIC):
            raise UserError(
                f"dataset.batch_size={data.batch_size}: method=convex/{self.solver.NAME} needs exact "
                "gradients (valid: null)"
            )
        self.total = max(1, round(epochs * data.m / data.batch_size))
        self.calls = 0
        self.next_look = 0.0
        self.last_gap: float | None = None
        self.reached: list[int | None] = [None] * repeats
        self._resumed: dict[str, Any] | None = None

    def setup(self, stage: str) -> None:
        self.data.setup(stage)

    def train_dataloader(self) -> RoundLoader:
        return RoundLoader()

    def network(self) -> nn.Module:
        return self.model

    @torch.no_grad()
    def on_fit_start(self) -> None:
        """State the problem and find its optimum; start, or go on."""
        rows, targets = self.data.batch("train", slice(None), augment=False)
        assert targets is not None
        # float64, which not every accelerator has, and no matrix here is large enough to need one
        self.problem = LpRegression(rows.cpu(), targets.cpu(), self.model.p)
        start = torch.zeros(self.repeats, self.data.d, dtype=torch.float64)
        self.start_gap = float(self.problem.gap(start[:1]))
        distance = float(torch.linalg.vector_norm(self.problem.minimiser))
        self.sampler = ReplicateSampler(
            self.seed, self.repeats, self.problem.m, torch.device("cpu"), torch.float64
        )
        with torch.enable_grad():
            self.solver.start(start, distance, self.problem.smoothness)
        if self._resumed is not None:
            self._restore(self._resumed)

    @torch.no_grad()
    def training_step(self, batch: int, batch_idx: int) -> None:
        """A round: as many oracle calls as fit in `ROUND_SECONDS`."""
        end = time.perf_counter() + ROUND_SECONDS
        if self.calls == 0:
            self._look()
        while self.calls < self.total:
            self.solver.receive(*self._oracle(self.solver.query))
            self.calls += 1
            if self.calls >= self.next_look or self.calls == self.total:
                self._look()
            if time.perf_counter() > end:
                break
        self.trainer.should_stop = self.calls >= self.total

    def _oracle(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.data.exact:
            return self.problem.oracle(x)
        return self.problem.minibatch(x, self.sampler.indices(self.data.batch_size))

    def _look(self) -> None:
        """Measure the gaps of the outputs; a point of the curve is their mean."""
        gaps = self.problem.gap(self.solver.output)
        gap = float(gaps.mean())
        if not math.isfinite(gap):
            raise NonFinite(step=self.calls, last_finite=self.last_gap, what="gap")
        self.last_gap = gap
        values = {"gap": gap}
        if self.scale is not None:
            values["relative_gap"] = gap / self.scale
            for index, one in enumerate((gaps / self.scale).tolist()):
                if one <= TARGET and self.reached[index] is None:
                    self.reached[index] = self.calls
        self.record(self.calls, **values)
        self.next_look = self.calls * (1 + SPACING)

    @property
    def scale(self) -> float | None:
        """f*, by which gaps are divided; None where it is 0 but for rounding."""
        minimum = self.problem.minimum
        return minimum if minimum > 1e-12 * (self.start_gap + minimum) else None

    def progress(self) -> Progress:
        size = self.data.batch_size / self.data.m
        gap = "" if self.last_gap is None else f"gap {self.last_gap:.4g}"
        return Progress(self.calls * size, self.total * size, "passes", gap)

    @torch.no_grad()
    def results(self) -> dict[str, Any]:
        """What the method came to; means of the replicates.

        Returns:
            gap: f(x) - f* of the output; relative_gap: over f*, None where that is 0; gap_over_start: over
            f(x_0) - f*.
            oracle_calls: calls to a relative gap of 1e-3, the median, None unless all came there.
            gradient_calls: oracle calls made; rows_seen: those of the rows of A.
            minimum: f*; distance: ||x* - x_0||.
        """
        gap = float(self.problem.gap(self.solver.output).mean())
        self.model.x.copy_(self.solver.output[0])
        found = [calls for calls in self.reached if calls is not None]
        return {
            "relative_gap": None if self.scale is None else gap / self.scale,
            "gap": gap,
            "gap_over_start": gap / self.start_gap,
            "oracle_calls": float(median(found)) if len(found) == self.repeats else None,
            "gradient_calls": self.calls,
            "rows_seen": self.calls * self.data.batch_size,
            "minimum": self.problem.minimum,
            "distance": float(torch.linalg.vector_norm(self.problem.minimiser)),
        }

    def search_state(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "next_look": self.next_look,
            "last_gap": self.last_gap,
            "reached": list(self.reached),
            "solver": self.solver.state_dict(),
            "sampler": self.sampler.state_dict(),
        }

    def load_search_state(self, state: dict[str, Any]) -> None:
        """Kept until `on_fit_start`, when there is a method to put it into."""
        self._resumed = state

    def _restore(self, state: dict[str, Any]) -> None:
        self.calls, self.next_look = state["calls"], state["next_look"]
        self.last_gap, self.reached = state["last_gap"], list(state["reached"])
        self.solver.load_state_dict(state["solver"])
        self.sampler.load_state_dict(state["sampler"])
        self._resumed = None
