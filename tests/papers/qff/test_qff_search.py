"""The searchers: steps against a reference in NumPy, resume, failures, repeats, refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from qff_toys import GRIDS, UCB, normal, quadrature, sample, surrogate, task, uniform
from scipy.optimize import minimize_scalar
from torch import Tensor

from common.base.errors import UserError
from common.base.objective import Objective, Space
from common.data.functions.additive import Overlap
from common.search import module as search_module
from common.search.searcher import Observations, RandomSearch, Searcher
from papers.qff.features import RFF
from papers.qff.module import AdditiveSearchModule
from papers.qff.search import ExactThompson, ExactUCB, FourierThompson, FourierUCB, spectral

MAKERS: dict[str, Callable[[], Searcher]] = {
    "qff_ts": lambda: FourierThompson(features=quadrature(24), **GRIDS),
    "rff_ts": lambda: FourierThompson(features=RFF(nodes=24, form="paired"), **GRIDS),
    "qff_ucb": lambda: FourierUCB(features=quadrature(24), **UCB, **GRIDS),
    "exact_gp_ts": lambda: ExactThompson(**GRIDS),
    "exact_gp_ucb": lambda: ExactUCB(**UCB, **GRIDS),
}


def seen_points(replicates: int = 2, count: int = 15, dim: int = 3) -> Observations:
    return Observations(uniform(replicates, count, dim), normal(replicates, count))


def proposal(
    searcher: Searcher, objective: Objective, seen: Observations, q: int = 1, **given: Any
) -> Tensor:
    model = surrogate(objective.space.dim, **({"mean": 0.0} | given))
    searcher.start(task(objective, model))
    return searcher.propose(seen, q)


def test_a_ucb_step_is_the_one_of_an_exact_process_in_numpy() -> None:
    """Each coordinate by itself: the argmax of mu_j + sqrt(2) sigma_j, found by scipy from a fine grid."""
    seen = seen_points()
    found = {name: proposal(MAKERS[name](), sample(), seen) for name in ("qff_ucb", "exact_gp_ucb")}
    torch.testing.assert_close(found["qff_ucb"], found["exact_gp_ucb"], rtol=0, atol=1e-6)
    for r in range(2):
        X, y = seen.x[r].numpy(), seen.y[r].numpy()

        def k(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return np.exp(-0.5 * ((a[:, None] - b) / 0.3) ** 2) / 3.0

        K = sum(k(X[:, j], X[:, j]) for j in range(3)) + 0.05**2 * np.eye(len(y))
        for j in range(3):

            def bound(t: Any, j: int = j, K: Any = K, X: Any = X, y: Any = y) -> Any:
                cross = k(np.atleast_1d(t), X[:, j])
                variance = 1 / 3 - np.einsum("ab,ab->a", cross, np.linalg.solve(K, cross.T).T)
                return cross @ np.linalg.solve(K, y) + np.sqrt(2.0 * variance)

            grid = np.linspace(-0.5, 0.5, 2001)
            at = grid[bound(grid).argmax()]
            limits = (max(at - 0.001, -0.5), min(at + 0.001, 0.5))
            best = minimize_scalar(
                lambda t, f=bound: -float(f(t)[0]), bounds=limits, method="bounded", options={"xatol": 1e-9}
            )
            assert float(found["exact_gp_ucb"][r, 0, j]) == pytest.approx(float(best.x), abs=2e-6)


def test_a_thompson_step_maximises_the_draw_of_the_weights_by_groups() -> None:
    """theta = V^-1 Phi'y + rho V^-1/2 z, and the argmax of each Phi_j . theta_j on a fine grid."""
    seen, searcher = seen_points(), FourierThompson(features=quadrature(24), **GRIDS)
    x = proposal(searcher, sample(), seen)
    random = task(sample()).random
    z = random.normal((72,))
    assert isinstance(searcher.model.posterior.root, Tensor)
    for r in range(2):
        phi = searcher.model.features(seen.x)[r]
        V = phi.T @ phi + 0.05**2 * torch.eye(72).double()
        root = searcher.model.posterior.root[r]
        torch.testing.assert_close(root @ root.T, 0.05**2 * torch.linalg.inv(V), rtol=0, atol=1e-9)
        theta = torch.linalg.solve(V, phi.T @ seen.y[r]) + root @ z[r]
        grid = torch.linspace(-0.5, 0.5, 20_001).double()[:, None]
        one = searcher.model.bases[0].features(grid)[0, 0]
        best = grid[(one @ theta.reshape(3, 24).T).argmax(0), 0]
        torch.testing.assert_close(x[r, 0], best, rtol=0, atol=5e-5)


