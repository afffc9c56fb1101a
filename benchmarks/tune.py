"""The practical searcher beside BoTorch's default loop, Optuna's TPE and random search: regrets over seeds.

    python -m benchmarks.tune [seeds=20] [budget=50]       search what is missing, then write tune.md
    make bench-tune

Problems: Hartmann-6, plain and in three other units; Branin; bowls in d = 4 and 6 with a centre of each seed;
500 real trainings on digits (`benchmarks.tune_table`). All but random search begin with the same 2 (d + 1)
scrambled Sobol points of the seed. Each search is kept in tune_results.json as soon as it has ended, seed by
seed, so that the command can be stopped at any time. The peers are searched on the plain Hartmann-6 alone:
BoTorch standardises values, TPE ranks them, random search does not look at them.

Regret is the optimum minus the best value so far, in units of the plain function. Two searchers are compared
by the mean over seeds of log10 of the ratio of their regrets, paired by seed, with its 95% t interval.
"""

import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from botorch.test_functions import Branin, Hartmann
from scipy import stats
from torch import Tensor
from torch.quasirandom import SobolEngine

from benchmarks import tune_table
from common.base.objective import Coordinate, Objective, Space
from common.numerics.sampling import ReplicateSampler
from common.runs.environment import environment
from common.search.peers import TPESearch
from common.search.searcher import Observations, RandomSearch, Searcher, Task
from common.search.surrogate import Surrogate
from papers.maxacq.practical import PracticalSearch

CPU = torch.device("cpu")
RESULTS = Path(__file__).with_name("tune_results.json")
REPORT = Path(__file__).with_name("tune.md")
LOOKS = (20, 50)
# a regret below it is none, where values differ by about 1
LEAST = 1e-6


class Problem(Objective):
    """A function on the unit cube, to be large.

    Args:
        name: of it.
        function: [n, d] -> [n].
        best: its largest value.
        least: a regret below it is none.
        coordinates: what each coordinate means.
        factor, shift: the units that a searcher sees: factor f + shift.
    """

    NAME: ClassVar = "problem"

    def __init__(
        self,
        name: str,
        function: Callable[[Tensor], Tensor],
        best: float,
        least: float,
        coordinates: tuple[Coordinate, ...],
        factor: float = 1.0,
        shift: float = 0.0,
    ) -> None:
        zero = torch.zeros(len(coordinates), dtype=torch.float64)
        super().__init__(kind="objective", space=Space(zero, zero + 1, None, coordinates), noise=0.0)
        self.name, self.function, self.best, self.least = name, function, best, least
        self.factor, self.shift = factor, shift

    def draw(self, seeds: list[int]) -> None:
        self.seeds = seeds

    def values(self, x: Tensor) -> Tensor:
        return self.factor * torch.stack([self.function(one) for one in x]) + self.shift

    def optimum(self) -> None:
        return None

    def regret(self, y: Tensor) -> float:
        """Of values y [n] as a searcher sees them."""
        known = y[y.isfinite()]
        return self.best - float((known.max() - self.shift) / self.factor) if len(known) else math.inf


