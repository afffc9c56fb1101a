"""Bayesian optimisation by a maximised acquisition function, as a searcher of the common loop."""

import time
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from common.base.errors import UserError
from common.search.searcher import Observations, Searcher, require_box
from papers.maxacq.acquisition import Acquisition, Setting, setting
from papers.maxacq.budget import Budget
from papers.maxacq.fit import fit
from papers.maxacq.maximise import CMAES, Adam, BoTorchLBFGS, Maximiser, RandomSearch, appraise, best_of
from papers.maxacq.posterior import KERNELS, Posterior, Prior, condition
from papers.maxacq.problem import Form, Problem, discretise, greedy, incremental, joint
from papers.maxacq.standardised import fit_each

MaximiserName = Literal["random", "cma", "adam", "botorch_lbfgs"]
# starts of Adam and L-BFGS, and the population of CMA-ES, for joint problems and for one point
STARTS = {"joint": 64, "greedy": 32}
POPULATION = 64
# the uniform points among which a discretisation is drawn
DISCRETISATION_POOL = 2**12
# of the search for the largest posterior mean
ANSWER_POINTS, ANSWER_STARTS, ANSWER_STEPS = 4096, 16, 60
# evaluations by which the speed of a round is measured
CALIBRATION = 64


class AcquisitionSearch(Searcher):
    """In each round the surrogate is fitted, and q points are chosen by maximising an acquisition function.

    Args:
        acquisition: what is maximised.
        form: `joint`: all q points at once; `greedy`: one after the other; `incremental`: greedy, by the
            incremental form (EI alone).
        maximiser: of the inner problem.
        budget: `evals`: a round may spend `evaluations` values of the acquisition (`papers.maxacq.budget`);
            `seconds`: the time of as many, or `seconds`; such runs cannot be repeated exactly.
        evaluations: N.
        seconds: of a round of one replicate; null: the time that N values take here, by the speed of 64.
        starts: sets to start from (CMA-ES: its population); null: 64, of greedy steps by gradients 32.
        samples: m, of stochastic estimates.
        appraisal_samples: of random search and of final appraisals.
        lr: of Adam.
        sigma: the initial standard deviation of CMA-ES.
        fantasies: states of the incremental form.
        answer: `best_observed`: the point with the largest observation; `posterior_mean`: the point where
            the posterior mean is largest.

    Raises:
        UserError: a value out of range, or parts that do not fit each other.
    """

    NAME: ClassVar = "acquisition"
    PENDING: ClassVar = True

    def __init__(
        self,
        *,
        acquisition: Acquisition,
        form: Form,
        maximiser: MaximiserName,
        budget: Literal["evals", "seconds"],
        evaluations: int,
        seconds: float | None,
        starts: int | None,
        samples: int,
        appraisal_samples: int,
        lr: float,
        sigma: float,
        fantasies: int,
        answer: Literal["best_observed", "posterior_mean"],
    ) -> None:
        counts = {"evaluations": evaluations, "samples": samples, "fantasies": fantasies}
        counts |= {"starts": 1 if starts is None else starts, "appraisal_samples": appraisal_samples}
        for name, count in counts.items():
            _check(name, count, count >= 1, "at least 1")
        for name, value in {"lr": lr, "sigma": sigma}.items():
            _check(name, value, value > 0, "greater than 0")
        _check("seconds", seconds, seconds is None or seconds > 0, "greater than 0, or null")
        if seconds is not None and budget == "evals":
            raise UserError(f"method.seconds={seconds} needs method.budget=seconds")
        if form == "incremental" and acquisition.NAME != "ei":
            raise UserError(
                "method.form=incremental is a form of method=acquisition/ei (valid: joint, greedy)"
            )
        if maximiser == "cma" and starts is not None:
            _check("starts", starts, starts >= 4, "at least 4 with method.maximiser=cma")
        self.acquisition, self.form, self.answer_by = acquisition, form, answer
        self.budget, self.evaluations, self.seconds = budget, evaluations, seconds
        self.fantasies = fantasies
        if starts is None:
            starts = POPULATION if maximiser == "cma" else STARTS["joint" if form == "joint" else "greedy"]
        self.maximiser = _maximiser(maximiser, starts, samples, appraisal_samples, lr, sigma)
        if self.maximiser.GRADIENT and not acquisition.differentiable:
            raise UserError(
                f"method.maximiser={maximiser} needs a gradient: give method.acquisition.tau > 0 "
                "(valid: random, cma)"
            )
        self._fitted: tuple[int, Prior, Tensor] | None = None

    def prepare(self) -> None:
        """Refuse what has no box, or a prior that is not one kernel of all coordinates."""
        space, surrogate = self.task.objective.space, self.task.surrogate
        require_box(self.task, "method=acquisition/...:")
        if surrogate.kernel not in KERNELS:
            raise UserError(
                f"model.kernel={surrogate.kernel}: method=acquisition/... takes {', '.join(KERNELS)}"
            )
        if surrogate.parts != [list(range(space.dim))]:
            raise UserError("model.groups: method=acquisition/... takes full")
        self.lower, self.width = space.lower, space.upper - space.lower
        self.prior = self._given_prior()
        self._fitted = None

    def _given_prior(self) -> Prior:
        """What model and objective say, in units of the cube, for every replicate.

        Before a fit lengthscales and variance are 1 where nothing is given, and the mean is 0.
        """
        surrogate, objective = self.task.surrogate, self.task.objective
        fitted = surrogate.fit != "fixed"
        R = self.task.replicates

        def known(name: str, given: Any, otherwise: float | None) -> Tensor:
            value = given
            if value is None:
                value = otherwise if fitted else getattr(objective, name, None)
            if value is None:
                raise UserError(
                    f"dataset={objective.NAME} does not say its {name}: give model.{name} or model.fit=map"
                )
            return torch.as_tensor(value, dtype=torch.float64, device=self.task.device)

        noise = known("noise", surrogate.noise, objective.noise)
        return Prior(
            "matern52" if surrogate.kernel == "matern52" else "se",
            (known("lengthscale", surrogate.lengthscale, 1.0) / self.width).expand(R, -1),
            known("variance", surrogate.variance, 1.0).expand(R),
            known("mean", surrogate.mean, 0.0).expand(R),
            noise.square().expand(R),
        )

    def posterior(self, seen: Observations) -> Posterior:
        """The belief given all valid observations, fitted if the model says so."""
        x = (seen.x - self.lower) / self.width
        if self._fitted is None or self._fitted[0] != seen.count:
            self._fitted = (seen.count, *self._fit(x, seen.y))
        return condition(self._fitted[1], x, self._fitted[2])

    def _fit(self, x: Tensor, y: Tensor) -> tuple[Prior, Tensor]:
        """The prior as the model says, and the values of which it is one."""
        how = self.task.surrogate.fit
        if how == "standardised":
            return fit_each(self.prior, x, y)
        return self.prior if how == "fixed" else fit(self.prior, x, y, how == "map"), y

    def propose(self, seen: Observations, q: int) -> Tensor:
        problem = self.problem(seen, q)
        budget = self._budget(problem)
        if self.form == "joint":
            x = joint(problem, self.maximiser, budget)
        elif self.form == "greedy":
            x = greedy(problem, self.maximiser, budget)
        else:
            pending = seen.x[:, :0] if seen.pending is None else (seen.pending - self.lower) / self.width
            x = incremental(problem, self.maximiser, budget, self.fantasies, pending)
        return self.lower + x * self.width

    def _setting(self, posterior: Posterior, seen: Observations) -> Setting:
        """With alpha, the largest observation (the prior's mean before there is any)."""
        valid = torch.where(seen.valid, seen.y, torch.full_like(seen.y, -torch.inf))
        floor = torch.full_like(posterior.prior.mean, -torch.inf)[:, None]
        most = torch.cat([floor, valid], 1).max(1).values
        given = setting(posterior, torch.where(most.isfinite(), most, posterior.prior.mean))
        count = self.acquisition.discretisation
        if not count:
            return given
        dim = self.task.objective.space.dim
        b = discretise(given, count, DISCRETISATION_POOL, dim, self.task.random)
        return Setting(posterior, posterior, given.incumbent, given.pending, b)

    def problem(self, seen: Observations, q: int) -> Problem:
        """The inner problem of the next q points, given those that are under way."""
        given = self._setting(self.posterior(seen), seen)
        if seen.pending is not None and self.form != "incremental":
            for x in ((seen.pending - self.lower) / self.width).unbind(1):
                given = given.with_pending(x)
        return Problem(self.acquisition, given, q, q, self.task.objective.space.dim, self.task.random)

    def _budget(self, problem: Problem) -> Budget:
        if self.budget == "evals":
            return Budget(evaluations=self.evaluations)
        if self.seconds is not None:
            return Budget(seconds=self.seconds * problem.replicates)
        return Budget(seconds=self._seconds(problem, CALIBRATION) * self.evaluations / CALIBRATION)

    def _seconds(self, problem: Problem, sets: int) -> float:
        """What the values of some sets take."""
        X = SobolEngine(problem.points * problem.dim).draw(sets, dtype=torch.float64).to(problem.device)
        X = X.reshape(sets, problem.points, problem.dim).expand(problem.replicates, -1, -1, -1)
        began = time.perf_counter()
        appraise(problem, X, problem.draw(Budget.SAMPLES), Budget.SAMPLES)
        return time.perf_counter() - began

    def answer(self, seen: Observations) -> Tensor:
        """The points that it would recommend now, [R, d]."""
        if self.answer_by == "best_observed":
            return seen.best()
        posterior = self.posterior(seen)
        grid = SobolEngine(len(self.lower)).draw(ANSWER_POINTS, dtype=torch.float64).to(seen.x)
        observed = (seen.x - self.lower) / self.width
        x = torch.cat([observed, grid.expand(len(observed), -1, -1)], 1)
        best = posterior.marginal(x)[0].topk(min(ANSWER_STARTS, x.shape[1]), 1).indices
        x = x.gather(1, best[..., None].expand(-1, -1, x.shape[2])).requires_grad_()
        optimizer = torch.optim.Adam([x], lr=0.02, maximize=True)
        for _ in range(ANSWER_STEPS):
            value = posterior.marginal(x)[0] / posterior.prior.variance.sqrt()[:, None]
            (x.grad,) = torch.autograd.grad(value.sum(), x)
            optimizer.step()
            with torch.no_grad():
                x.clamp_(0.0, 1.0)
        x = x.detach()
        return self.lower + best_of(x, posterior.marginal(x)[0]) * self.width


def _maximiser(
    name: MaximiserName, starts: int, samples: int, appraisal_samples: int, lr: float, sigma: float
) -> Maximiser:
    common = {"starts": starts, "samples": samples, "appraisal_samples": appraisal_samples}
    if name == "random":
        return RandomSearch(**common)
    if name == "cma":
        return CMAES(**common, sigma=sigma)
    return Adam(**common, lr=lr) if name == "adam" else BoTorchLBFGS(**common)


def _check(key: str, value: object, valid: bool, words: str) -> None:
    if not valid:
        raise UserError(f"method.{key}={value}; valid: {words}")