@pytest.mark.parametrize("name", MAKERS)
def test_a_replicate_alone_proposes_the_same(name: str) -> None:
    seen = seen_points(replicates=3)
    model = surrogate(3, mean=0.0)
    many, alone = MAKERS[name](), MAKERS[name]()
    many.start(task(sample(), model, seeds=(0, 1, 2)))
    alone.start(task(sample(), model, seeds=(2,)))
    own = Observations(seen.x[2:], seen.y[2:])
    torch.testing.assert_close(many.propose(seen, 1)[2], alone.propose(own, 1)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_failed_observations_are_left_out(name: str) -> None:
    """With NaN at two places a proposal is that of a search that never made these evaluations."""
    seen = seen_points()
    y = seen.y.clone()
    y[:, [4, 9]] = torch.nan
    kept = [t for t in range(15) if t not in (4, 9)]
    with_them = proposal(MAKERS[name](), sample(), Observations(seen.x, y))
    without = proposal(MAKERS[name](), sample(), Observations(seen.x[:, kept], seen.y[:, kept]))
    if name == "exact_gp_ts":
        # its draws of noise are as many as the evaluations, so that draws differ
        assert bool(with_them.isfinite().all())
        return
    torch.testing.assert_close(with_them, without, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_point_that_is_repeated_many_times_does_no_harm(name: str, noise: float) -> None:
    x = torch.full((2, 30, 3), 0.1, dtype=torch.float64)
    y = torch.ones(2, 30, dtype=torch.float64)
    found = proposal(MAKERS[name](), sample(noise=noise), Observations(x, y))
    assert bool(found.isfinite().all()) and bool((found.abs() <= 0.5).all())


@pytest.mark.parametrize("name", MAKERS)
def test_without_observations_and_with_failures_alone_a_search_begins(name: str) -> None:
    empty = Observations(torch.zeros(2, 0, 3).double(), torch.zeros(2, 0).double())
    assert proposal(MAKERS[name](), sample(), empty).shape == (2, 1, 3)
    failed = Observations(uniform(2, 3, 3), torch.full((2, 3), torch.nan).double())
    assert bool(proposal(MAKERS[name](), sample(), failed).isfinite().all())


@pytest.mark.parametrize("groups", ["full", "chain", [[0, 1], [0, 2]], [[0], [1, 2]]])
@pytest.mark.parametrize("name", ["qff_ts", "qff_ucb"])
def test_groups_of_all_kinds_are_searched(name: str, groups: Any) -> None:
    makers: dict[str, Searcher] = {
        "qff_ts": FourierThompson(features=quadrature(8), **GRIDS),
        "qff_ucb": FourierUCB(features=quadrature(8), **UCB, **GRIDS),
    }
    x = proposal(makers[name], sample(), seen_points(), groups=groups, lengthscale=0.6)
    assert x.shape == (2, 1, 3) and bool((x.abs() <= 0.5).all())


def test_a_batch_of_thompson_samples_has_different_points() -> None:
    x = proposal(MAKERS["qff_ts"](), sample(), seen_points(), q=4)
    assert x.shape == (2, 4, 3) and float(torch.pdist(x[0]).min()) > 1e-6


def test_the_theorys_beta_is_its_formula() -> None:
    searcher = FourierUCB(features=quadrature(24), **(UCB | {"beta": "theory", "bound": 3.0}), **GRIDS)
    seen = seen_points()
    proposal(searcher, sample(), seen)
    phi = searcher.model.features(seen.x)
    V = phi.mT @ phi + 0.05**2 * torch.eye(72).double()
    lam = 0.05**2
    expected = 3.0 * lam + torch.logdet(V) - 72 * np.log(lam) + 2 * np.log(1 / 0.1)
    torch.testing.assert_close(searcher._beta(), expected, rtol=1e-9, atol=0)


def test_scale_groups_sum_gives_every_group_the_whole_variance() -> None:
    for scale, amplitude in (("mean", 1 / 3), ("sum", 1.0)):
        searcher = FourierUCB(features=quadrature(24), **UCB, **GRIDS)
        proposal(searcher, sample(), seen_points(), scale_groups=scale)
        assert searcher.model.prior.amplitude == pytest.approx(amplitude)


def test_the_surrogates_mean_is_taken_off() -> None:
    seen = seen_points()
    higher = Observations(seen.x, seen.y + 5.0)
    plain = proposal(MAKERS["qff_ucb"](), sample(), seen)
    torch.testing.assert_close(
        proposal(MAKERS["qff_ucb"](), sample(), higher, mean=5.0), plain, rtol=0, atol=1e-6
    )


def test_matern_52_of_one_dimension_is_a_modified_matern_kernel() -> None:
    kernel, gamma = spectral("matern52", torch.tensor([0.5]).double(), 1)
    a = 5**0.5 * 0.3 / 0.5
    closed = (1 + a + a**2 / 3) * np.exp(-a)
    r = torch.tensor(0.3).double() / gamma
    assert kernel == "modified_matern_3"
    assert float((1 + r + r**2 / 3) * (-r).exp()) == pytest.approx(closed)


# in the loop


SETTINGS: dict[str, Any] = {
    "seed": 0, "evaluations": 14, "initial": 3, "design": "uniform", "batch": 1, "repeats": 2, "workers": 1,
}  # fmt: skip


def module(name: str, data: Objective | None = None, **given: Any) -> AdditiveSearchModule:
    objective = data or sample()
    model = surrogate(objective.space.dim, mean=0.0)
    return AdditiveSearchModule(data=objective, model=model, method=MAKERS[name](), **(SETTINGS | given))


class SaveAfter(pl.Callback):
    """Saves a checkpoint between two rounds, as the runner does."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        if rest[-1] == self.step:
            trainer.save_checkpoint(self.path)


def fit(m: AdditiveSearchModule, root: Path, *callbacks: pl.Callback, resume: Path | None = None) -> Any:
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=-1, logger=False, enable_checkpointing=False, default_root_dir=root,
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
    )  # fmt: skip
    trainer.fit(m, ckpt_path=resume, weights_only=True)
    return m


@pytest.mark.parametrize("name", MAKERS)
def test_a_killed_search_goes_on_bit_for_bit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "ROUND_SECONDS", 0.0)
    kept = tmp_path / "last.ckpt"
    whole = fit(module(name), tmp_path, SaveAfter(6, kept))
    resumed = fit(module(name), tmp_path, resume=kept)
    assert torch.equal(whole.seen.x, resumed.seen.x) and torch.equal(whole.seen.y, resumed.seen.y)
    assert whole.history == resumed.history


class Patchy(Overlap):
    """NaN where x_1 < 0."""

    def values(self, x: Tensor) -> Tensor:
        return torch.where(x[..., 0] < 0, torch.nan, super().values(x))


@pytest.mark.parametrize("name", ["qff_ts", "exact_gp_ucb"])
def test_failed_evaluations_stay_in_the_record_and_the_search_ends(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Patchy(kind="objective", dim=2, noise=0.05, lengthscale=0.3, variance=1.0, mean=0.0)
    m = fit(module(name, data), tmp_path)
    assert m.seen.y.shape == (2, 14)
    failed = int(m.seen.y.isnan().sum())
    assert failed == m.results()["failed_evaluations"] > 0
    assert bool((m.seen.y.isnan() == (m.seen.x[..., 0] < 0)).all())
    assert capsys.readouterr().out.count("it stays in the record") == 1


def test_the_search_beats_random_points(tmp_path: Path) -> None:
    options: dict[str, Any] = {"evaluations": 40, "repeats": 8}
    found = fit(module("qff_ts", **options), tmp_path).results()
    objective = sample()
    others = AdditiveSearchModule(
        data=objective,
        model=surrogate(3, mean=0.0),
        method=RandomSearch(),
        **(SETTINGS | options),
    )
    assert found["simple_regret"] < 0.5 * fit(others, tmp_path).results()["simple_regret"]
    assert found["tail_regret"] < found["avg_regret"]
    assert {"tail_regret_median", "tail_regret_sem", "seconds_per_proposal"} <= set(found)


# refusals


@pytest.mark.parametrize(
    ("name", "given", "line"),
    [
        ("qff_ts", {"fit": "ml"}, "model.fit=ml: method=fourier_ts keeps its hyperparameters"),
        ("qff_ts", {"kernel": "matern52", "groups": "full"}, "model.kernel=matern52 with groups of 3"),
        ("qff_ts", {"mean": None, "lengthscale": None}, None),
        ("exact_gp_ts", {"kernel": "laplace"}, "model.kernel=laplace: exact Thompson sampling"),
        ("exact_gp_ts", {"lengthscale": 0.01}, "a lengthscale not far below the box"),
        ("qff_ts", {"groups": "full"}, "13824 features in all; valid: at most 8192"),
    ],
)
def test_what_a_search_cannot_do_gets_one_line(name: str, given: dict[str, Any], line: str | None) -> None:
    if line is None:
        assert proposal(MAKERS[name](), sample(), seen_points(), **given).shape == (2, 1, 3)
        return
    with pytest.raises(UserError) as raised:
        proposal(MAKERS[name](), sample(), seen_points(), **given)
    assert line in str(raised.value) and "\n" not in str(raised.value)


def test_arms_batches_of_ucb_and_unknown_hyperparameters_get_one_line() -> None:
    with pytest.raises(UserError, match=r"paper\.batch=2: UCB proposes one point a round"):
        proposal(MAKERS["qff_ucb"](), sample(), seen_points(), q=2)
    arms = sample()
    arms.space = Space(torch.zeros(1).double(), torch.full((1,), 5.0).double(), torch.eye(6).double())
    with pytest.raises(UserError, match="gp_sample is a list of arms"):
        proposal(MAKERS["qff_ts"](), arms, seen_points())
    silent = sample()
    del silent.lengthscale
    with pytest.raises(UserError, match=r"model\.lengthscale=null: dataset=gp_sample says none of its own"):
        proposal(MAKERS["qff_ts"](), silent, seen_points())


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"beta": -1.0}, "method.beta=-1.0; valid: a number >= 0, or theory"),
        ({"beta": "large"}, "method.beta=large"),
        ({"bound": -1.0}, "method.bound=-1.0"),
        ({"delta": 1.0}, "method.delta=1.0"),
        ({"grid": 1}, "method.grid=1; valid: at least 2"),
        ({"grid_2d": 0}, "method.grid_2d=0"),
    ],
)
def test_settings_out_of_range_get_one_line(given: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        ExactUCB(**(UCB | GRIDS | given))
