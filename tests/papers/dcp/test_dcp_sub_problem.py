"""The sub-problem's solvers: against closed forms, in all units, and never upward."""

import math

import numpy as np
import pytest
import torch
from dcp_toys import toy_inputs, toy_layer, toy_problem
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from papers.dcp.layer_problem import LayerProblem, Rows
from papers.dcp.quadratic import least_squares
from papers.dcp.selection import ChannelSelection
from papers.dcp.sub_problem import (
    Backtracking,
    GaussNewton,
    InverseLipschitz,
    LeastSquares,
    Minimiser,
    Point,
    Sgd,
    masked,
)

SAFE: list[Minimiser] = [Backtracking(), GaussNewton(), InverseLipschitz()]
CHOSEN = torch.tensor([True, False, True, True, False, True])


def design(problem: LayerProblem, bias: bool) -> np.ndarray:
    """The chosen channels' patches of every output position, and 1 for the bias."""
    columns = functional.unfold(problem.inputs, 3, padding=1).transpose(1, 2).flatten(0, 1)
    columns = columns[:, CHOSEN.repeat_interleave(9)]
    return np.hstack([columns.numpy(), *([np.ones((len(columns), 1))] if bias else [])])


def warm(problem: LayerProblem) -> Point:
    return Point(masked(problem, problem.start, CHOSEN), problem.start_bias)


@pytest.mark.parametrize("train_bias", [True, False])
def test_least_squares_is_that_of_numpy(train_bias: bool) -> None:
    problem = toy_problem(lam=0.0, train_bias=train_bias)
    assert problem.start_bias is not None
    targets = problem.baseline.flatten(2).transpose(1, 2).flatten(0, 1)
    if not train_bias:
        targets = targets - problem.start_bias
    expected = np.linalg.lstsq(design(problem, train_bias), targets.numpy(), rcond=None)[0].T
    found = LeastSquares().minimise(problem, warm(problem), CHOSEN, 0)
    np.testing.assert_allclose(found.weight[:, CHOSEN].flatten(1), expected[:, : 4 * 9], rtol=1e-7, atol=1e-9)
    assert found.bias is not None
    np.testing.assert_allclose(found.bias, expected[:, -1] if train_bias else problem.start_bias, rtol=1e-7)
    assert not found.weight[:, ~CHOSEN].any()


MANY: list[Minimiser] = [Backtracking(steps=400), GaussNewton(steps=9), InverseLipschitz(steps=6000)]


@pytest.mark.parametrize("minimiser", MANY, ids=lambda m: type(m).__name__)
def test_many_steps_end_at_the_least_squares_solution(minimiser: Minimiser) -> None:
    problem = toy_problem(lam=0.0)
    exact = LeastSquares().minimise(problem, warm(problem), CHOSEN, 0)
    found = minimiser.minimise(problem, warm(problem), CHOSEN, 0)
    least = problem.evaluate(exact.weight, exact.bias).loss
    assert problem.evaluate(found.weight, found.bias).loss == pytest.approx(least, rel=1e-4)


def test_sgd_is_pytorchs_on_the_chosen_channels() -> None:
    problem = toy_problem()
    found = Sgd(lr=0.05, batch_size=5, passes=2).minimise(problem, warm(problem), CHOSEN, 7)
    layer = toy_layer()
    with torch.no_grad():
        layer.weight.mul_(CHOSEN.view(1, -1, 1, 1))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4, nesterov=True)
    generator = torch.Generator().manual_seed(7)
    assert problem.tail is not None
    for _ in range(2):
        for rows in torch.randperm(12, generator=generator).split(5):
            outputs = layer(problem.inputs[rows])
            loss = 0.5 * functional.mse_loss(outputs, problem.baseline[rows]) + problem.tail(outputs, rows)
            optimizer.zero_grad()
            loss.backward()
            assert layer.weight.grad is not None
            layer.weight.grad.mul_(CHOSEN.view(1, -1, 1, 1))
            optimizer.step()
    torch.testing.assert_close(found.weight, layer.weight.detach())
    torch.testing.assert_close(found.bias, layer.bias.detach() if layer.bias is not None else None)


