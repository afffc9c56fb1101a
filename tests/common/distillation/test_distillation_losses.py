import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from torch import Tensor
from torch.nn import functional

from common.distillation.losses import at_loss, attention_map, kd_loss


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [1.0, 3.0, 4.0])
def test_kd_is_the_divergence_that_numpy_computes_in_double_precision(temperature: float) -> None:
    student, teacher = normal(6, 5), normal(6, 5, seed=1)
    s, t = (log_softmax(x.double().numpy() / temperature, axis=1) for x in (student, teacher))
    expected = temperature**2 * float(np.mean(np.sum(np.exp(t) * (t - s), axis=1)))
    assert float(kd_loss(student, teacher, temperature, "sample")) == pytest.approx(expected, rel=1e-5)


def test_the_mean_over_elements_is_as_many_times_weaker_as_there_are_classes() -> None:
    student, teacher = normal(6, 5), normal(6, 5, seed=1)
    by_sample, by_element = (kd_loss(student, teacher, 4.0, how) for how in ("sample", "element"))
    assert float(by_sample / by_element) == pytest.approx(5)
    log_student, probabilities = functional.log_softmax(student / 4, 1), functional.softmax(teacher / 4, 1)
    theirs = functional.kl_div(log_student, probabilities, reduction="none").mean()
    assert float(by_element) == pytest.approx(16 * float(theirs), rel=1e-5)


def test_a_student_that_equals_its_teacher_gets_no_gradient_from_kd() -> None:
    teacher = normal(4, 5)
    student = teacher.clone().requires_grad_()
    loss = kd_loss(student, teacher, 4.0, "sample")
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-6


def test_the_gradient_of_kd_is_that_of_cross_entropy_with_the_teachers_probabilities() -> None:
    student, teacher = normal(4, 5).requires_grad_(), normal(4, 5, seed=1)
    kd_loss(student, teacher, 3.0, "sample").backward()
    expected = 3.0 * (functional.softmax(student / 3, 1) - functional.softmax(teacher / 3, 1)) / 4
    assert student.grad is not None
    torch.testing.assert_close(student.grad, expected.detach())


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5), st.integers(0, 10_000))
def test_attention_maps_are_unit_vectors_whatever_the_scale_order_or_copies_of_channels(
    batch: int, channels: int, side: int, seed: int
) -> None:
    feature = normal(batch, channels, side, side, seed=seed)
    maps = attention_map(feature)
    torch.testing.assert_close(maps.norm(dim=1), torch.ones(batch))
    scales = torch.rand(batch, 1, 1, 1) + 0.5
    torch.testing.assert_close(attention_map(scales * feature), maps)
    torch.testing.assert_close(attention_map(feature[:, torch.randperm(channels)]), maps)
    torch.testing.assert_close(attention_map(feature.repeat(1, 3, 1, 1)), maps)


def test_at_in_both_reductions_is_what_numpy_computes() -> None:
    student, teacher = normal(3, 4, 5, 5), normal(3, 2, 5, 5, seed=1)
    maps = []
    for feature in (student, teacher):
        flat = np.mean(feature.double().numpy() ** 2, axis=1).reshape(3, -1)
        maps.append(flat / np.linalg.norm(flat, axis=1, keepdims=True))
    difference = maps[0] - maps[1]
    own, other = attention_map(student), attention_map(teacher)
    assert float(at_loss(own, other, "mean_square")) == pytest.approx(np.mean(difference**2), rel=1e-5)
    norms = np.mean(np.linalg.norm(difference, axis=1))
    assert float(at_loss(own, other, "norm")) == pytest.approx(norms, rel=1e-5)


@given(st.integers(0, 10_000))
def test_at_is_nothing_between_equals_and_never_above_two_over_the_pixels(seed: int) -> None:
    own, other = (
        attention_map(normal(3, 4, 5, 5, seed=seed)),
        attention_map(normal(3, 4, 5, 5, seed=seed + 1)),
    )
    assert float(at_loss(own, own, "mean_square")) == 0
    # both maps are non-negative unit vectors: ||q - q'||^2 = 2 - 2 q.q' <= 2
    assert float(at_loss(own, other, "mean_square")) <= 2 / 25 + 1e-6
    assert float(at_loss(own, other, "norm")) <= math.sqrt(2) + 1e-6
