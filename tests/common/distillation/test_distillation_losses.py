import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from torch import Tensor
from torch.nn import functional

from common.distillation.ensembles import averaged
from common.distillation.losses import at_loss, attention_map, kd_loss, unit_vectors
from papers.factor_transfer.factor_transfer import factor_loss


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


@pytest.mark.parametrize(
    ("dtype", "factor"),
    [(torch.float32, f) for f in (2.0**-80, 2.0**100)] + [(torch.float64, f) for f in (2.0**-900, 2.0**900)],
)
def test_attention_maps_have_no_unit_where_squares_of_it_have_no_number(
    dtype: torch.dtype, factor: float
) -> None:
    feature = normal(3, 4, 5, 5).to(dtype)
    torch.testing.assert_close(attention_map(factor * feature), attention_map(feature), rtol=0, atol=0)
    vectors = normal(3, 7).to(dtype)
    torch.testing.assert_close(unit_vectors(factor * vectors), unit_vectors(vectors), rtol=0, atol=0)
    values = feature.requires_grad_()
    (slope,) = torch.autograd.grad(attention_map(values).square().mul(torch.arange(25)).sum(), values)
    scaled = (factor * feature.detach()).requires_grad_()
    (other,) = torch.autograd.grad(attention_map(scaled).square().mul(torch.arange(25)).sum(), scaled)
    torch.testing.assert_close(factor * other, slope, rtol=1e-5, atol=1e-6)


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


WIDE = {torch.float64: torch.float64}
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
LOSSES = {
    "kd": lambda s, t: kd_loss(s.flatten(1), t.flatten(1), 3.0, "sample"),
    "at": lambda s, t: at_loss(attention_map(s), attention_map(t), "mean_square"),
    "at_norm": lambda s, t: at_loss(attention_map(s), attention_map(t), "norm"),
    "factor": lambda s, t: factor_loss(s, t, 1, "mean"),
    "factor_2": lambda s, t: factor_loss(s, t, 2, "norm"),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_compute_in_float64_what_is_float64_and_all_else_in_float32(
    name: str, dtype: torch.dtype
) -> None:
    student, teacher = normal(4, 3, 4, 4).to(dtype), normal(4, 3, 4, 4, seed=1).to(dtype)
    wide = WIDE.get(dtype, torch.float32)
    found = LOSSES[name](student, teacher)
    assert found.dtype == wide
    torch.testing.assert_close(found, LOSSES[name](student.to(wide), teacher.to(wide)), rtol=0, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_in_float64_are_those_of_differences(name: str) -> None:
    student = normal(2, 3, 3, 3).double().requires_grad_()
    teacher = normal(2, 3, 3, 3, seed=1).double()
    assert torch.autograd.gradcheck(lambda s: LOSSES[name](s, teacher), student)


@pytest.mark.parametrize("unit", [1e-8, 1e-4, 1e4, 1e8])
@pytest.mark.parametrize("name", ["at", "at_norm", "factor", "factor_2"])
def test_losses_of_features_do_not_depend_on_the_features_unit(name: str, unit: float) -> None:
    student, teacher = normal(4, 3, 4, 4), normal(4, 3, 4, 4, seed=1)
    torch.testing.assert_close(
        LOSSES[name](unit * student, teacher), LOSSES[name](student, teacher), rtol=1e-5, atol=0
    )


def test_unit_vectors_are_torchs_to_the_last_bit_and_those_of_zero_are_zero() -> None:
    vectors = normal(16, 100)
    assert torch.equal(unit_vectors(vectors), functional.normalize(vectors, dim=1))
    assert torch.equal(unit_vectors(torch.zeros(2, 3)), torch.zeros(2, 3))
    assert unit_vectors(torch.tensor([[math.nan, 1.0]])).isnan().any()
    for unit in (1e-37, 1e30):
        torch.testing.assert_close(unit_vectors(unit * vectors), unit_vectors(vectors), rtol=1e-5, atol=1e-7)


def test_an_ensemble_averages_float64_logits_in_float64() -> None:
    logits = normal(5, 4).double()
    _, scores = averaged([torch.nn.Identity(), torch.nn.Identity()])(logits)
    torch.testing.assert_close(scores, functional.softmax(logits, dim=1), rtol=0, atol=1e-15)
