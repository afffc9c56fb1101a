"""Escaping saddles as a LightningModule: many iterations a training step, each held against its promise."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from common.base.errors import UserError
from common.base.loader import RoundLoader
from common.base.module import PaperModule, Progress
from common.training.finite import NonFinite
from papers.saddle.choice import make_oracle
from papers.saddle.method import Method, Programme, Step
from papers.saddle.oracles import Answer, Tangent
from papers.saddle.pictures import draw
from papers.saddle.problems import Array, Quadratic, SaddleProblem
from papers.saddle.sets import ConstraintSet

# seconds of iterations in one training step: Lightning's own 1-2 ms vanish beside it
ROUND_SECONDS = 0.15
# points of the curves are never closer than this fraction of the iterations made
RELATIVE_SPACING = 0.02
PICTURE = "picture.svg"


class SaddleModule(PaperModule):
    """Minimises a problem over a set until the method returns a point, or its iterations are spent.

    Args:
        data, model: the problem and the set.
        method: a `Method` (framework.py, baselines.py).
        seed: of everything random.
        eps, gamma: of the second-order point by which every method's last point is judged.
        max_iterations: the budget.
        start: null for the problem's own, a name ("blind_spot") or a point of the set.
        start_offset: the start is moved by this length along a direction of the seed (and projected).
        L, M, D: constants in place of the problem's and the set's, > 0; null for these.

    Raises:
        UserError: a value out of range, a set that the problem does not have, a start outside of the set.
    """

    data: SaddleProblem

    def __init__(
        self,
        *,
        data: SaddleProblem,
        model: ConstraintSet,
        method: Method,
        seed: int,
        eps: float,
        gamma: float,
        max_iterations: int,
        start: str | list[float] | None,
        start_offset: float,
        L: float | None,
        M: float | None,
        D: float | None,
    ) -> None:
        super().__init__()
        _check("eps", eps, eps > 0, "a number > 0")
        _check("gamma", gamma, gamma > 0, "a number > 0")
        _check("max_iterations", max_iterations, max_iterations >= 1, "at least 1")
        for name, value in {"L": L, "M": M, "D": D}.items():
            _check(name, value, value is None or value > 0, "a number > 0, or null for the problem's own")
        if model.name not in data.SETS:
            raise UserError(
                f"dataset={data.NAME} makes no sense over model={model.name} (valid: {', '.join(data.SETS)})"
            )
        own_L, own_M = data.lipschitz(model)
        self.data, self.region, self.method, self.seed = data, model, method, seed
        self.eps, self.gamma, self.max_iterations = eps, gamma, max_iterations
        self.programme = Programme(
            data, model, own_L if L is None else L, own_M if M is None else M, D or model.diameter
        )
        self.x0 = self._start(start, start_offset)
        self.f0 = data.value(self.x0)
        method.start(self.programme, self.x0, seed)
        self.counts: dict[str, int] = {"first": 0, "second": 0, "random": 0, "calls": 0, "failures": 0}
        self.least: dict[str, float] = {}
        self.oracle_seconds = 0.0
        self.gap = float("nan")
        self.stop: dict[str, float] = {}
        self.next_point = 0.0

    def _start(self, start: str | list[float] | None, offset: float) -> Array:
        data, region = self.data, self.region
        if isinstance(start, str):
            named = data.starts(region)
            if start not in named:
                raise UserError(
                    f"paper.start={start}; valid: null, a point, {', '.join(named) or 'no names here'}"
                )
            x = named[start]
        else:
            x = data.start() if start is None else np.array(start, dtype=np.float64)
        if x.shape != (data.dim,):
            raise UserError(f"paper.start has {x.size} numbers; valid: {data.dim} numbers, or null")
        if not region.contains(x):
            raise UserError(
                f"paper.start={'null' if start is None else start}: infeasible, outside of the {region.name} "
                f"by {region.excess(x):.3g}"
            )
        if offset:
            way = np.random.default_rng(self.seed).standard_normal(data.dim)
            x = region.project(x + offset * way / float(np.linalg.norm(way)))
        return x

    def train_dataloader(self) -> RoundLoader:
        return RoundLoader()

    @property
    def done(self) -> bool:
        return self.method.stopped or self.method.k >= self.max_iterations

    def training_step(self, batch: int, batch_idx: int) -> None:
        """A round: as many iterations as fit in `ROUND_SECONDS`."""
        end = time.perf_counter() + ROUND_SECONDS
        while not self.done:
            before = self.method.k
            if before >= self.next_point:
                self._record(before)
                self.next_point = before + max(1.0, RELATIVE_SPACING * before)
            self._note(self.method.step())
            if time.perf_counter() > end:
                break
        value = self.data.value(self.method.x)
        if not np.isfinite(value):
            raise NonFinite(step=self.method.k, last_finite=None)
        if self.done:
            self.trainer.should_stop = True

    def _note(self, step: Step) -> None:
        """Count what a step did, and hold its fall of f against what was promised."""
        self.gap = step.gap
        if step.kind != "stop":
            self.counts[step.kind] += 1
        if step.answer is not None:
            self.counts["calls"] += 1
            self.counts["failures"] += bool(step.answer.failed)
            if step.answer.failed and self.counts["failures"] == 1:
                print(f"[saddle] {step.answer.failed}: lambda_min(H) D^2 is the certificate in its place")
            self.oracle_seconds += step.answer.seconds
            # where the bound is above -gamma it is a certificate, whatever rho is
            if step.answer.lower < -self.gamma:
                self._least("rho", step.answer.rho)
            if step.kind == "stop":
                self.stop = {"value": step.answer.value, "lower": step.answer.lower}
        if step.guaranteed is not None and self.method.promises:
            ratio = step.fall / step.guaranteed
            self._least("ratio", ratio)
            self._least(step.kind, ratio)

    def _least(self, name: str, value: float) -> None:
        self.least[name] = min(value, self.least.get(name, value))

    def _record(self, step: int) -> None:
        x = self.method.x
        values = {"f": self.data.value(x), "fw_gap": self.programme.gap(x, self.data.gradient(x))[0]}
        if self.data.dim == 2:
            values |= {"x1": float(x[0]), "x2": float(x[1])}
        self.record(step, **values)

    def on_train_end(self) -> None:
        """The last point of the curves, and the picture of a problem in the plane."""
        if not self.done:
            return
        if self.history.get("step", [None])[-1] != self.method.k:
            self._record(self.method.k)
        if self.data.dim == 2:
            path = Path(self.trainer.default_root_dir) / PICTURE
            path.write_text(draw(self.programme, self.history, type(self.method).__name__))

    def progress(self) -> Progress:
        text = f"f {self.data.value(self.method.x):.6g}, G {self.gap:.3g}"
        stages = f"stages {self.counts['first']} + {self.counts['second']}"
        return Progress(self.method.k, self.max_iterations, "iterations", f"{text}, {stages}")

    def results(self) -> dict[str, Any]:
        """Counts, the last point, its certificate, and the theory's numbers.

        Returns:
            f_final, fw_gap: f and G at the last point; x_final: where it is.
            gap: f_final - f_known; f_known: the least value over the set, or where that is not known and f is
            quadratic a lower bound of it.
            qp_value, qp_lower_bound: q and its lower bound at the last point, with grad'(u - x) <= 0;
            certified: 1 where G <= eps and the bound >= -gamma, which proves an (eps, gamma)-second-order
            point. stop_qp_*: the same as the method itself saw when it stopped.
            returned: 1 where the method stopped by itself, 0 where the iterations were spent.
            first_order_steps, second_order_steps, random_steps, iterations; iteration_bound, and
            iterations_over_bound, where there is a theory.
            decrease_ratio: the least fall of f over the promised one, of all steps; *_first, *_second by
            stage. rho_worst: the worst measured quality of an answer whose lower bound is below -gamma (of
            others it does not matter); oracle_calls, oracle_seconds, solver_failures.
            smoothness, hessian_lipschitz, diameter: L, M, D.
        """
        x, programme = self.method.x, self.programme
        g = self.data.gradient(x)
        value, gap = self.data.value(x), programme.gap(x, g)[0]
        known = self._known()
        answer = self._ask(x, Tangent("leq", g))
        certified = gap <= self.eps and answer.lower >= -self.gamma
        bound = None if known is None else self.method.iteration_bound(self.f0 - known)
        return {
            "f_final": value,
            "f_start": self.f0,
            "f_known": known,
            "gap": None if known is None else value - known,
            "fw_gap": gap,
            "qp_value": answer.value,
            "qp_lower_bound": answer.lower,
            "certified": float(certified),
            "returned": float(self.method.stopped),
            "stop_qp_value": self.stop.get("value"),
            "stop_qp_lower_bound": self.stop.get("lower"),
            "first_order_steps": self.counts["first"],
            "second_order_steps": self.counts["second"],
            "random_steps": self.counts["random"],
            "iterations": self.method.k,
            "iteration_bound": bound,
            "iterations_over_bound": self.method.k / bound if bound else None,
            "decrease_ratio": self.least.get("ratio"),
            "decrease_ratio_first": self.least.get("first"),
            "decrease_ratio_second": self.least.get("second"),
            "rho_worst": self.least.get("rho"),
            "oracle_calls": self.counts["calls"],
            "oracle_seconds": round(self.oracle_seconds, 4),
            "solver_failures": self.counts["failures"],
            "smoothness": programme.L,
            "hessian_lipschitz": programme.M,
            "diameter": programme.D,
            "distance_to_saddle": float(np.linalg.norm(x - self.data.saddle)),
            "x_final": x.tolist(),
        }

    def _ask(self, x: Array, tangent: Tangent) -> Answer:
        return make_oracle("auto", self.region, self.seed)(self.data.hessian(x), x, tangent)

    def _known(self) -> float | None:
        known = self.data.minimum(self.region)
        origin = np.zeros(self.data.dim)
        if known is None and isinstance(self.data, Quadratic) and self.region.contains(origin):
            known = self._ask(origin, Tangent("none", origin)).lower / 2
        return known

    def search_state(self) -> dict[str, Any]:
        return {
            "method": self.method.state_dict(),
            "counts": dict(self.counts),
            "least": dict(self.least),
            "stop": dict(self.stop),
            "oracle_seconds": self.oracle_seconds,
            "gap": self.gap,
            "next_point": self.next_point,
        }

    def load_search_state(self, state: dict[str, Any]) -> None:
        self.method.load_state_dict(state["method"])
        self.counts, self.least, self.stop = state["counts"], state["least"], state["stop"]
        self.oracle_seconds, self.gap = state["oracle_seconds"], state["gap"]
        self.next_point = state["next_point"]


def _check(key: str, value: object, valid: bool, advice: str) -> None:
    if not valid:
        raise UserError(f"paper.{key}={value}; valid: {advice}")