def problems(seed: int) -> list[Problem]:
    """All of them, for a seed."""
    hartmann, branin = Hartmann(dim=6, negate=True), Branin(negate=True)
    lower, upper = branin.bounds.to(torch.float64)
    units = {"": (1.0, 0.0), " - 100": (1.0, -100.0), " * 1e-5": (1e-5, 0.0), " * 0.1 - 2.3": (0.1, -2.3)}
    found = [
        Problem(f"hartmann6{name}", hartmann, 3.32237, LEAST, (Coordinate(),) * 6, *unit)
        for name, unit in units.items()
    ]
    found.append(
        Problem(
            "branin",
            lambda x: branin(lower + x * (upper - lower)),
            -0.397887,
            50 * LEAST,
            (Coordinate(),) * 2,
        )
    )
    for dim in (4, 6):
        centre = torch.rand(dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        found.append(Problem(f"bowl{dim}", _bowl(0.2 + 0.6 * centre), 0.0, LEAST, (Coordinate(),) * dim))
    return [*found, trainings()]


def _bowl(centre: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: -(x - centre).square().sum(-1)


def trainings() -> Problem:
    """The table of trainings: minus the validation loss; the optimizer is a choice, all else is ordered."""
    table = tune_table.read()
    sizes = [len(values) for values in table["settings"].values()]
    losses = [math.nan if v is None else v for v in table["metrics"]["validation_loss"]]
    f = -torch.tensor(losses, dtype=torch.float64).reshape(sizes)
    coordinates = tuple(
        Coordinate(tuple((i + 0.5) / size for i in range(size)), ordered=key != "method")
        for key, size in zip(table["settings"], sizes, strict=True)
    )

    def look_up(x: Tensor) -> Tensor:
        return f[tuple(one.level(x[:, i]) for i, one in enumerate(coordinates))]

    best = f[f.isfinite()].topk(2).values
    return Problem("500 trainings", look_up, float(best[0]), float(best[0] - best[1]), coordinates)


# searchers


def by(searcher: Callable[[], Searcher]) -> Callable[[Problem, int, int], Tensor]:
    """A searcher of the project as a function of problem, seed and budget that gives its values [T]."""

    def search(problem: Problem, seed: int, budget: int) -> Tensor:
        made, dim = searcher(), problem.space.dim
        surrogate = Surrogate(
            shape=(dim,), classes=None, kernel="matern52", lengthscale=None, variance=None, noise=None,
            mean=None, groups="full", scale_groups="mean", fit="standardised",
        )  # fmt: skip
        random = ReplicateSampler(seed, 1, None, CPU, torch.float64)
        made.start(Task(problem, surrogate, [seed], budget, random, CPU))
        x = design(problem, seed)[: 0 if isinstance(made, RandomSearch) else None]
        seen = Observations(x[None], problem.values(x[None]))
        while seen.count < budget:
            x = problem.space.snapped(made.propose(seen, 1))
            seen = seen.plus(x, problem.values(x))
        return seen.y[0]

    return search


def design(problem: Problem, seed: int) -> Tensor:
    """The first points of a seed, [2 (d + 1), d]."""
    dim = problem.space.dim
    x = SobolEngine(dim, scramble=True, seed=seed).draw(2 * (dim + 1), dtype=torch.float64)
    return problem.space.snapped(x)


def botorch_default(problem: Problem, seed: int, budget: int) -> Tensor:
    """SingleTaskGP and qLogEI with BoTorch's defaults; of a finite space the best point that is left."""
    from botorch.acquisition import qLogExpectedImprovement
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.optim import optimize_acqf, optimize_acqf_discrete
    from gpytorch.mlls import ExactMarginalLogLikelihood

    torch.manual_seed(seed)
    dim = problem.space.dim
    bounds = torch.stack([problem.space.lower, problem.space.upper])
    left = every_point(problem)
    x = design(problem, seed)
    y = problem.values(x[None])[0]
    while len(y) < budget:
        ok = y.isfinite()
        model = SingleTaskGP(_features(problem, x[ok]), y[ok, None])
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        acquisition = qLogExpectedImprovement(model, best_f=y[ok].max())
        if left is None:
            new, _ = optimize_acqf(acquisition, bounds, q=1, num_restarts=10, raw_samples=512)
        else:
            left = left[~(left[:, None] == x).all(-1).any(1)]
            features = _features(problem, left)
            best, _ = optimize_acqf_discrete(acquisition, q=1, choices=features)
            new = left[(features == best).all(-1)][:1]
        x = torch.cat([x, new.reshape(1, dim)])
        y = torch.cat([y, problem.values(new.reshape(1, 1, dim))[0]])
    return y


def every_point(problem: Problem) -> Tensor | None:
    """All points of a finite space, [n, d]."""
    values = [one.values for one in problem.space.coordinates or ()]
    if any(one is None for one in values):
        return None
    return torch.cartesian_prod(
        *(torch.tensor(one, dtype=torch.float64) for one in values if one is not None)
    )


def _features(problem: Problem, x: Tensor) -> Tensor:
    """Points with the choices as columns of their own, for a kernel that knows no choices."""
    columns: list[Tensor] = []
    for i, one in enumerate(problem.space.coordinates or ()):
        if one.ordered or one.levels is None:
            columns.append(x[:, i : i + 1])
        else:
            columns.append(torch.nn.functional.one_hot(one.level(x[:, i]), one.levels).to(x))
    return torch.cat(columns, -1)


SEARCHERS: dict[str, Callable[[Problem, int, int], Tensor]] = {
    "ours": by(PracticalSearch),
    "random": by(RandomSearch),
    "tpe": by(TPESearch),
    "botorch": botorch_default,
}


# results


@dataclass(frozen=True)
class Kept:
    """What was searched: regrets after each look by `problem|searcher|seed`, and seconds of proposals."""

    regrets: dict[str, list[float]]
    circumstances: dict[str, Any]

    @classmethod
    def read(cls) -> "Kept":
        """What is in the file."""
        found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        return cls(found.get("regrets", {}), found.get("circumstances", {}))

    def write(self) -> None:
        """Keep it."""
        content = {"circumstances": self.circumstances, "regrets": self.regrets}
        RESULTS.write_text(json.dumps(content, indent=0) + "\n")

    def paired(self, first: tuple[str, str], second: tuple[str, str], look: int) -> list[tuple[float, float]]:
        """Regrets of two (problem, searcher) for the seeds that both have."""
        seeds = range(1000)
        keys = [(f"{'|'.join(first)}|{seed}", f"{'|'.join(second)}|{seed}") for seed in seeds]
        both = [(a, b) for a, b in keys if a in self.regrets and b in self.regrets]
        return [(self.regrets[a][look], self.regrets[b][look]) for a, b in both]


def search_all(seeds: int, budget: int, kept: Kept) -> None:
    """Search what is missing: the quick searchers for all seeds, then BoTorch, each seed by seed."""
    warnings.filterwarnings("ignore")
    slow = {"botorch"}
    for names in (SEARCHERS.keys() - slow, slow):
        for seed in range(seeds):
            for problem in problems(seed):
                problem.draw([seed])
                for name in sorted(names):
                    if name == "ours" or not problem.name.startswith("hartmann6 "):
                        _search(problem, name, seed, budget, kept)


def _search(problem: Problem, name: str, seed: int, budget: int, kept: Kept) -> None:
    key = f"{problem.name}|{name}|{seed}"
    if key in kept.regrets:
        return
    began = time.perf_counter()
    y = SEARCHERS[name](problem, seed, budget)
    kept.regrets[key] = [problem.regret(y[:look]) for look in LOOKS]
    kept.write()
    shown = ", ".join(f"{regret:.3g}" for regret in kept.regrets[key])
    print(f"{key}: {shown} ({time.perf_counter() - began:.1f} s)", flush=True)


def proposal_seconds() -> float:
    """The median CPU seconds of a proposal at n = 50, d = 6."""
    problem = problems(0)[0]
    problem.draw([0])
    times = []
    x = torch.rand(1, 50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = Observations(x, problem.values(x))
    for seed in range(9):
        searcher = PracticalSearch()
        surrogate = Surrogate(
            shape=(6,), classes=None, kernel="matern52", lengthscale=None, variance=None, noise=None,
            mean=None, groups="full", scale_groups="mean", fit="standardised",
        )  # fmt: skip
        random = ReplicateSampler(seed, 1, None, CPU, torch.float64)
        searcher.start(Task(problem, surrogate, [seed], 51, random, CPU))
        began = time.process_time()
        searcher.propose(seen, 1)
        times.append(time.process_time() - began)
    return sorted(times)[len(times) // 2]


def ratio(pairs: list[tuple[float, float]], least: float) -> tuple[float, float, float]:
    """The geometric mean of first / second and its 95% t interval; regrets below `least` count as that."""
    logs = [math.log10(max(a, least) / max(b, least)) for a, b in pairs]
    mean = sum(logs) / len(logs)
    if len(logs) < 2:
        return 10**mean, 0.0, math.inf
    spread = math.sqrt(sum((value - mean) ** 2 for value in logs) / (len(logs) - 1) / len(logs))
    half = float(stats.t.ppf(0.975, len(logs) - 1)) * spread
    return 10**mean, 10 ** (mean - half), 10 ** (mean + half)


def report(kept: Kept) -> str:
    """The table of medians and of ratios, in Markdown."""
    about = kept.circumstances
    lines = [
        "# The practical searcher beside its peers",
        "",
        f"Written by `make bench-tune` (`benchmarks/tune.py` says what is measured); commit "
        f"{about['commit']}, {about['finished']}, {about['cpu']}. A proposal at n = 50, d = 6 takes "
        f"{about['proposal_cpu_seconds']:.2f} CPU seconds on one thread.",
        "",
        "Median simple regret, and the ratio ours / peer (geometric mean over seeds) with its 95% interval: "
        "below 1 ours is better, **bold** where significantly so, _italic_ where significantly worse.",
        "",
        "| problem | evaluations | seeds (BoTorch's) | ours | BoTorch | TPE | random | ours / BoTorch "
        "| ours / TPE | ours / random |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for problem in problems(0):
        plain = problem.name.split(" ")[0] if problem.name.startswith("hartmann6") else problem.name
        own = (problem.name, "ours")
        for look, count in enumerate(LOOKS):
            if not (seeds := len(kept.paired(own, own, look))):
                continue
            cells = [f"{_median([a for a, _ in kept.paired(own, own, look)]):.3g}"]
            ratios = []
            for peer in ("botorch", "tpe", "random"):
                pairs = kept.paired(own, (plain, peer), look)
                cells.append(f"{_median([b for _, b in pairs]):.3g}" if pairs else "-")
                ratios.append(_shown(*ratio(pairs, problem.least)) if pairs else "-")
            counted = f"{seeds} ({len(kept.paired(own, (plain, 'botorch'), look))})"
            row = [problem.name, str(count), counted, *cells, *ratios]
            lines.append(f"| {' | '.join(row)} |")
    lines += ["", "In other units, the ratio to the regrets in plain ones (1 where units do not matter):", ""]
    for problem in problems(0):
        if problem.name.startswith("hartmann6 "):
            pairs = [kept.paired((problem.name, "ours"), ("hartmann6", "ours"), look) for look in range(2)]
            shown = [_shown(*ratio(some, problem.least)) for some in pairs if some]
            lines.append(f"- {problem.name}: {' after 20, '.join(shown)} after 50 evaluations")
    return "\n".join(lines) + "\n"


def _shown(mean: float, low: float, high: float) -> str:
    text = f"{mean:.2g} [{low:.2g}, {high:.2g}]"
    return f"**{text}**" if high < 1 else f"_{text}_" if low > 1 else text


def _median(values: list[float]) -> float:
    return statistics.median(values) if values else math.nan


def main(seeds: int = 20, budget: int = 50) -> None:
    """Search what is missing, and write the table of what there is."""
    torch.set_num_threads(1)
    kept = Kept.read()
    about = environment(CPU)
    kept.circumstances.update(
        commit=about["commit"], finished=about["finished"], cpu=about["cpu"],
        proposal_cpu_seconds=proposal_seconds(),
    )  # fmt: skip
    try:
        search_all(seeds, budget, kept)
    except KeyboardInterrupt:
        print("stopped; the same command goes on")
    kept.write()
    REPORT.write_text(report(kept))
    print(f"{REPORT}")


if __name__ == "__main__":
    main(**{key: int(value) for key, value in (word.split("=") for word in sys.argv[1:])})
