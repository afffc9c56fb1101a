"""Small problems and samplers for the tests of SPIDER."""

from typing import Any

import torch
from torch import Tensor

from common.data.tables.synthetic import SyntheticLogistic
from common.numerics.sampling import ReplicateSampler
from papers.spider.baselines import SARAH, SCSG, SGD, SNVRG, SVRG, GradientDescent, SpiderBoost
from papers.spider.method import Method
from papers.spider.negative_curvature import Lanczos, Neon2
from papers.spider.problems.linear import LogisticProblem
from papers.spider.problems.protocol import Batch, Oracle, Problem
from papers.spider.problems.regulariser import Regulariser
from papers.spider.spider import SpiderSFO
from papers.spider.spider_plus import SpiderSFOPlus
from papers.spider.spider_szo import SpiderSZO

CPU = torch.device("cpu")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Quadratics(Problem):
    """f_i(x) = x'A_i x / 2 + b_i'x; a batch holds component indices."""

    def __init__(self, A: Tensor, b: Tensor, x0: Tensor, lower_bound: float = 0.0) -> None:
        self.A, self.b, self.x0 = A, b, x0
        self.n = self.pass_size = len(A)
        self.dim = A.shape[1]
        self.smoothness = float(torch.linalg.matrix_norm(A, 2).max())
        self.sigma, self.hessian_lipschitz = 1.0, 1.0
        self.lower_bound = lower_bound
        self.device, self.dtype = CPU, torch.float64

    def start(self, replicates: int) -> Tensor:
        return self.x0.repeat(replicates, 1)

    def draw(self, sampler: ReplicateSampler, size: int, rows: list[int] | None) -> Batch:
        return Batch(sampler.indices(size, rows), None, size)

    def everything(self) -> Batch:
        return Batch(torch.arange(len(self.A)), None, len(self.A))

    def _terms(self, batch: Batch, x: Tensor) -> tuple[Tensor, Tensor]:
        index = batch.inputs.expand(len(x), -1)
        return self.A[index], self.b[index]

    def paired_values(self, points: Tensor, batch: Batch) -> Tensor:
        A, b = self._terms(batch, points)
        return (torch.einsum("rbi,rbij,rbj->rb", points, A, points) / 2) + (points * b).sum(-1)

    def value(self, x: Tensor, batch: Batch) -> Tensor:
        return self.paired_values(x[:, None].expand(-1, batch.size, -1), batch).mean(1)

    def gradient(self, x: Tensor, batch: Batch) -> Tensor:
        A, b = self._terms(batch, x)
        return torch.einsum("rbij,rj->ri", A, x) / batch.size + b.mean(1)

    def hvp(self, x: Tensor, v: Tensor, batch: Batch) -> Tensor:
        A, _ = self._terms(batch, x)
        return torch.einsum("rbij,rj->ri", A, v) / batch.size


def quadratics(n: int = 6, d: int = 3, common: bool = False, linear: bool = False) -> Quadratics:
    """Random components; with one quadratic part for all (`common`), or none (`linear`)."""
    root = normal(1 if common else n, d, d)
    A = (root @ root.mT).expand(n, d, d) / d
    return Quadratics(torch.zeros(n, d, d).double() if linear else A, normal(n, d, seed=1), normal(d, seed=2))


class Sequences(ReplicateSampler):
    """Replicate r sees the r-th of all n^steps sequences of single indices."""

    def __init__(self, n: int, steps: int) -> None:
        self.replicates = n**steps
        axes = [torch.arange(n)] * steps
        self.sequences = torch.cartesian_prod(*axes).view(-1, steps)
        self.used = 0

    def indices(self, size: int, rows: list[int] | None = None) -> Tensor:
        drawn = self.sequences[:, self.used : self.used + size]
        self.used += size
        return drawn

    def uniform(self, size: int, rows: list[int] | None = None) -> Tensor:
        return torch.full((self.replicates if rows is None else len(rows), size), 0.5)


def oracle(problem: Problem, replicates: int = 1, seed: int = 0) -> Oracle:
    sampler = ReplicateSampler(seed, replicates, problem.n, CPU, problem.dtype)
    return Oracle(problem, sampler)


