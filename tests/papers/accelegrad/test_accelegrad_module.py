"""AcceleGrad's runs as a user makes them: programmes with known optima, training at the average, claims."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC
from torch import Tensor

from common.base.errors import UserError
from common.claims.claims import load_claims
from common.runs import runner
from common.runs.compose import compose
from common.runs.evidence import asked
from common.runs.runner import execute
from common.tables.tables import runnable
from papers.accelegrad.hinge import LinearSvm
from papers.accelegrad.module import Programme, Training
from papers.accelegrad.optimum import least_objective

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
PROGRAMME = ("paper=accelegrad", "dataset=synthetic_regression", "dataset.limit=40")


def result(folder: Path, *words: str) -> dict[str, Any]:
    config, request = compose([*words, f"output_dir={folder}", "logger=none", "trainer=cpu"])
    return execute(config, request).result


def metrics(folder: Path, *words: str) -> dict[str, Any]:
    return dict(result(folder, *words)["metrics"])


@pytest.mark.parametrize("p", [1, 2])
def test_a_programmes_curve_and_gap_are_those_of_its_optimum(p: int, tmp_path: Path) -> None:
    found = result(tmp_path, *PROGRAMME, "method=convex/accelegrad", f"model.p={p}", "paper.epochs=400")
    last, history = found["metrics"], found["history"]
    assert last["gradient_calls"] == 400 == history["step"][-1]
    assert history["relative_gap"][-1] == pytest.approx(last["relative_gap"])
    assert last["relative_gap"] == pytest.approx(last["gap"] / last["minimum"])
    assert history["gap"][0] == pytest.approx(last["gap"] / last["gap_over_start"])
    below = [s for s, g in zip(history["step"], history["relative_gap"], strict=True) if g <= 1e-3]
    assert last["oracle_calls"] == (below[0] if below else None)
    assert bool(below) == (p == 2)


def test_a_consistent_system_has_no_relative_gap(tmp_path: Path) -> None:
    words = ("dataset.noise=0.0", "paper.epochs=20", "method=convex/accelegrad")
    found = metrics(tmp_path, *PROGRAMME, *words)
    assert found["relative_gap"] is None and found["oracle_calls"] is None
    assert 0 < found["gap"] < 1e9


def test_the_optimizer_solves_the_programme_like_the_solver(tmp_path: Path) -> None:
    solver = metrics(tmp_path, *PROGRAMME, "method=convex/accelegrad", "method.D=1.0", "paper.epochs=50")
    optimizer = metrics(tmp_path, *PROGRAMME, "method=optimizer/accelegrad", "paper.epochs=50")
    assert optimizer["gap"] == pytest.approx(solver["gap"], rel=1e-6)


def test_repeats_draw_what_runs_with_their_seeds_draw(tmp_path: Path) -> None:
    words = (*PROGRAMME, "method=convex/accelegrad", "dataset.batch_size=4", "paper.epochs=10")
    both = metrics(tmp_path, *words, "paper.repeats=2", "seed=5")
    alone = [metrics(tmp_path, *words, f"seed={seed}")["gap"] for seed in (5, 6)]
    assert both["gap"] == pytest.approx(np.mean(alone), rel=1e-8)
    assert both["rows_seen"] == 400 and both["gradient_calls"] == 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*PROGRAMME, "paper.repeats=2"), "paper.repeats=2"),
        ((*PROGRAMME, "paper.test_every=1"), "paper.test_every=1"),
        ((*PROGRAMME, "paper.epochs=0"), "paper.epochs=0"),
        ((*PROGRAMME, "method=convex/universal_fgm", "dataset.batch_size=4"), "needs exact gradients"),
        ((*PROGRAMME, "method=convex/agd", "model.p=1"), "not smooth"),
        ((*PROGRAMME, "method=convex/accelegrad", "method.D=-1"), "D=-1"),
        (("paper=accelegrad", "dataset=digits", "method=convex/accelegrad"), "valid here: method=optimizer"),
        (("paper=accelegrad", "dataset=digits", "paper.repeats=2"), "only convex programmes repeat"),
        (("paper=accelegrad", "dataset=digits", "method.radius=0"), "radius=0"),
    ],
)
def test_bad_input_gets_one_line(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        result(tmp_path, *words)
    assert "\n" not in str(caught.value)


def test_a_programme_that_runs_away_ends_in_one_line(tmp_path: Path) -> None:
    words = ("method=convex/agd", "method.beta_scale=1e-3", "paper.epochs=5000")
    with pytest.raises(UserError, match="gap is not finite at step"):
        result(tmp_path, *PROGRAMME, *words)


def test_training_is_judged_at_the_average(tmp_path: Path) -> None:
    """On a convex problem: the reported loss is that of the averaged weights."""
    words = ("paper=accelegrad", "dataset=breast_cancer", "paper.epochs=3", "dataset.limit=100")
    config, request = compose([*words, f"output_dir={tmp_path}", "logger=none", "trainer=cpu"])
    found = execute(config, request).result["metrics"]
    saved = torch.load(next(tmp_path.rglob("last.ckpt")), map_location="cpu", weights_only=True)
    module = runner.build(config, request)
    module.data.setup()
    module.load_state_dict(saved["state_dict"])
    assert isinstance(module, Training)
    at_point = module.task.evaluate(module.model, module.data, "train")["train_loss"]
    optimizer = module.training_method.optimizer(list(module.model.parameters()))
    optimizer.load_state_dict(saved["optimizer_states"][0])
    with optimizer.averaged():  # type: ignore[attr-defined]
        at_average = module.task.evaluate(module.model, module.data, "train")["train_loss"]
    assert found["train_loss"] == pytest.approx(at_average, rel=1e-6)
    assert abs(at_point - at_average) > 1e-4


def test_statistics_of_batch_normalisation_are_measured_at_the_average_and_put_back(tmp_path: Path) -> None:
    config, request = compose(
        [
            "paper=accelegrad",
            "dataset=cifar10",
            "dataset.source=synthetic",
            "dataset.limit=64",
            "model=resnet8",
            f"output_dir={tmp_path}",
            "logger=none",
            "trainer=cpu",
        ]
    )
    module = runner.build(config, request)
    assert isinstance(module, Training)
    module.data.setup()
    parameters = list(module.model.parameters())
    optimizer = module._optimizer = module.training_method.optimizer(parameters)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    before = {name: value.clone() for name, value in module.model.state_dict().items()}
    norm = next(m for m in module.model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    means: list[Tensor] = []
    hook = module.model.register_forward_hook(
        lambda *_: means.append(norm.get_buffer("running_mean").clone())
    )
    first = module._evaluate("test")
    hook.remove()
    images, _ = module.data.batch("train", slice(None), augment=False)
    with optimizer.averaged():  # type: ignore[attr-defined]
        conv = next(m for m in module.model.modules() if isinstance(m, torch.nn.Conv2d))
        expected = conv(images).mean((0, 2, 3))
    torch.testing.assert_close(means[-1], expected.detach(), rtol=1e-4, atol=1e-5)
    after = module.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert module._evaluate("test") == first


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_the_least_objective_of_a_linear_svm_is_below_that_of_others(
    smoothing: float, tmp_path: Path
) -> None:
    words = ("paper=accelegrad", "dataset=breast_cancer", "dataset.normalise=unit_rows", "model=svm")
    shared = (*words, f"model.smoothing={smoothing}", "model.alpha=0.01")
    found = metrics(tmp_path, *shared, "paper.epochs=100", "dataset.batch_size=1000")
    assert -1e-6 < found["objective_gap"] < 0.02
    assert found["objective_minimum"] <= found["train_loss"] + 1e-6
    config, request = compose([*shared, f"output_dir={tmp_path}", "logger=none", "trainer=cpu"])
    module = runner.build(config, request)
    data: Any = module.data
    data.setup()
    model = LinearSvm(shape=data.shape, classes=2, smoothing=smoothing, alpha=0.01)
    inputs, labels = data.batch("train", slice(None), augment=False)
    least = least_objective(data, model)
    points = [LinearSVC(C=C, fit_intercept=False).fit(inputs, labels).coef_[0] for C in (0.01, 0.1, 1.0)]
    for point in [np.zeros(30), *points]:
        with torch.no_grad():
            model.w.copy_(torch.tensor(point))
            assert float(model.metrics_of(model(inputs), inputs, labels)["loss"]) >= least - 1e-6


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_the_least_objective_of_a_linear_svm_does_not_depend_on_the_unit_of_its_inputs(
    smoothing: float, unit: float
) -> None:
    """With inputs times a unit and alpha times its square, w / unit has the objective of w."""
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 5, generator=random, dtype=torch.float64)
    labels = (inputs[:, 0] + 0.5 * torch.randn(60, generator=random, dtype=torch.float64) > 0).long()

    def least(unit: float) -> float:
        data: Any = SimpleNamespace(batch=lambda *_, **__: (inputs * unit, labels))
        return least_objective(
            data, LinearSvm(shape=(5,), classes=2, smoothing=smoothing, alpha=0.01 * unit**2)
        )

    assert least(unit) == pytest.approx(least(1.0), rel=1e-5)


def test_the_tables_have_all_their_rows() -> None:
    """That each fits its files and one of each table builds is a test of the tables of all papers."""
    rows = runnable("accelegrad")
    assert len(rows) == 10 + 24 + 24 + 9 + 8
    assert len({row.table for row in rows}) == 5


@pytest.mark.parametrize(
    "entry", ["fig1.p1_universal_dgm", "fig1_sensitivity.p2_adagrad_d_scale10", "fig2.p1_sgd_b1000"]
)
def test_an_entry_runs_at_smoke_scale(entry: str, tmp_path: Path) -> None:
    found = metrics(tmp_path, f"entry=accelegrad.{entry}", "scale=smoke")
    assert found["relative_gap"] > 0


def test_figure_3_runs_on_synthetic_rows(tmp_path: Path) -> None:
    words = ("entry=accelegrad.fig3.rcv1_accelegrad_b64", "scale=smoke", "dataset.source=synthetic")
    assert metrics(tmp_path, *words)["objective_gap"] > -1e-6


def test_claims_are_runs_that_compose_and_those_they_share_are_asked_for_once() -> None:
    claims = load_claims("accelegrad")
    assert len(claims) >= 12
    for claim in claims:
        assert claim.says.strip()
        compose(list(claim.all_runs()[0].words))
    by_name = {claim.name.removeprefix("accelegrad."): claim for claim in claims}
    fast = {asked(run.words) for run in by_name["smooth_rate"].all_runs()}
    assert fast <= {asked(run.words) for run in by_name["smooth_rate_is_faster_than_adagrads"].all_runs()}


class _StopError(BaseException):
    """What stands for a kill."""


def test_a_killed_programme_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at an oracle call after the first checkpoint, then started again by the same words."""
    monkeypatch.setattr("papers.accelegrad.module.ROUND_SECONDS", 0.01)
    words = [*PROGRAMME, "method=convex/accelegrad", "dataset.batch_size=2", "paper.epochs=100"]
    whole = result(tmp_path / "whole", *words)
    part = tmp_path / "part"
    config, request = compose(
        [*words, f"output_dir={part}", "logger=none", "trainer=cpu", "checkpoint_every=0.01"]
    )
    oracle = Programme._oracle

    def dying(self: Programme, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.calls >= 300 and list(part.rglob("last.ckpt")):
            raise _StopError
        return oracle(self, x)

    with monkeypatch.context() as patch, pytest.raises(_StopError):
        patch.setattr(Programme, "_oracle", dying)
        execute(config, request)
    again = execute(config, request).result
    assert again["metrics"] == whole["metrics"]
    assert again["history"] == whole["history"]
