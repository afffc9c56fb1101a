"""Objectives with related tasks, and searches on them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from common.base.errors import UserError
from common.base.objective import Coordinate, Earlier, Objective, Space, box
from common.numerics.sampling import ReplicateSampler
from common.search.searcher import Observations, Task
from common.search.surrogate import Surrogate
from papers.ablr.baselines import DNGO, Bohamiann, GPSearch
from papers.ablr.features import Network, RandomKitchenSinks
from papers.ablr.openml_runs import FLOWS, encoded, read_runs
from papers.ablr.searcher import ABLRSearch, Inputs, ModelSearch
from papers.ablr.signals import TunedMLP
from papers.ablr.tasks import OpenMLTasks, Quadratics, XGBoostTasks

DATA = Path("data")
COMMON: dict[str, Any] = {"transform": "standardise", "candidates": 64}


def network() -> Network:
    return Network(width=10, layers=2, precision="float64")


def ablr(**changed: Any) -> ABLRSearch:
    usual = {
        "features": network(),
        "transfer": True,
        "context": False,
        "signals": [],
        "iterations": 20,
        "refits": 5,
    }
    return ABLRSearch(**{**usual, **COMMON, **changed})


def searchers() -> dict[str, ModelSearch]:
    sinks = RandomKitchenSinks(dim=20, per_input=False, bandwidth=1.0)
    return {
        "ablr": ablr(),
        "ablr_context": ablr(context=True),
        "ablr_copula": ablr(transform="copula"),
        "ablr_rks_alone": ablr(features=sinks, transfer=False),
        "gp": GPSearch(warm_start=2, context=False, **COMMON),
        "gp_context": GPSearch(warm_start=0, context=True, **COMMON),
        "dngo": DNGO(features=network(), transfer=True, steps=20, lr=0.01, fits=5, **COMMON),
        "bohamiann": Bohamiann(
            width=8, layers=1, transfer=True, burn_in=10, thinning=1, lr=0.01, batch=16, noise=0.1, **COMMON
        ),
    }


class TestedBox(Objective):
    """A function of a box that knows of no related tasks, with its largest value 0 at (0.3, 0.3)."""

    __test__ = False
    NAME = "box"

    def __init__(self) -> None:
        super().__init__(kind="objective", space=box(2, 0.0, 1.0), noise=0.0)

    def draw(self, seeds: list[int]) -> None:
        """Nothing is random."""

    def values(self, x: torch.Tensor) -> torch.Tensor:
        return -(x - 0.3).square().sum(-1)

    def optimum(self) -> None:
        return None


def surrogate(dim: int) -> Surrogate:
    return Surrogate(
        shape=(dim,), classes=None, kernel="matern52", lengthscale=None, variance=None, noise=None, mean=None,
        groups="full", scale_groups="mean", fit="standardised",
    )  # fmt: skip


def started(searcher: ModelSearch, data: Any, seeds: list[int]) -> ModelSearch:
    data.setup()
    data.draw(seeds)
    random = ReplicateSampler(seeds[0], len(seeds), None, torch.device("cpu"), torch.float64)
    searcher.start(Task(data, surrogate(data.space.dim), seeds, 5, random, torch.device("cpu")))
    return searcher


def quadratics(**changed: Any) -> Quadratics:
    usual = {"kind": "objective", "dim": 2, "tasks": 5, "points": 8, "offset_scale": 1.0, "noise": 0.0}
    return Quadratics(**{**usual, **changed})


def go(
    searcher: ModelSearch, data: Any, rounds: int, seen: Observations | None = None, q: int = 1
) -> Observations:
    d, R = data.space.dim, searcher.task.replicates
    seen = seen or Observations(torch.zeros(R, 0, d).double(), torch.zeros(R, 0).double())
    for _ in range(rounds):
        x = searcher.propose(seen, q)
        seen = seen.plus(x, data.values(x))
    return seen


def test_the_optimum_of_a_quadratic_is_its_largest_value() -> None:
    data = quadratics(tasks=30)
    data.draw(list(range(30)))
    unit = torch.rand(30, 4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    best = data.values(-5 + 10 * unit).max(1).values
    gap = data.optimum() - best
    assert bool((gap >= 0).all()) and float(gap.max()) < 1.0


def test_a_task_is_not_among_those_related_to_it() -> None:
    data = quadratics()
    data.draw([1, 6])
    for r in range(2):
        contexts = torch.stack([task.context for task in data.related(r)])
        assert len(contexts) == 4 and not (contexts == data.context(r)).all(1).any()
    assert torch.equal(data.context(0), data.context(1))


@pytest.mark.parametrize("name", list(searchers()))
def test_a_search_stays_in_the_box_repeats_nothing_and_goes_on_as_if_unbroken(name: str) -> None:
    data = quadratics(points=4)
    whole = started(searchers()[name], data, [0, 3])
    seen = go(whole, data, 2)
    assert bool((seen.x.abs() <= 5 + 1e-9).all())
    assert all(len({tuple(p) for p in row.tolist()}) == 2 for row in seen.x)
    again = started(searchers()[name], quadratics(points=4), [0, 3])
    again.load_state_dict(whole.state_dict())
    again.task.random.load_state_dict(whole.task.random.state_dict())
    assert torch.equal(whole.propose(seen, 1), again.propose(seen, 1))


def test_where_all_tasks_are_alike_the_first_point_is_nearly_the_best() -> None:
    data = quadratics(tasks=4, points=20)
    data.coefficients[:] = torch.tensor([2.0, 3.0, 1.0]).double()
    searcher = started(ablr(iterations=60), data, [0])
    first = go(searcher, data, 1)
    unit = torch.rand(1, 500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(first.y[0, 0]) > float(data.values(-5 + 10 * unit).quantile(0.95))


@pytest.mark.parametrize("same", [False, True])
def test_earlier_runs_are_learnt_from_where_the_search_knows_of_some(same: bool) -> None:
    """Of other functions, and of the very same one, whose points are not tried again."""
    data = TestedBox()
    x = torch.rand(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    told = Earlier("f", x, data.values(x[None])[0], same)
    random = ReplicateSampler(0, 1, None, torch.device("cpu"), torch.float64)
    searcher = ablr(iterations=60)
    searcher.start(Task(data, surrogate(2), [0], 5, random, torch.device("cpu"), earlier=[told]))
    found = go(searcher, data, 1)
    assert float(found.y[0, 0]) > -0.05
    assert not same or not bool((found.x[0] == x[:, None]).all(-1).any())


def test_a_failed_evaluation_is_left_out_and_a_batch_has_different_points() -> None:
    data = quadratics()
    searcher = started(ablr(), data, [0])
    seen = go(searcher, data, 2)
    seen = seen.plus(seen.x[:, :1] + 0.1, torch.full((1, 1), torch.nan).double())
    batch = searcher.propose(seen, 3)[0]
    assert batch.shape == (3, 2) and len({tuple(p) for p in batch.tolist()}) == 3


def test_the_warm_start_is_the_best_point_of_the_task_with_the_nearest_context() -> None:
    data = quadratics()
    searcher = started(GPSearch(warm_start=2, context=False, **COMMON), data, [0])
    tasks = data.related(0)
    every = torch.stack([task.context for task in tasks])
    distance = ((every - data.context(0)).abs() / every.std(0, correction=0)).sum(1)
    task = tasks[int(distance.argmin())]
    assert torch.equal(go(searcher, data, 1).x[0, 0], task.x[task.y.argmax()])


def test_choices_are_columns_and_what_means_nothing_is_minus_one() -> None:
    zero = torch.zeros(3, dtype=torch.float64)
    choice = Coordinate((0.25, 0.75), ordered=False)
    space = Space(zero, zero + 1, None, (choice, Coordinate(), Coordinate(only_if=(0, 1))))
    found = Inputs(space)(torch.tensor([[0.25, 0.4, 0.9], [0.75, 0.1, 0.9]]).double())
    torch.testing.assert_close(found, torch.tensor([[1, 0, 0.4, -1], [0, 1, 0.1, 0.9]]).double())


@pytest.mark.parametrize("name", ["ablr", "gp", "dngo"])
def test_arms_are_tried_once_each(name: str) -> None:
    data = XGBoostTasks(kind="objective", source="synthetic", data_dir="nowhere", points=20)
    searcher = started(searchers()[name], data, [0, 1])
    seen = go(searcher, data, 4)
    assert all(len(set(row.flatten().tolist())) == 4 for row in seen.x)
    assert bool((data.optimum() >= seen.y.max(1).values).all())


def test_context_is_refused_where_nothing_describes_a_task() -> None:
    data = XGBoostTasks(kind="objective", source="synthetic", data_dir="nowhere", points=20)
    with pytest.raises(UserError, match=r"method\.context=true"):
        started(GPSearch(warm_start=0, context=True, **COMMON), data, [0])


def test_signals_are_heads_of_the_same_points_and_survive_a_kill() -> None:
    def data() -> TunedMLP:
        return TunedMLP(
            kind="objective", table="w8a", source="synthetic", data_dir="nowhere", epochs=2, limit=60
        )

    own = data()
    searcher = started(ablr(signals=["train_loss", "epochwise_train_accuracy"], transfer=False), own, [0])
    seen = go(searcher, own, 3)
    assert [len(values) for values in own.signals(0, ["train_loss", "epochwise_train_accuracy"])] == [3, 3, 3]
    other = data()
    other.setup()
    other.draw([0])
    other.load_told(own.told_state())
    assert torch.equal(other.signals(0, ["cpu_time"])[0], own.signals(0, ["cpu_time"])[0])
    assert 0 <= float(own.test_errors()[0]) <= 100 and bool((seen.y <= 0).all())


def test_signals_are_refused_where_an_evaluation_gives_none() -> None:
    with pytest.raises(UserError, match=r"method\.signals"):
        started(ablr(signals=["cpu_time"]), quadratics(), [0])


def test_openml_runs_become_numbers_in_the_unit_cube_words_and_minus_one() -> None:
    runs = [
        {"value": "0.9", "settings": {"cost": "1", "kernel": "linear"}},
        {"value": "0.8", "settings": {"cost": "100", "gamma": "0.1", "degree": "3", "kernel": "radial"}},
        {"value": "0.7", "settings": {"cost": "10", "gamma": "0.001", "degree": "5", "kernel": "polynomial"}},
    ]
    x, errors = encoded(FLOWS["svm"], runs)
    torch.testing.assert_close(errors, torch.tensor([0.1, 0.2, 0.3]).double())
    torch.testing.assert_close(x[:, 0], torch.tensor([0.0, 1.0, 0.5]).double())
    torch.testing.assert_close(x[:, 2], torch.tensor([-1.0, 1.0, 0.0]).double())
    assert x[:, 3:].tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]]


def test_damaged_runs_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "openml_runs"
    folder.mkdir()
    (folder / "5891_10101.json").write_text(json.dumps([{"value": 1}]))
    with pytest.raises(UserError, match=r"5891_10101\.json is damaged"):
        read_runs(FLOWS["svm"], tmp_path, 10)


@pytest.mark.real_data
@pytest.mark.skipif(
    not (DATA / "automl" / "xgboost_evals.npz").exists(), reason="no data/automl/xgboost_evals.npz"
)
def test_the_stand_in_of_openml_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    data = OpenMLTasks(
        kind="objective", flow="svm", source="stand_in", data_dir=str(DATA), points=60, most=1000
    )
    data.setup()
    data.draw([0])
    assert "stand in for OpenML's runs of svm" in capsys.readouterr().out
    assert len(data.inputs) == 10 and data.arms_of(0).shape == (1000, 8)
    assert float(data.inputs[0].min()) >= 0 and float(data.inputs[0].max()) <= 1
