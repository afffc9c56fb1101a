"""The LightningModule: hits, budgets, results, resume."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from spider_toys import any_method, baseline, spider, synthetic
from torch import nn

from common.base.errors import UserError
from common.data.images.digits import Digits
from common.models.linear import LogisticRegression
from papers.spider.data import LogisticStream
from papers.spider.method import Method
from papers.spider.module import SpiderModule

BUDGET = {
    "seed": 0, "repeats": 3, "eps": 0.02, "until": "first_hit", "passes": 50.0, "max_calls": None,
    "check_every_passes": 0.05, "start_offset": 0.0, "estimator_age": None, "measure_curvature": False,
}  # fmt: skip


def module(method: Any, **given: Any) -> SpiderModule:
    data = given.pop("data", None) or synthetic()
    model = given.pop("model", None) or LogisticRegression(
        shape=data.shape, classes=data.classes, regulariser="nonconvex", alpha=0.1, bias=False
    )
    return SpiderModule(data=data, model=model, method=method, **(BUDGET | given))


class SaveAfter(pl.Callback):
    """Saves a checkpoint between two rounds, as the runner does."""

    def __init__(self, rounds: int, path: Path) -> None:
        self.rounds, self.path = rounds, path

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *rest: Any) -> None:
        if rest[-1] == self.rounds:
            assert isinstance(module, SpiderModule) and not module.done
            trainer.save_checkpoint(self.path)


def fit(m: SpiderModule, save: SaveAfter | None = None, resume: Path | None = None) -> None:
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=-1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[save] if save else [],
    )  # fmt: skip
    trainer.fit(m, ckpt_path=resume, weights_only=True)


def test_a_hit_is_the_calls_made_when_the_true_gradient_is_first_small() -> None:
    m = module(baseline("gd"), eps=0.005)
    fit(m)
    results = m.results()
    problem = m.oracle.problem
    x, steps = problem.start(1), 0
    while float(problem.true_gradient(x).norm()) > 0.005:
        x, steps = x - problem.true_gradient(x) / problem.smoothness, steps + 1
    assert results["hits"] == [steps * 200] * 3
    assert results["ifo_over_n"] == steps
    assert results["reached"] == 1.0
    assert results["grad_norm_final"] <= 0.005
    assert 0.5 < results["test_accuracy"] <= 1.0


def test_replicates_stop_at_their_own_hits_as_single_runs_do() -> None:
    def make() -> Method:
        return baseline("sgd", batch_size=32, step_size=1.0)

    together = module(make(), eps=0.012)
    fit(together)
    assert len(set(together.hits)) > 1
    for r in range(3):
        alone = module(make(), eps=0.012, seed=r, repeats=1)
        fit(alone)
        assert alone.hits[0] is not None
        # the batch is checked at the calls of its busiest replicate: the same ones for lockstep methods
        assert alone.hits[0] == together.hits[r]
        torch.testing.assert_close(alone.method.x[0], together.method.x[r], rtol=1e-10, atol=1e-12)


def test_an_eps_that_is_not_reached_leaves_none_within_the_budget() -> None:
    m = module(baseline("sgd", eps=1e-6), eps=1e-6, passes=3.0)
    fit(m)
    results = m.results()
    assert results["ifo_over_n"] is None and results["reached"] == 0.0
    assert results["hits"] == [None] * 3
    assert 600 <= results["gradient_calls"] < 700


def test_max_calls_bounds_value_calls_too() -> None:
    m = module(any_method("spider_szo"), until="budget", max_calls=30_000, passes=1e6)
    fit(m)
    results = m.results()
    assert results["gradient_calls"] == 0
    assert 30_000 <= results["function_calls"] <= 34_200


def test_until_theory_ends_by_the_methods_own_rule() -> None:
    m = module(spider(2, 0.1, gap=0.3), eps=0.1, until="theory", passes=1e4)
    fit(m)
    results = m.results()
    assert results["steps"] == results["theory_steps"]
    assert results["gradient_calls"] == results["theory_calls_exact"]


def test_history_follows_gradient_norm_and_loss_against_calls() -> None:
    m = module(spider(2, 0.004), eps=0.004, until="budget", passes=20.0)
    fit(m)
    steps = m.history["step"]
    assert steps[0] == 0 and steps == sorted(steps) and 20 < len(steps) <= 500
    assert m.history["grad_norm"][-1] < 0.2 * m.history["grad_norm"][0]
    assert len(m.history["loss"]) == len(steps)


@pytest.mark.parametrize("name", ["spider_sfo_opt2", "scsg", "svrg"])
def test_a_killed_and_resumed_run_is_bit_equal(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("papers.spider.module.ROUND_SECONDS", 0.0)
    settings = {"until": "budget", "passes": 15.0}
    unbroken = module(any_method(name), **settings)
    fit(unbroken, save=SaveAfter(20, tmp_path / "last.ckpt"))
    second = module(any_method(name), **settings)
    fit(second, resume=tmp_path / "last.ckpt")
    assert torch.equal(second.method.x, unbroken.method.x)
    assert second.results() == unbroken.results()
    assert second.history == unbroken.history


def test_an_estimate_is_measured_at_its_age_whatever_the_budget() -> None:
    given = {"eps": 0.02, "until": "estimate", "passes": 0.1, "repeats": 50}
    m = module(spider(1, 0.02), estimator_age=6, **given)
    fit(m)
    results = m.results()
    assert results["steps"] == 7
    assert results["gradient_calls"] == 200 + 6 * 2 * 15
    assert 0 < results["estimator_error"] <= results["estimator_bound"]
    error = m.method.v - m.oracle.problem.true_gradient(m.method.previous)
    assert results["estimator_error"] == pytest.approx(float(error.square().sum(1).mean()))
    assert m.progress().done == m.progress().total == 7


@pytest.mark.parametrize("given", [{"until": "estimate"}, {"until": "budget", "estimator_age": 3}])
def test_an_age_and_until_estimate_go_together(given: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"estimator_age=.*; valid: a number with paper\.until=estimate"):
        module(spider(1, 0.02), **given)


def test_the_start_is_moved_by_the_offset() -> None:
    m = module(baseline("gd"), start_offset=2.0, until="estimate", estimator_age=0)
    with pytest.raises(UserError, match="GradientDescent has no estimate that ages"):
        fit(m)
    d = m.oracle.problem.dim
    torch.testing.assert_close(m.method.x, torch.full_like(m.method.x, 2 / d**0.5))
    torch.testing.assert_close(m.method.x.norm(dim=1), torch.full((3,), 2.0, dtype=torch.float64))


def test_curvature_is_measured_where_rho_is_known_and_refused_elsewhere_at_once() -> None:
    m = module(baseline("gd"), measure_curvature=True)
    fit(m)
    results, problem = m.results(), m.oracle.problem
    assert results["curvature_allowed"] == pytest.approx(-((problem.hessian_lipschitz * 0.02) ** 0.5))
    assert results["curvature_allowed"] < results["lambda_min"] <= problem.smoothness
    network = module(spider(2, 0.5, smoothness=2.0), data=digits(), model=small_net(), **NETWORK | CURVED)
    with pytest.raises(UserError, match=r"method\.hessian_lipschitz=null"):
        fit(network)
    assert network.method.k == 0


def stream() -> LogisticStream:
    return LogisticStream(
        kind="stream", data_dir="data", seed=0, source="real", limit=None, validation=0.0, normalise="none",
        verify=True, batch_size=16, positive=None,
    )  # fmt: skip


def test_a_stream_counts_calls_to_the_hit() -> None:
    m = module(spider(2, 0.2), data=stream(), eps=0.2, max_calls=100_000)
    fit(m)
    results = m.results()
    assert 100 < results["sfo_calls"] < 100_000
    assert results["theory_calls"] > results["sfo_calls"]


def test_a_stream_needs_a_budget_in_calls() -> None:
    with pytest.raises(UserError, match=r"paper\.max_calls=null"):
        fit(module(spider(2, 0.2), data=stream(), eps=0.2))


def small_net() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    net.task = "classification"
    return net


def digits() -> Digits:
    return Digits(
        kind="image_classification", data_dir="data", seed=0, source="real", limit=None, validation=0.1,
        normalise="standard", verify=True, batch_size=32, positive=None, augment="none",
    )  # fmt: skip


NETWORK = {"repeats": 1, "eps": 0.5, "until": "budget", "passes": 20.0, "check_every_passes": None}
CURVED = {"measure_curvature": True}


@pytest.mark.parametrize("kind", ["spider", "torch"])
def test_a_network_learns_digits(kind: str) -> None:
    method: Any = spider(2, 0.5, smoothness=2.0, S1=256, S2=32, q=16)
    if kind == "torch":
        method = lambda parameters: torch.optim.SGD(parameters, lr=0.1)  # noqa: E731
    m = module(method, data=digits(), model=small_net(), **NETWORK)
    fit(m)
    results = m.results()
    assert results["test_accuracy"] > 0.85
    assert results["validation_accuracy"] > 0.85
    assert 20 * 1260 <= results["gradient_calls"] < 22 * 1260
    assert "ifo_over_n" not in results


def test_a_network_resumes_bit_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("papers.spider.module.ROUND_SECONDS", 0.0)

    def make() -> SpiderModule:
        method = spider(2, 0.5, smoothness=2.0, S1=256, S2=32, q=4)
        return module(method, data=digits(), model=small_net(), **(NETWORK | {"passes": 2.0}))

    unbroken = make()
    fit(unbroken, save=SaveAfter(4, tmp_path / "last.ckpt"))
    second = make()
    fit(second, resume=tmp_path / "last.ckpt")
    assert torch.equal(second.method.x, unbroken.method.x)


def test_a_diverging_run_is_a_one_line_error() -> None:
    from common.training.finite import NonFinite

    method = spider(2, 1e30, smoothness=1e-30, S1=256, S2=32, q=16)
    with pytest.raises(NonFinite, match="not finite at step"):
        fit(module(method, data=digits(), model=small_net(), **NETWORK))


@pytest.mark.parametrize(
    ("key", "value"),
    [("repeats", 0), ("eps", 0.0), ("passes", -1.0), ("max_calls", 0), ("check_every_passes", 0.0)],
)
def test_values_out_of_range_are_named(key: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"paper\.{key}={value}"):
        module(spider(2, 0.1), **{key: value})


def test_first_hits_need_checks() -> None:
    with pytest.raises(UserError, match=r"paper\.check_every_passes=null"):
        module(spider(2, 0.1), check_every_passes=None)


def test_progress_tells_how_it_goes() -> None:
    m = module(spider(2, 0.02))
    fit(m)
    progress = m.progress()
    assert progress.unit == "passes" and progress.total == 50.0 and 0 < progress.done < 50
    assert "gradient norm" in progress.text and "3 of 3 there" in progress.text
    assert isinstance(m.method, Method)
