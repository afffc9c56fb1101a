"""Range BN: its constants, its invariances, and its backward against autograd."""

import math

import pytest
import torch
from scipy import integrate, stats
from torch import Tensor, nn

from common.base.errors import UserError
from common.quantization.range_norm import (
    L1Norm,
    RangeNorm,
    chunk_extremes,
    l1_norm,
    range_factor,
    range_norm,
)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def expected_range(count: int) -> float:
    """d2(n), the expected range of n standard normal numbers (Tippett 1925)."""
    return integrate.quad(
        lambda x: 1 - stats.norm.cdf(x) ** count - stats.norm.sf(x) ** count, -12, 12, limit=200
    )[0]


def reference(inputs: Tensor, weight: Tensor, bias: Tensor, factor: float, chunks: int, eps: float) -> Tensor:
    """Range BN of autograd's parts, as the authors' code lays the values out."""
    rows = inputs.transpose(0, 1).flatten(1)
    pieces = rows.view(rows.shape[0], chunks, -1)
    spread = pieces.amax(2).mean(1) - pieces.amin(2).mean(1)
    along = (-1, *[1] * (inputs.ndim - 2))
    mean, scale = rows.mean(1).view(along), (factor * spread + eps).view(along)
    return (inputs - mean) / scale * weight.view(along) + bias.view(along)


@pytest.mark.parametrize(("count", "constant"), [(2, 1.12838), (10, 3.07751), (25, 3.93063)])
def test_the_expected_range_is_that_of_control_charts(count: int, constant: float) -> None:
    assert expected_range(count) == pytest.approx(constant, abs=6e-6)


@pytest.mark.parametrize("count", [10, 25, 1000, 100_000])
def test_the_scale_of_normal_numbers_is_what_the_factor_times_the_expected_range_says(count: int) -> None:
    ratio = range_factor(count) * expected_range(count)
    assert 1.2 <= ratio <= 2
    if count <= 1000:
        inputs = normal(count, 2000)
        _, _, scale = range_norm(inputs, torch.ones(2000).double(), torch.zeros(2000).double(), eps=0)
        assert float(scale.mean()) == pytest.approx(ratio, rel=0.02)
        assert 0.325 < float(scale.mean()) < 2


def test_the_codes_factor_makes_the_scale_nearly_the_standard_deviation() -> None:
    for count in (128, 512, 2048):
        assert 0.85 < range_factor(count, "code") * expected_range(count) < 1
    assert range_factor(100, "code") / range_factor(100) == pytest.approx(0.5402, abs=1e-4)
    assert range_factor(100, "none") == 1
    assert range_factor(100, "double") == 4 * range_factor(100, "half") == 2 * range_factor(100, "paper")


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((8, 3, 5, 4), 1),
        ((16, 3, 5, 4), 16),
        ((4, 2, 6, 4), 16),
        ((3, 2, 16), 4),
        ((32, 5), 16),
    ],
)
@pytest.mark.parametrize("scale", ["paper", "code", "none"])
def test_output_and_all_gradients_are_those_of_autograds_parts(
    shape: tuple[int, ...], chunks: int, scale: str
) -> None:
    parts = [normal(*shape), normal(shape[1], seed=1), normal(shape[1], seed=2)]
    upstream = normal(*shape, seed=3)
    count = parts[0].numel() // shape[1] // chunks
    found, expected = [], []
    for mine, into in ((True, found), (False, expected)):
        leaves = [part.clone().requires_grad_() for part in parts]
        if mine:
            output = range_norm(*leaves, scale=scale, chunks=chunks, eps=1e-3)[0]
        else:
            output = reference(*leaves, range_factor(count, scale), chunks, 1e-3)
        into += [output.detach(), *torch.autograd.grad(output, leaves, upstream)]
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("chunks", [1, 4])
def test_the_backward_agrees_with_finite_differences(chunks: int) -> None:
    leaves = [part.requires_grad_() for part in (normal(4, 2, 3, 2), normal(2, seed=1), normal(2, seed=2))]
    assert torch.autograd.gradcheck(
        lambda *given: range_norm(*given, chunks=chunks, scale="code")[0], leaves, eps=1e-7, atol=1e-6
    )


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("shift", [0.0, 2.0])
@pytest.mark.parametrize("chunks", [1, 16])
def test_unit_and_shift_of_the_inputs_do_not_change_the_output(
    unit: float, shift: float, chunks: int
) -> None:
    inputs, weight, bias = normal(16, 3, 4, 4), normal(3, seed=1), normal(3, seed=2)
    base, _, scale = range_norm(inputs, weight, bias, chunks=chunks, eps=0)
    moved, _, other = range_norm(unit * (inputs + shift), weight, bias, chunks=chunks, eps=0)
    torch.testing.assert_close(moved, base)
    torch.testing.assert_close(other, unit * scale)


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("chunks", [1, 16])
def test_the_gradient_sums_to_nothing_and_stands_orthogonal_on_the_centred_inputs(
    unit: float, chunks: int
) -> None:
    inputs = (unit * normal(16, 3, 4, 4)).requires_grad_()
    output, mean, _ = range_norm(inputs, normal(3, seed=1), normal(3, seed=2), chunks=chunks, eps=0)
    output.backward(normal(16, 3, 4, 4, seed=3))
    gradient = inputs.grad.transpose(0, 1).flatten(1)
    centred = inputs.detach().transpose(0, 1).flatten(1) - mean[:, None]
    size = gradient.norm(dim=1)
    assert (gradient.sum(1).abs() < 1e-11 * size).all()
    assert ((gradient * centred).sum(1).abs() < 1e-11 * size * centred.norm(dim=1)).all()