@pytest.mark.parametrize("minimiser", SAFE, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 0.0), (1e3, 1e-3)])
def test_a_safe_sub_problem_never_raises_the_loss(minimiser: Minimiser, weights: tuple[float, float]) -> None:
    problem = toy_problem(mse_weight=weights[0], lam=weights[1])
    before = problem.evaluate(*warm(problem)[:2]).loss
    found = minimiser.minimise(problem, warm(problem), CHOSEN, 0)
    assert found.evaluation is not None
    assert found.evaluation.loss == problem.evaluate(found.weight, found.bias).loss < before
    assert not found.weight[:, ~CHOSEN].any()


def in_units(scale: float, **settings: object) -> LayerProblem:
    """The problem with inputs so many times as large, and weights as much smaller: the same outputs."""
    layer = toy_layer()
    with torch.no_grad():
        layer.weight.div_(scale)
    return toy_problem(layer.float(), (scale * toy_inputs()).float(), train_bias=False, **settings)


@pytest.mark.parametrize("minimiser", [*SAFE, LeastSquares()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("scale", [2.0**-27, 2.0**27, 1e-8, 1e8])
def test_inputs_in_other_units_give_the_same_picks_and_losses(minimiser: Minimiser, scale: float) -> None:
    lam = 0.0 if isinstance(minimiser, LeastSquares) else 1.0
    selection = ChannelSelection(minimiser=minimiser)
    found = selection.select(in_units(scale, lam=lam), 4)
    expected = selection.select(in_units(1.0, lam=lam), 4)
    assert found.picks == expected.picks
    assert found.losses == pytest.approx(expected.losses, rel=1e-3)
    torch.testing.assert_close(found.weight * scale, expected.weight, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_outputs_in_other_units_do_not_make_it_diverge(scale: float, lam: float) -> None:
    layer = toy_layer().float()
    problem = toy_problem(layer, (scale * toy_inputs()).float(), lam=lam, train_bias=False)
    found = ChannelSelection().select(problem, 4)
    losses = [found.start_loss, *found.losses]
    assert all(math.isfinite(loss) for loss in losses) and found.weight.isfinite().all()
    if lam == 0:
        assert found.losses[-1] < 0.5 * found.start_loss


def test_one_over_the_lipschitz_constant_is_that_of_the_gram_matrix() -> None:
    problem = toy_problem(lam=0.0, train_bias=False)
    columns = functional.unfold(problem.inputs, 3, padding=1).transpose(1, 2).flatten(0, 1).numpy()
    top = np.linalg.norm(columns, 2) ** 2 / problem.baseline.numel()
    start = warm(problem)
    found = InverseLipschitz(steps=1).minimise(problem, start, CHOSEN, 0)
    gradient = masked(problem, problem.evaluate(start.weight, start.bias).weight_gradient, CHOSEN)
    torch.testing.assert_close(found.weight, start.weight - gradient / top)


def test_a_step_of_gauss_newton_is_newtons_where_the_loss_is_a_quadratic() -> None:
    problem = toy_problem(mse_weight=3.0, lam=0.0)
    exact = LeastSquares().minimise(problem, warm(problem), CHOSEN, 0)
    found = GaussNewton(steps=1, damping=1e-9).minimise(problem, warm(problem), CHOSEN, 0)
    torch.testing.assert_close(found.weight, exact.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.bias, exact.bias, rtol=1e-5, atol=1e-6)


def test_gauss_newton_gets_further_than_the_gradient_where_inputs_are_in_different_units() -> None:
    units = torch.tensor([1.0, 1e2, 1e-2, 1.0, 1.0, 1e3], dtype=torch.float64).view(1, -1, 1, 1)
    layer = toy_layer()
    with torch.no_grad():
        layer.weight.div_(units)
    problem = toy_problem(layer, toy_inputs() * units)
    start = warm(problem)
    plain = Backtracking(steps=3).minimise(problem, start, CHOSEN, 0)
    scaled = GaussNewton(steps=3).minimise(problem, start, CHOSEN, 0)
    same = GaussNewton(steps=3).minimise(toy_problem(), warm(toy_problem()), CHOSEN, 0)
    assert plain.evaluation is not None and scaled.evaluation is not None and same.evaluation is not None
    assert scaled.evaluation.loss < 0.9 * plain.evaluation.loss
    assert scaled.evaluation.loss == pytest.approx(same.evaluation.loss, rel=1e-6)


def test_a_layer_with_too_many_inputs_for_a_gram_matrix_takes_plain_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("papers.dcp.layer_problem", "papers.dcp.sub_problem"):
        monkeypatch.setattr(f"{module}.LARGEST", 10)
    problem = toy_problem(name="fc6")
    found = GaussNewton().minimise(problem, warm(problem), CHOSEN, 0)
    plain = Backtracking().minimise(problem, warm(problem), CHOSEN, 0)
    assert torch.equal(found.weight, plain.weight)
    with pytest.raises(
        UserError, match=r"^layer fc6: the Gram matrix of 54 inputs is too large \(valid: up to 10"
    ):
        InverseLipschitz().minimise(problem, warm(problem), CHOSEN, 0)


def test_a_channel_in_small_units_counts_as_any_other_in_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    targets = torch.randn(30, 2, generator=generator, dtype=torch.float64)
    units = torch.tensor([1.0, 1e-8, 1e8, 1e-3], dtype=torch.float64)
    plain = least_squares(features.T @ features, features.T @ targets)
    scaled = features * units
    found = least_squares(scaled.T @ scaled, scaled.T @ targets)
    torch.testing.assert_close(found * units.unsqueeze(1), plain)


def test_least_squares_of_features_that_are_zero_or_alike_is_finite_and_fits() -> None:
    features = torch.tensor([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0], [-1.0, -1.0, 0.0]]).double()
    targets = features[:, :1] * 3
    found = least_squares(features.T @ features, features.T @ targets)
    torch.testing.assert_close(found, torch.tensor([[1.5], [1.5], [0.0]]).double())
    assert least_squares(torch.zeros(2, 2).double(), torch.zeros(2, 1).double()).tolist() == [[0.0], [0.0]]


def test_an_exact_refit_with_a_discrimination_loss_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"^layer conv3: least_squares .*lam=0"):
        ChannelSelection(minimiser=LeastSquares()).select(toy_problem(name="conv3"), 2)


def test_one_over_lipschitz_without_reconstruction_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"^layer conv3: inverse_lipschitz .*mse_weight > 0"):
        ChannelSelection(minimiser=InverseLipschitz()).select(toy_problem(name="conv3", mse_weight=0.0), 2)


@pytest.mark.parametrize("settings", [{"lr": 0.0}, {"lr": math.nan}, {"momentum": 1.0}, {"batch_size": 0}])
def test_settings_of_sgd_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"^method.minimiser\."):
        Sgd(**settings)  # type: ignore[arg-type]


def test_a_step_into_a_region_without_numbers_is_shortened() -> None:
    layer = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1.0]]))

    def tail(outputs: Tensor, rows: Rows) -> Tensor:
        # defined below 3 only, least at 2
        return -outputs.mean() - (3 - outputs).log().mean()

    problem = LayerProblem(layer, torch.ones(4, 2).double(), torch.zeros(4, 1).double(), tail, mse_weight=0.0)
    problem.name = "linear"
    point = Backtracking(steps=30).minimise(
        problem, Point(layer.weight.detach(), None, 1e6), torch.ones(2).bool(), 0
    )
    assert float(point.weight.sum()) == pytest.approx(2.0, abs=1e-3)
