"""SPIDER as a LightningModule: a batch of replicates, one oracle, counted calls, first hitting times."""

import time
from collections.abc import Callable
from statistics import mean, median
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.loader import RoundLoader
from common.base.module import PaperModule, Progress
from common.numerics.sampling import ReplicateSampler
from common.training.finite import NonFinite
from papers.spider.measure import check_age, estimator_error, least_curvature
from papers.spider.method import Method
from papers.spider.problems.factory import build_problem
from papers.spider.problems.network import NetworkProblem
from papers.spider.problems.protocol import Oracle
from papers.spider.torch_method import TorchMethod

# seconds of method steps in one training step: Lightning's own 1-2 ms vanish beside it
ROUND_SECONDS = 0.15
# checks are never closer than this fraction of the calls made, so a run has a few hundred at most
RELATIVE_SPACING = 0.02


class SpiderModule(PaperModule):
    """Runs a variance-reduced method, or any torch optimizer, until a gradient norm or a budget is reached.

    Gradient calls are counted by the oracle. The true gradient, by which a first hit is judged, is not.

    Args:
        data, model: the problem (see `papers.spider.problems.factory`).
        method: a `Method`, or a torch optimizer that only lacks its parameters (it then sees minibatches
            of `data.batch_size`).
        seed: of the first replicate; the others follow on.
        repeats: replicates run at once, with seeds seed, seed + 1, ...; networks take 1.
        eps: a replicate has hit when ||grad f(x_k)|| <= eps.
        until: "first_hit": a replicate ends at its first hit; "theory": by the method's own rule;
            "budget": when the budget is spent. The budget ends all three. "estimate": all end when their
            estimates of the gradient are `estimator_age` steps old, whatever the budget.
        passes: the budget of a finite sum in gradient calls / n.
        max_calls: the budget in calls (of gradients and values together); null: `passes` alone. Streams,
            which have no n, need it.
        check_every_passes: calls / n (on a stream: / 1,000) from one check of the true gradient to the
            next; grows to 2% of the calls made. Null: no checks.
        start_offset: x_0 is the problem's own start plus this times (1, ..., 1) / sqrt d.
        estimator_age: with until="estimate" alone: the steps since the first checkpoint at which the error
            of the method's estimate is measured.
        measure_curvature: whether the least eigenvalue of the Hessian at the returned point is computed,
            from d uncounted Hessian-vector products.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        *,
        data: DataSet,
        model: nn.Module,
        method: Method | Callable[[list[nn.Parameter]], Optimizer],
        seed: int,
        repeats: int,
        eps: float,
        until: Literal["first_hit", "budget", "theory", "estimate"],
        passes: float,
        max_calls: int | None,
        check_every_passes: float | None,
        start_offset: float,
        estimator_age: int | None,
        measure_curvature: bool,
    ) -> None:
        super().__init__()
        _check("repeats", repeats, repeats >= 1, "at least 1")
        _check("eps", eps, eps > 0, "a number > 0")
        _check("passes", passes, passes > 0, "a number > 0")
        _check("max_calls", max_calls, max_calls is None or max_calls >= 1, "at least 1, or null")
        spacing = check_every_passes
        _check("check_every_passes", spacing, spacing is None or spacing > 0, "a number > 0, or null")
        needs_checks = until == "first_hit" and check_every_passes is None
        _check("check_every_passes", None, not needs_checks, "a number > 0 with paper.until=first_hit")
        _check("estimator_age", estimator_age, estimator_age is None or estimator_age >= 0, "at least 0")
        fits = (until == "estimate") == (estimator_age is not None)
        _check("estimator_age", estimator_age, fits, "a number with paper.until=estimate, else null")
        self.data, self.model = data, model
        self.method = method if isinstance(method, Method) else TorchMethod(method, data.batch_size)
        self.seed, self.repeats, self.eps, self.until = seed, repeats, eps, until
        self.passes, self.max_calls, self.check_every_passes = passes, max_calls, check_every_passes
        self.start_offset, self.measure_curvature = start_offset, measure_curvature
        self.estimator_age = estimator_age
        self.hits: list[int | None] = [None] * repeats
        self.next_check = 0.0
        self.loss = self.grad_norm = float("nan")
        self._resumed: dict[str, Any] | None = None

    def setup(self, stage: str) -> None:
        self.data.setup()

    def train_dataloader(self) -> RoundLoader:
        return RoundLoader()

    def on_fit_start(self) -> None:
        """Build the problem on the device, and start or go on."""
        problem = build_problem(self.data, self.model, self.device)
        if problem.n is None and self.max_calls is None:
            raise UserError("paper.max_calls=null: a stream has no passes (valid: a number of calls)")
        sampler = ReplicateSampler(self.seed, self.repeats, problem.n, problem.device, problem.dtype)
        self.oracle = Oracle(problem, sampler)
        with torch.no_grad():
            x0 = problem.start(self.repeats) + self.start_offset / problem.dim**0.5
            self.method.start(self.oracle, x0, self.until == "theory")
        if self.estimator_age is not None:
            check_age(self.method, self.estimator_age)
        if self.measure_curvature:
            # refused now, not after the run, where the problem has no known rho
            self.method.constant("hessian_lipschitz")
        if self._resumed is not None:
            self._restore(self._resumed)

    @property
    def budget(self) -> float:
        """In calls."""
        limits = [] if self.max_calls is None else [float(self.max_calls)]
        if self.oracle.problem.n is not None:
            limits.append(self.passes * self.oracle.problem.n)
        return min(limits)

    @property
    def calls(self) -> int:
        """Calls of the busiest replicate."""
        return max(self.oracle.counter.calls)

    @property
    def done(self) -> bool:
        if self.estimator_age is not None:
            return self.method.k > self.estimator_age
        return self.calls >= self.budget or not self.oracle.active_rows

    @torch.no_grad()
    def training_step(self, batch: int, batch_idx: int) -> None:
        """A round: as many steps of the method as fit in `ROUND_SECONDS`, each followed by its check."""
        if self.calls == 0 and not self.done:
            self._check_point()
        end = time.perf_counter() + ROUND_SECONDS
        while not self.done:
            self.method.step()
            if self.calls >= self.next_check or self.done:
                self._check_point()
            if time.perf_counter() > end:
                break
        self._check_finite(self.method.x)
        if self.done:
            self.trainer.should_stop = True

    def _check_point(self) -> None:
        """Judge the iterates by their true gradients, or a network by its last minibatches."""
        problem, calls = self.oracle.problem, self.calls
        if self.check_every_passes is None:
            spacing = self.budget / 200
            self._check_finite(self.method.x)
        else:
            spacing = self.check_every_passes * problem.pass_size
            norms = torch.linalg.vector_norm(problem.true_gradient(self.method.x), dim=1)
            self._check_finite(norms)
            self._note_hits(norms.cpu() <= self.eps)
            self.grad_norm = float(norms.mean())
        self._record()
        self.next_check = calls + max(spacing, RELATIVE_SPACING * calls)

    def _record(self) -> None:
        problem = self.oracle.problem
        values = {} if self.check_every_passes is None else {"grad_norm": self.grad_norm}
        if isinstance(problem, NetworkProblem) and self.check_every_passes is None:
            self.loss = problem.recent_loss
        else:
            self.loss = float(problem.true_value(self.method.x).mean())
        if self.loss == self.loss:
            values["loss"] = self.loss
        if values:
            self.record(mean(self.oracle.counter.calls), **values)

    def _note_hits(self, hit: Tensor) -> None:
        for r, (now, calls) in enumerate(zip(hit.tolist(), self.oracle.counter.calls, strict=True)):
            if now and self.hits[r] is None and self.oracle.active[r]:
                self.hits[r] = calls
        if self.until == "first_hit":
            self.oracle.retire(hit)

    def _check_finite(self, values: Tensor) -> None:
        if not bool(torch.isfinite(values).all()):
            last = self.loss if self.loss == self.loss else None
            raise NonFinite(step=self.method.k, last_finite=last)

    def progress(self) -> Progress:
        if self.estimator_age is not None:
            return Progress(self.method.k, self.estimator_age + 1, "steps", f"loss {self.loss:.4g}")
        n = self.oracle.problem.n
        unit, size = ("passes", n) if n is not None else ("calls", 1)
        shown = {"loss": self.loss, "gradient norm": self.grad_norm}
        text = ", ".join(f"{name} {value:.4g}" for name, value in shown.items() if value == value)
        if self.until == "first_hit":
            text += f" (until {self.eps:g}: {sum(h is not None for h in self.hits)} of {self.repeats} there)"
        return Progress(self.calls / size, self.budget / size, unit, text)

    @torch.no_grad()
    def results(self) -> dict[str, Any]:
        """Calls, first hits, the last iterate, and the theory's numbers.

        Returns:
            gradient_calls, function_calls: mean of the replicates.
            reached: the fraction of them that hit; hits: calls at the first hit of each, or None.
            calls_to_eps: median calls to the hit, None unless all hit; the same as ifo_over_n (finite
            sum, over n) and sfo_calls (stream).
            f_final, grad_norm_final, grad_norm_returned: means; of the last iterate and of the returned one.
            estimator_*: with until="estimate", see `measure.estimator_error`.
            lambda_min, curvature_allowed: with measure_curvature, the least curvature at the points
            returned, and -sqrt(rho eps), what a second-order point may have.
            theory_*: see the method. Accuracies, and losses of networks, where there are splits for them.
        """
        problem, counter = self.oracle.problem, self.oracle.counter
        results: dict[str, Any] = {
            "gradient_calls": float(mean(counter.ifo)),
            "function_calls": float(mean(counter.izo)),
            "steps": self.method.k,
        }
        if self.check_every_passes is not None:
            results |= self._hit_results()
            results |= self._stationarity()
        elif isinstance(problem, NetworkProblem):
            results["train_loss"] = float(problem.true_value(self.method.x))
        if self.estimator_age is not None:
            results |= estimator_error(problem, self.method)
        if self.measure_curvature:
            results |= self._curvature()
        results |= self.method.theory()
        scores = problem.evaluate(self.method.x)
        return results | {name: float(score.double().mean()) for name, score in scores.items()}

    def _hit_results(self) -> dict[str, Any]:
        n = self.oracle.problem.n
        found = [hit for hit in self.hits if hit is not None]
        middle = float(median(found)) if len(found) == self.repeats else None
        hits: dict[str, Any] = {"reached": len(found) / self.repeats, "hits": list(self.hits)}
        hits["calls_to_eps"] = middle
        if n is None:
            return hits | {"sfo_calls": middle}
        return hits | {"n": n, "ifo_over_n": None if middle is None else middle / n}

    def _stationarity(self) -> dict[str, float]:
        problem = self.oracle.problem

        def norm(x: Tensor) -> float:
            return float(torch.linalg.vector_norm(problem.true_gradient(x), dim=1).mean())

        return {
            "f_final": float(problem.true_value(self.method.x).mean()),
            "grad_norm_final": norm(self.method.x),
            "grad_norm_returned": norm(self.method.returned),
        }

    def _curvature(self) -> dict[str, float]:
        rho = self.method.constant("hessian_lipschitz")
        return {
            "lambda_min": least_curvature(self.oracle.problem, self.method.returned),
            "curvature_allowed": -((rho * self.eps) ** 0.5),
        }

    def search_state(self) -> dict[str, Any]:
        return {
            "oracle": self.oracle.state_dict(),
            "method": self.method.state_dict(),
            "hits": list(self.hits),
            "next_check": self.next_check,
            "loss": self.loss,
            "grad_norm": self.grad_norm,
        }

    def load_search_state(self, state: dict[str, Any]) -> None:
        """Kept until `on_fit_start`, when there is an oracle to put it into."""
        self._resumed = state

    def _restore(self, state: dict[str, Any]) -> None:
        self.oracle.load_state_dict(state["oracle"])
        self.method.load_state_dict(state["method"])
        self.hits, self.next_check = list(state["hits"]), state["next_check"]
        self.loss, self.grad_norm = state["loss"], state["grad_norm"]
        self._resumed = None


def _check(key: str, value: object, valid: bool, advice: str) -> None:
    if not valid:
        raise UserError(f"paper.{key}={'null' if value is None else value}; valid: {advice}")
