"""The factor loss: against float64 numpy, its bounds, its invariances and its gradient."""

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from papers.factor_transfer.factor_transfer import FactorReduction, factor_loss, size_factor

CASES: list[tuple[int, FactorReduction]] = [(1, "mean"), (1, "norm"), (2, "mean"), (2, "norm")]


def factors(seed: int, batch: int = 3, shape: tuple[int, ...] = (4, 5, 5)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    own, other = torch.randn(2, batch, *shape, generator=generator)
    return own, other


def reference(student: Tensor, teacher: Tensor, p: int, reduction: str) -> float:
    """Sample by sample in float64, as the formula stands in the paper."""
    norms = []
    for own, other in zip(student.double().numpy(), teacher.double().numpy(), strict=True):
        difference = other.ravel() / np.sqrt((other**2).sum()) - own.ravel() / np.sqrt((own**2).sum())
        norm = (np.abs(difference) ** p).sum() ** (1 / p)
        norms.append(norm if reduction == "norm" else norm / difference.size ** (1 / p))
    return float(np.mean(norms))


@pytest.mark.parametrize(("p", "reduction"), CASES)
@given(seed=st.integers(0, 10**6), batch=st.integers(1, 4), channels=st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_the_loss_equals_the_formula_in_float64(
    p: int, reduction: FactorReduction, seed: int, batch: int, channels: int
) -> None:
    own, other = factors(seed, batch, (channels, 3, 2))
    expected = reference(own, other, p, reduction)
    assert factor_loss(own, other, p, reduction).item() == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_with_p_1_the_mean_is_torchs_l1_loss_of_the_unit_vectors() -> None:
    own, other = factors(0)
    units = [f.flatten(1) / f.flatten(1).norm(dim=1, keepdim=True) for f in (own, other)]
    expected = torch.nn.functional.l1_loss(*units)
    torch.testing.assert_close(factor_loss(own, other, 1, "mean"), expected)


@pytest.mark.parametrize(("p", "reduction"), CASES)
def test_the_scale_of_a_sample_does_not_matter(p: int, reduction: FactorReduction) -> None:
    own, other = factors(1)
    before = factor_loss(own, other, p, reduction)
    scales = torch.tensor([0.01, 3.0, 200.0])[:, None, None, None]
    torch.testing.assert_close(factor_loss(scales * own, other, p, reduction), before)
    torch.testing.assert_close(factor_loss(own, scales * other, p, reduction), before)


@pytest.mark.parametrize(("p", "reduction"), CASES)
def test_the_loss_is_0_for_positive_multiples_only(p: int, reduction: FactorReduction) -> None:
    own, _ = factors(2)
    assert factor_loss(own, 7 * own, p, reduction) < 1e-6
    assert factor_loss(own, -own, p, reduction) > 1e-3


def test_the_square_of_the_2_norm_is_twice_one_minus_the_cosine() -> None:
    own, other = factors(3, batch=1)
    cosine = torch.nn.functional.cosine_similarity(own.flatten(1), other.flatten(1)).item()
    assert factor_loss(own, other, 2, "norm").item() ** 2 == pytest.approx(2 * (1 - cosine), rel=1e-5)


@given(seed=st.integers(0, 10**6), sign=st.sampled_from([-1, 1]))
@settings(max_examples=30, deadline=None)
def test_the_2_norm_is_at_most_2_and_the_1_norm_at_most_2_sqrt_d(seed: int, sign: Literal[-1, 1]) -> None:
    own, other = factors(seed)
    other = sign * own + 0.1 * other
    size = own[0].numel()
    assert factor_loss(own, other, 2, "norm") <= 2 + 1e-5
    one = factor_loss(own, other, 1, "norm")
    assert one <= 2 * math.sqrt(size) + 1e-4
    torch.testing.assert_close(factor_loss(own, other, 1, "mean"), one / size)


@pytest.mark.parametrize(("p", "reduction"), CASES)
def test_the_gradient_is_orthogonal_to_the_students_factor(p: int, reduction: FactorReduction) -> None:
    own, other = factors(4)
    own.requires_grad_(True)
    factor_loss(own, other, p, reduction).backward()
    assert own.grad is not None
    product = (own.grad * own).flatten(1).sum(1)
    sizes = own.grad.flatten(1).norm(dim=1) * own.flatten(1).norm(dim=1)
    assert (sizes > 0).all()
    assert (product.abs() < 1e-5 * sizes).all()


def test_the_gradient_equals_that_of_finite_differences() -> None:
    own, other = (f.double() for f in factors(5, batch=1, shape=(2, 2, 2)))
    # factor_loss computes in float32, whose rounding sets the tolerance
    own.requires_grad_(True)
    factor_loss(own, other, 2, "norm").backward()
    assert own.grad is not None
    for place in range(own.numel()):
        step = torch.zeros(own.numel(), dtype=torch.double)
        step[place] = 1e-6
        ends = [reference(own.detach() + sign * step.view_as(own), other, 2, "norm") for sign in (1, -1)]
        assert own.grad.flatten()[place].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-5)


@pytest.mark.parametrize("p", [1, 2])
def test_a_perfect_student_has_a_finite_gradient(p: int) -> None:
    own, _ = factors(6)
    own.requires_grad_(True)
    factor_loss(own, own.detach().clone(), p, "norm").backward()
    assert own.grad is not None
    assert own.grad.isfinite().all()


@pytest.mark.parametrize("p", [1, 2])
def test_half_the_numbers_make_the_mean_sqrt_2_times_as_large(p: int) -> None:
    whole = factor_loss(*factors(7, 50, (32, 8, 8)), p, "mean").item()
    half = factor_loss(*factors(8, 50, (16, 8, 8)), p, "mean").item()
    assert half / whole == pytest.approx(math.sqrt(2), rel=0.01)
    if p == 1:
        # independent normal factors: E|a - b| of numbers with the variance 1 / D
        assert whole == pytest.approx(2 / math.sqrt(math.pi * 2048), rel=0.01)


def test_half_precision_factors_are_compared_in_float32() -> None:
    own, other = factors(9)
    loss = factor_loss(own.bfloat16(), other.bfloat16(), 1, "mean")
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(factor_loss(own, other, 1, "mean").item(), rel=1e-2)


@pytest.mark.parametrize(("p", "reduction"), [(1, "mean"), (1, "norm"), (2, "mean"), (2, "norm")])
def test_the_size_factor_makes_up_for_what_more_numbers_do_to_the_loss(p: int, reduction: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 4, 8, 4, 4, generator=generator)
    # each number four times, as in a picture of twice the height and width
    larger = [factor.repeat_interleave(2, 2).repeat_interleave(2, 3) for factor in (student, teacher)]
    found = size_factor(4.0, p, reduction) * factor_loss(*larger, p, reduction)
    torch.testing.assert_close(found, factor_loss(student, teacher, p, reduction))
