"""Models with convex objectives: regression in the p-norm, and support vector machines."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.base.errors import UserError
from papers.accelegrad.hinge import LinearSvm
from papers.accelegrad.lp_regression import LpRegression


def svm(smoothing: float, alpha: float = 0.1) -> LinearSvm:
    return LinearSvm(shape=(2, 3), classes=2, smoothing=smoothing, alpha=alpha)


@pytest.mark.parametrize("p", [1, 2])
def test_lp_regression_is_the_sum_of_powers(p: int) -> None:
    model = LpRegression(shape=(3,), classes=None, p=p)
    rows, targets = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    assert torch.equal(model(rows), torch.zeros(5, dtype=torch.float64))
    model.x.data.normal_()
    expected = sum(abs(float(r @ model.x.data - t)) ** p for r, t in zip(rows, targets, strict=True))
    assert float(model.loss(model(rows), targets)) == pytest.approx(expected)


@given(margin=st.floats(-3, 3), smoothing=st.floats(0.1, 2))
def test_the_smoothed_hinge_has_its_three_pieces_and_is_at_most_the_hinge(
    margin: float, smoothing: float
) -> None:
    score, one = torch.tensor([margin], dtype=torch.float64), torch.tensor([1])
    found = float(svm(smoothing).losses(score, one))
    if margin >= 1:
        expected = 0.0
    elif margin >= 1 - smoothing:
        expected = (1 - margin) ** 2 / (2 * smoothing)
    else:
        expected = 1 - margin - smoothing / 2
    hinge = float(svm(0.0).losses(score, one))
    assert found == pytest.approx(expected, abs=1e-12)
    assert hinge == pytest.approx(max(0.0, 1 - margin))
    assert 0 <= hinge - found <= smoothing / 2 + 1e-12
    assert float(svm(smoothing).losses(-score, torch.tensor([0]))) == pytest.approx(found)


def test_an_svms_metrics_are_its_objective_and_accuracy() -> None:
    model = svm(0.0)
    model.w.data = torch.tensor([1.0, 0, 0, 0, 0, 2])
    inputs = torch.zeros(2, 2, 3)
    inputs[0, 0, 0], inputs[1, 1, 2] = 0.5, 1.0
    found = model.metrics_of(model(inputs), inputs, torch.tensor([1, 0]))
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {"loss": (0.5 + 3) / 2 + 0.25, "accuracy": 0.5, "error": 50}
    )
    assert float(
        model.loss_of(model(inputs), inputs, torch.tensor([1, 0])) + model.penalty()
    ) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LpRegression(shape=(3,), classes=None, p=3), "model.p=3"),
        (lambda: LpRegression(shape=(3,), classes=2, p=1), "lp_regression"),
        (lambda: LpRegression(shape=(3, 1), classes=None, p=1), "rows of numbers"),
        (lambda: svm(-1.0), "model.smoothing=-1.0"),
        (lambda: svm(float("nan")), "model.smoothing=nan"),
        (lambda: svm(0.0, alpha=0.0), "model.alpha=0.0"),
        (lambda: LinearSvm(shape=(3,), classes=10, smoothing=0.0, alpha=1.0), "10"),
    ],
)
def test_what_does_not_fit_is_refused(build: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()
