"""Expected improvement against its integral and 60 digits, at the ends, in any units; outliers."""

import math

import mpmath
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from common.numerics.improvement import expected_improvement, log_expected_improvement
from common.numerics.outliers import drawn_in


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("mean", "deviation", "best"), [(0.5, 0.2, 0.61), (0.7, 0.1, 0.61), (0.2, 0.7, 0.91), (-3.0, 1.0, 0.0)]
)
def test_expected_improvement_is_its_integral(mean: float, deviation: float, best: float) -> None:
    density = norm(mean, deviation).pdf
    expected = quad(lambda y: (y - best) * density(y), best, mean + 12 * deviation, epsabs=1e-14)[0]
    assert float(expected_improvement(numbers(mean), numbers(deviation), best)) == pytest.approx(
        expected, rel=1e-7
    )


@pytest.mark.parametrize("u", [3.0, 0.0, -0.99, -1.01, -5.0, -20.0, -37.0])
def test_expected_improvement_has_twelve_digits_also_where_its_terms_cancel(u: float) -> None:
    mpmath.mp.dps = 60
    exact = mpmath.npdf(u) + u * mpmath.ncdf(u)
    found = expected_improvement(numbers(2.0 * u - 7.0), numbers(2.0), numbers(-7.0))
    assert float(found) == pytest.approx(float(2 * exact), rel=1e-12)


def test_without_deviation_it_is_what_the_mean_says_and_far_down_it_is_nothing() -> None:
    found = expected_improvement(numbers(1.0, 3.0, 2.0), numbers(0.0, 0.0, 0.0), 2.0)
    assert found.tolist() == [0.0, 1.0, 0.0]
    assert float(expected_improvement(numbers(-1e9), numbers(1e-9), 0.0)) == 0.0


def test_it_is_never_negative_and_rises_with_mean_and_deviation() -> None:
    grid = torch.linspace(-1, 2, 40, dtype=torch.float64)
    for deviation in (0.0, 1e-3, 0.5):
        by_mean = expected_improvement(grid, torch.full_like(grid, deviation), 0.5)
        assert bool((by_mean >= 0).all()) and bool((by_mean.diff() >= 0).all())
    assert bool((expected_improvement(torch.full_like(grid, 0.2), grid.clamp_min(0), 0.5).diff() >= 0).all())


@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_units_do_not_matter(factor: float) -> None:
    mean, deviation = numbers(0.1, 0.5, -2.0), numbers(1.0, 0.2, 3.0)
    one = expected_improvement(mean, deviation, 0.3)
    other = expected_improvement(factor * mean, factor * deviation, 0.3 * factor)
    torch.testing.assert_close(other / factor, one, rtol=1e-9, atol=0)
    torch.testing.assert_close(log_expected_improvement(mean, deviation, 0.3), one.log(), rtol=1e-9, atol=0)


def test_its_gradient_is_that_of_finite_differences_and_finite_far_down() -> None:
    mean = numbers(0.1, -3.0, 2.0).requires_grad_()
    deviation = numbers(1.0, 0.7, 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda m, s: expected_improvement(m, s, 0.3), [mean, deviation])
    far = numbers(-1e9).requires_grad_()
    (slope,) = torch.autograd.grad(expected_improvement(far, numbers(1e-9), 0.0), far)
    assert float(slope) == 0.0


@pytest.mark.parametrize("u", [3.0, 0.0, -0.99, -1.01, -5.0, -40.0, -999.0, -9999.0, -1e5, -1e8])
def test_log_ei_is_right_where_ei_is_zero_in_floating_point(u: float) -> None:
    mpmath.mp.dps = 60
    exact = mpmath.log(mpmath.npdf(u) + u * mpmath.ncdf(u)) if u > -1e3 else None
    if exact is None:
        # phi(u) / u^2 (1 - 3 / u^2 + 15 / u^4)
        v = mpmath.mpf(u) ** 2
        exact = -v / 2 - mpmath.log(2 * mpmath.pi) / 2 - mpmath.log(v) + mpmath.log(1 - 3 / v + 15 / v**2)
    mean = torch.tensor(2.0 * u - 7.0, dtype=torch.float64, requires_grad=True)
    two, alpha = torch.tensor([2.0, -7.0], dtype=torch.float64)
    value = log_expected_improvement(mean, two, alpha)
    assert float(value.detach()) == pytest.approx(float(exact + mpmath.log(2)), rel=1e-9, abs=1e-9)
    (slope,) = torch.autograd.grad(value, mean)
    # its derivative is Phi(u) / h(u) / deviation, about |u| / deviation far down
    assert float(slope) > 0 and (u > -5 or float(slope) == pytest.approx(-u / 2, rel=0.1))


def test_a_diverged_value_changes_nothing_but_itself() -> None:
    y = numbers(1.0, 2.0, 3.0, 4.0, -1e19, 50.0)
    found = drawn_in(y)
    low, high = y.quantile(0.25), y.quantile(0.75)
    assert found[4] == low - 3 * (high - low) and found[5] == 50.0 and torch.equal(found[:4], y[:4])
    assert math.isfinite(float(found.var()))


def test_values_of_which_most_are_equal_stay_as_they_are() -> None:
    y = numbers(1.0, 1.0, 1.0, 1.0, -9.0)
    assert torch.equal(drawn_in(y), y)