def test_of_equal_extremes_one_takes_the_gradient() -> None:
    inputs = torch.tensor([3.0, 3.0, 1.0, 1.0, 2.0]).double()[:, None].requires_grad_()
    output, _, _ = range_norm(inputs, torch.ones(1).double(), torch.zeros(1).double(), eps=0)
    upstream = normal(5, 1)
    output.backward(upstream)
    # what is left when the parts of the mean and of the division are taken away
    slope = 1 / (range_factor(5) * 2)
    own = inputs.grad[:, 0] - slope * (upstream[:, 0] - upstream.mean())
    assert (own.abs() > 1e-9).sum() == 2
    assert float(own[:2].sum()) == pytest.approx(-float(own[2:4].sum()))


def test_largest_values_are_found_in_chunks_across_and_within_examples() -> None:
    for batch, pixels, chunks in ((6, 4, 3), (2, 6, 4), (3, 8, 12), (8, 1, 4), (5, 7, 1)):
        inputs = normal(batch, 3, pixels, seed=batch)
        values, where = chunk_extremes(inputs, chunks)
        expected = inputs.transpose(0, 1).reshape(3, chunks, -1).amax(2)
        assert torch.equal(values, expected)
        assert torch.equal(inputs.flatten()[where], expected)


@pytest.mark.parametrize("norm", [RangeNorm, L1Norm])
@pytest.mark.parametrize("value", [0.0, 5.0])
def test_equal_values_give_the_bias_and_a_finite_gradient(norm: type[nn.Module], value: float) -> None:
    for eps in (0.0, 1e-5):
        layer = norm(2, eps=eps, momentum=0.9, bits=8, bits_norm=8, grad_bits=8)
        inputs = torch.full((4, 2, 3, 3), value, requires_grad=True)
        output = layer(inputs)
        output.sum().backward()
        assert torch.equal(output, torch.zeros_like(output))
        assert inputs.grad.isfinite().all() and layer.weight.grad.isfinite().all()


def test_l1_norm_divides_by_the_mean_deviation_which_is_the_standard_one_of_normal_numbers() -> None:
    inputs = 3 * normal(20_000, 2) + 1
    output, mean, scale = l1_norm(inputs, torch.ones(2).double(), torch.zeros(2).double(), 0.0)
    deviation = (inputs - inputs.mean(0)).abs().mean(0)
    torch.testing.assert_close(output, (inputs - mean) / (deviation * math.sqrt(math.pi / 2)))
    torch.testing.assert_close(scale, torch.full((2,), 3.0).double(), rtol=0.02, atol=0)


@pytest.mark.parametrize(("momentum", "last"), [(0.1, 0.9), (0.9, 0.1)])
def test_the_momentum_weighs_the_old_average_and_the_first_batch_begins_it(
    momentum: float, last: float
) -> None:
    layer = RangeNorm(3, eps=0.0, momentum=momentum)
    batches = [normal(10, 3, seed=i).float() + i for i in range(2)]
    for batch in batches:
        layer(batch)
    means = [batch.mean(0) for batch in batches]
    torch.testing.assert_close(layer.running_mean, (1 - last) * means[0] + last * means[1])
    scales = [range_factor(10) * (batch.amax(0) - batch.amin(0)) for batch in batches]
    torch.testing.assert_close(layer.running_scale, (1 - last) * scales[0] + last * scales[1])
    layer.eval()
    torch.testing.assert_close(layer(batches[0]), (batches[0] - layer.running_mean) / layer.running_scale)


def test_the_gradient_of_1_over_scale_is_that_of_the_scale_when_it_is_quantised_finely() -> None:
    inputs = normal(8, 4, 3).requires_grad_()
    gradients = []
    for bits in (32, 20):
        output, _, _ = range_norm(inputs, normal(4, seed=1), normal(4, seed=2), scale_bits=bits)
        gradients += torch.autograd.grad(output, inputs, normal(8, 4, 3, seed=3))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_the_quantised_layer_has_few_values_and_a_few_valued_gradient() -> None:
    layer = RangeNorm(3, eps=1e-5, momentum=0.9, bits=2, bits_norm=2, grad_bits=2, grad_stochastic=False)
    inputs = normal(8, 3, 4, dtype=torch.float32).requires_grad_()
    output = layer(inputs)
    for channel in range(3):
        assert output[:, channel].unique().numel() <= 4
    assert layer.activation is not None and int(layer.activation.batches) == 1


@pytest.mark.parametrize(
    ("shape", "chunks", "said"),
    [((5, 2), 16, "16 chunks do not divide the 5 values"), ((16, 2), 16, "1 value.s. a channel and chunk")],
)
def test_a_batch_that_the_chunks_do_not_divide_is_refused_in_one_line(
    shape: tuple[int, ...], chunks: int, said: str
) -> None:
    layer = RangeNorm(2, eps=1e-5, momentum=0.9, chunks=chunks)
    with pytest.raises(UserError, match=said):
        layer(normal(*shape).float())
    # evaluation uses the running statistics
    assert layer.eval()(normal(*shape).float()).isfinite().all()
