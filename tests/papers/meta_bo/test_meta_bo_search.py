"""Searches with an estimated prior: trajectories, resume, failures, refusals, the real grasp task."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from meta_bo_toys import COMMON, arms, broken, module, pem, plane
from search_toys import SaveAfter, fit

from common.base.errors import UserError
from common.data.functions.no_data import NoData
from common.search import module as search_module
from common.search.searcher import RandomSearch
from papers.meta_bo.baselines import TLSM, Plain, TLSMUpstream
from papers.meta_bo.grasp import MetaGraspAg


@pytest.fixture(autouse=True)
def one_round_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "ROUND_SECONDS", 0.0)


def reference(Y: np.ndarray, f: np.ndarray, noise: np.ndarray, T: int, delta: float, pi: bool) -> list[int]:
    """Algorithm 1 over arms, straight from its formulas, for one function."""
    N, mu, K = len(Y), Y.mean(0), np.cov(Y.T)
    chosen: list[int] = []
    y: list[float] = []
    for t in range(1, T + 1):
        gain = K[:, chosen] @ np.linalg.inv(K[np.ix_(chosen, chosen)]) if chosen else np.zeros((len(mu), 0))
        mean = mu + gain @ (np.array(y) - mu[chosen])
        variance = np.diag(K - gain @ K[chosen]).clip(0) * (N - 1) / (N - (t - 1) - 1)
        log = math.log(6 / delta)
        inner = N - 3 + t + 2 * math.sqrt(t * log) + 2 * log
        zeta = math.sqrt(6 * inner / (delta * N * (N - t - 1))) + math.sqrt(2 * math.log(3 / delta))
        zeta /= math.sqrt(1 - 2 * math.sqrt(log / (N - t)))
        with np.errstate(divide="ignore", invalid="ignore"):
            score = (mean - Y.max()) / np.sqrt(variance) if pi else mean + zeta * np.sqrt(variance)
        score[chosen] = -np.inf
        chosen.append(int(score.argmax()))
        y.append(f[chosen[-1]] + noise[t - 1])
    return chosen


@pytest.mark.parametrize("acquisition", ["ucb", "pi"])
def test_the_trajectory_is_algorithm_1(tmp_path: Path, acquisition: str) -> None:
    m = fit(module(arms(), pem(acquisition=acquisition), evaluations=12), tmp_path)
    Y = m.data.family()[0].numpy()
    for r in range(3):
        noise = (m.seen.y - m.f)[r].numpy()
        expected = reference(Y, m.data.mine[r].numpy(), noise, 12, 0.01, acquisition == "pi")
        assert m.seen.x[r, :, 0].tolist() == expected


METHODS: dict[str, Callable[..., Any]] = {
    "pem_bo": pem,
    "plain": lambda **given: Plain(**(COMMON | given)),
    "tlsm": lambda **given: TLSM(**(COMMON | given)),
    "tlsm_upstream": lambda **given: TLSMUpstream(**(COMMON | given)),
    "random": lambda **given: RandomSearch(),
}


@pytest.mark.parametrize("name", METHODS)
def test_no_arm_is_evaluated_twice_and_a_resumed_search_is_the_unbroken_one(
    tmp_path: Path, name: str
) -> None:
    def search() -> Any:
        return module(arms(), METHODS[name]())

    whole = fit(search(), tmp_path)
    assert all(len(set(row)) == 8 for row in whole.seen.x[..., 0].tolist())
    kept = tmp_path / "last.ckpt"
    fit(search(), tmp_path, save=SaveAfter(4, kept))
    resumed = fit(search(), tmp_path, resume=kept)
    assert torch.equal(whole.seen.x, resumed.seen.x) and torch.equal(whole.seen.y, resumed.seen.y)
    assert whole.history == resumed.history
    same = {k: v for k, v in whole.results().items() if k != "propose_seconds"}
    assert same == {k: v for k, v in resumed.results().items() if k != "propose_seconds"}


@pytest.mark.parametrize("acquisition", ["ucb", "pi"])
@pytest.mark.parametrize("name", METHODS)
def test_a_box_is_searched_within_it_and_resumed_the_same(
    tmp_path: Path, name: str, acquisition: str
) -> None:
    def search() -> Any:
        return module(plane(), METHODS[name](acquisition=acquisition), evaluations=5, repeats=2)

    whole = fit(search(), tmp_path)
    assert whole.seen.x.shape == (2, 5, 2) and (whole.seen.x.abs() <= 10).all()
    kept = tmp_path / "last.ckpt"
    fit(search(), tmp_path, save=SaveAfter(2, kept))
    resumed = fit(search(), tmp_path, resume=kept)
    assert torch.equal(whole.seen.x, resumed.seen.x)
    regret = whole.results()["simple_regret"]
    assert regret > 0 and whole.results()["best_at_5"] == pytest.approx(whole.results()["best"])


def test_a_replicate_alone_is_the_same_as_in_a_batch(tmp_path: Path) -> None:
    for data, method in ((arms, pem), (plane, pem), (arms, METHODS["tlsm_upstream"])):
        together = fit(module(data(), method(), evaluations=5), tmp_path)
        alone = fit(module(data(), method(), evaluations=5, seed=2, repeats=1), tmp_path)
        torch.testing.assert_close(together.seen.x[2], alone.seen.x[0], rtol=0, atol=1e-6)


def test_metrics_at_a_number_of_evaluations_are_points_of_the_curve(tmp_path: Path) -> None:
    m = fit(module(arms(), pem()), tmp_path)
    results = m.results()
    f = m.f.numpy()
    assert results["best_at_5"] == pytest.approx(f[:, :5].max(1).mean())
    assert results["best_at_5_sem"] == pytest.approx(f[:, :5].max(1).std(ddof=1) / 3**0.5)
    assert results["simple_regret_at_6"] == pytest.approx((m.optimum.numpy() - f[:, :6].max(1)).mean())
    assert results["best_at_5"] == pytest.approx(m.history["best"][4]) and "best_at_10" not in results


def test_a_failed_evaluation_is_kept_and_left_out_of_the_estimates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    m = fit(module(broken(), pem(), evaluations=15), tmp_path)
    assert m.seen.y.isnan().sum(1).tolist() == [1, 1, 1]
    assert m.results()["failed_evaluations"] == 3 and math.isfinite(m.results()["best"])
    assert m.searcher.arms_posterior.count.tolist() == [13.0] * 3
    assert "failed (a value that is not finite): it stays in the record" in capsys.readouterr().out


def test_arms_seen_twice_at_the_start_are_said_once_and_none_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    m = fit(module(arms(arms=4), pem(), initial=4, evaluations=4, repeats=20), tmp_path)
    m.searcher.predict_arms(m.seen)
    assert m.results()["singular_replicates"] > 0 and m.searcher.arms_posterior.count.tolist() == [4.0] * 20
    said = capsys.readouterr().out
    assert said.count("K[I, I] is singular after") == 1 and "no observation is lost" in said


def test_too_few_functions_for_zeta_are_said_once_and_upstream_takes_arm_0_for_ever(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"functions": 50, "portion": 0.4}
    m = fit(module(arms(**data), pem(zeta_fallback="upstream_nan")), tmp_path)
    assert (m.seen.x == 0).all() and m.results()["training_functions"] == 20
    line = "zeta is no number for 20 training functions and delta=0.01"
    assert capsys.readouterr().out.count(line) == 1
    better = fit(module(arms(**data), pem()), tmp_path)
    assert all(len(set(row)) == 8 for row in better.seen.x[..., 0].tolist())
    assert "its denominator is left out" in capsys.readouterr().out
    assert better.results()["zeta_fallbacks"] == 8 * 3
    assert fit(module(arms(), pem(zeta=3.0)), tmp_path).results()["zeta_fallbacks"] == 0


def test_a_fallback_in_the_middle_is_said_and_counted_from_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # N - t > 25.6 for t <= 4
    m = fit(module(arms(functions=30), pem()), tmp_path)
    assert m.results()["zeta_fallbacks"] == 4 * 3
    assert capsys.readouterr().out.count("from evaluation 5 on: its denominator is left out") == 1


@pytest.mark.parametrize(
    ("data", "method", "run", "line"),
    [
        ({}, {}, {"batch": 2}, "proposes one point a round (valid: paper.batch=1)"),
        ({}, {}, {"evaluations": 16}, "paper.evaluations=16; valid: at most 15, the arms"),
        ({"portion": 0.18}, {}, {}, "9 training functions for paper.evaluations=8; valid: at least 10"),
        ({"functions": 2, "portion": 0.5}, {"zeta": 3.0}, {"evaluations": 1}, "valid: at least 2"),
        ({"missing": 0.3}, {"completion": "refuse"}, {}, "training values are missing"),
        ({"portion": 0.0}, {}, {}, "dataset.portion=0.0: give a number above 0"),
        ({"missing": 1.0}, {}, {}, "dataset.missing=1.0"),
        ({}, {"delta": 0.0}, {}, "method.delta=0.0; valid: above 0 and below 1"),
        ({}, {"candidates": 0}, {}, "method.candidates=0; valid: at least 1"),
        ({}, {"jitter": -1.0}, {}, "method.jitter=-1.0"),
    ],
)
def test_what_cannot_be_searched_gets_one_line(
    tmp_path: Path, data: dict[str, Any], method: dict[str, Any], run: dict[str, Any], line: str
) -> None:
    with pytest.raises(UserError) as raised:
        fit(module(arms(**data), pem(**method), **run), tmp_path)
    assert line in str(raised.value)


def test_an_objective_without_training_functions_is_refused(tmp_path: Path) -> None:
    data = NoData(kind="no_data", dim=2)
    with pytest.raises(UserError, match="learns from training functions, which dataset=no_data has none of"):
        fit(module(data, pem()), tmp_path)


def test_a_basis_smaller_than_the_budget_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"method\.features=4; valid: at least paper\.evaluations=8"):
        fit(module(plane(), pem(features=4)), tmp_path)


def test_missing_entries_are_completed_from_the_replicates_own_functions_alone(tmp_path: Path) -> None:
    data = MetaGraspAg(
        kind="objective", source="synthetic", data_dir="data", verify=True, portion=0.03, missing=0.3
    )
    m = fit(module(data, pem()), tmp_path)
    prior = m.searcher.arms_posterior.prior
    assert prior.z.ndim == 3 and prior.N.tolist() == [53.0] * 3
    training = data.training()
    for r in range(3):
        own = training.y[training.kept[r]]
        completed = m.searcher._complete(own)
        np.testing.assert_allclose(prior.mean[r], completed.mean(0), atol=1e-9)
        known = ~own.isnan()
        assert torch.equal(completed[known], own[known])


@pytest.mark.real_data
def test_the_published_curve_of_the_grasp_task_is_reproduced(
    tmp_path: Path, need: Callable[[str], Path]
) -> None:
    path = need("metalearnbo/ag/1800_rrt.mat")
    data = MetaGraspAg(
        kind="objective", source="real", data_dir=str(path.parents[2]), verify=True, portion=1.0, missing=0.0
    )
    method = pem(zeta="upstream", correction="recursive")
    results = fit(module(data, method, evaluations=20, repeats=100), tmp_path).results()
    # computed from the authors' result files (fig3e.pem_bo_ucb)
    published = {"best_at_1": -3.203, "best_at_5": -2.5266, "best_at_10": -2.3625, "best_at_20": -2.355}
    for name, value in published.items():
        assert results[name] == pytest.approx(value, abs=6e-5)
    assert results["simple_regret_at_20"] == 0