def logistic(n: int = 60, d: int = 4, alpha: float = 0.1) -> LogisticProblem:
    rows = normal(n, d)
    rows = rows / rows.norm(dim=1, keepdim=True)
    labels = (rows @ normal(d, seed=1) + 0.3 * normal(n, seed=2) > 0).long()
    return LogisticProblem(rows, labels, Regulariser("nonconvex", alpha, d))


def spider(option: int, eps: float, **given: Any) -> SpiderSFO:
    defaults = dict.fromkeys(["smoothness", "gap", "sigma", "S1", "S2", "q", "eps_tilde_over_eps"])
    return SpiderSFO(option=option, eps=eps, **({"n0": 1.0, "p": 0.1} | defaults | given))


def plus(search: Lanczos | Neon2, eps: float, **given: Any) -> SpiderSFOPlus:
    names = ["smoothness", "hessian_lipschitz", "gap", "sigma", "S1", "S2", "q"]
    settings = {"n0": 1.0, "p": 0.1, "eps_tilde_over_eps": 2.0} | dict.fromkeys(names) | given
    return SpiderSFOPlus(search=search, eps=eps, **settings)


def szo(eps: float, **given: Any) -> SpiderSZO:
    names = ["smoothness", "gap", "sigma", "S1", "S2", "q", "mu"]
    return SpiderSZO(eps=eps, **({"n0": 1.0} | dict.fromkeys(names) | given))


def baseline(name: str, eps: float = 1e-2, **given: Any) -> Method:
    """A baseline with every hyperparameter open but those given."""
    makers: dict[str, tuple[type[Method], dict[str, Any]]] = {
        "gd": (GradientDescent, {"eps": eps, "step_size": None}),
        "sgd": (
            SGD,
            {"eps": eps, "batch_size": None, "step_size": None, "decay": "constant", "sigma": None},
        ),
        "svrg": (SVRG, {"batch_size": None, "epoch_length": None, "step_size": None}),
        "scsg": (
            SCSG,
            {
                "eps": eps,
                "batch_size": 1,
                "checkpoint_size": None,
                "checkpoint_constant": 1.0,
                "step_size": None,
                "sigma": None,
            },
        ),
        "snvrg": (SNVRG, {"step_size": None}),
        "sarah": (SARAH, {"batch_size": None, "epoch_length": None, "step_size": None}),
        "spiderboost": (SpiderBoost, {"S1": None, "S2": None, "q": None, "step_size": None}),
    }
    maker, settings = makers[name]
    return maker(**(settings | {"smoothness": None} | given))


BASELINES = ["gd", "sgd", "svrg", "scsg", "snvrg", "sarah", "spiderboost"]


def any_method(name: str, eps: float = 1e-2) -> Method:
    """Every method of the paper's comparison by its config's name."""
    if name in BASELINES:
        return baseline(name, eps)
    return {
        "spider_sfo_opt1": lambda: spider(1, eps),
        "spider_sfo_opt2": lambda: spider(2, eps),
        "spider_sfo_plus_lanczos": lambda: plus(Lanczos(iterations=None, p=0.01), eps),
        "spider_sfo_plus_neon2": lambda: plus(
            Neon2(batch_size=64, constant=1.2, repeats=2, p=0.01), eps, hessian_lipschitz=400.0
        ),
        "spider_szo": lambda: szo(eps, S2=50),
    }[name]()


METHODS = [
    *BASELINES,
    "spider_sfo_opt1",
    "spider_sfo_opt2",
    "spider_sfo_plus_lanczos",
    "spider_sfo_plus_neon2",
    "spider_szo",
]


def synthetic(n: int = 200) -> SyntheticLogistic:
    data = SyntheticLogistic(
        kind="tabular_classification", data_dir="data", seed=0, source="real", limit=None, validation=0.0,
        normalise="none", verify=True, batch_size=16, positive=None, n=n, seed_data=0,
    )  # fmt: skip
    data.setup()
    return data
