"""The affine quantiser: what it must keep, against torch's own and against formulas."""

import math

import pytest
import torch
from torch import Tensor

from common.base.errors import UserError
from common.quantization.affine import (
    BLOCK,
    Grid,
    mid_rise,
    quantise,
    quantise_gradient,
    quantise_within,
    quantised,
    random_blocks,
    rounded,
    uniform,
    value_range,
)

BITS = (1, 2, 3, 4, 8, 12)
# exact powers of two and others, as units
UNITS = (1e-8, 2.0**-20, 1.0, 1e8)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("bits", BITS)
def test_nearest_values_are_few_near_ordered_and_stay_when_quantised_again(bits: int) -> None:
    values = normal(4000)
    found = quantise(values, bits)
    step = (values.max() - values.min()) / (2**bits - 1)
    assert found.unique().numel() <= 2**bits
    assert (found - values).abs().max() <= step / 2 * (1 + 1e-12)
    assert (found[values.argsort()].diff() >= 0).all()
    torch.testing.assert_close(quantise(found, bits), found, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.stack(value_range(found)), torch.stack(value_range(values)))


def test_the_integers_are_those_of_the_formula() -> None:
    values, low, high = normal(500), torch.tensor(-1.5).double(), torch.tensor(1.0).double()
    step = 2.5 / 255
    expected = (((values + 1.5) / step).round().clamp(0, 255)) * step - 1.5
    torch.testing.assert_close(quantise_within(values, low, high, 8), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_stochastic_rounding_is_unbiased_and_less_than_a_step_away(bits: int) -> None:
    torch.manual_seed(0)
    values, draws = normal(64), 4000
    many = quantise(values.expand(draws, -1), bits, stochastic=True)
    step = float(values.max() - values.min()) / (2**bits - 1)
    assert float((many - values).abs().max()) < step
    # the mean of so many draws of variance at most step^2 / 4
    assert float((many.mean(0) - values).abs().max()) < 5 * step / 2 / math.sqrt(draws)


def test_stochastic_rounding_leaves_whole_numbers_alone() -> None:
    whole = torch.arange(256, dtype=torch.float32).repeat(4000)
    assert torch.equal(rounded(whole.clone(), uniform(whole)), whole)


def test_the_random_numbers_are_uniform_and_their_neighbours_independent() -> None:
    torch.manual_seed(0)
    noise = uniform(torch.empty(400_001, dtype=torch.float64))
    assert float(noise.min()) > 0 and float(noise.max()) < 1
    counts = torch.histc(noise, 20, 0, 1)
    assert float(((counts - counts.mean()) ** 2 / counts.mean()).sum()) < 45
    for gap in (1, 2, 3, 4):
        assert abs(float(torch.corrcoef(torch.stack([noise[gap:], noise[:-gap]]))[0, 1])) < 0.008


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_a_unit_and_a_shift_change_no_integer(unit: float, shift: float) -> None:
    values = normal(2000)
    whole = Grid.of_range(*value_range(values), 8).codes(values)
    moved = unit * (values + shift)
    assert torch.equal(Grid.of_range(*value_range(moved), 8).codes(moved), whole)
    torch.testing.assert_close(quantise(moved, 8), unit * (quantise(values, 8) + shift))


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("true_zero", [False, True])
@pytest.mark.parametrize("stochastic", [False, True])
def test_constant_and_all_zero_tensors_stay_what_they_are(
    unit: float, true_zero: bool, stochastic: bool
) -> None:
    for value in (0.0, unit, -unit):
        values = torch.full((5, 3), value)
        found = quantise(values, 8, true_zero=true_zero, stochastic=stochastic)
        torch.testing.assert_close(found, values, rtol=1e-6, atol=0)


@pytest.mark.parametrize("bits", [4, 8])
def test_with_a_true_zero_it_is_torchs_own_fake_quantisation(bits: int) -> None:
    values = normal(3000, dtype=torch.float32)
    low, high = torch.tensor(-1.7), torch.tensor(2.1)
    step = (high - low) / (2**bits - 1)
    zero = int((-low / step).round())
    peer = torch.fake_quantize_per_tensor_affine(values, float(step), zero, 0, 2**bits - 1)
    torch.testing.assert_close(quantise_within(values, low, high, bits, true_zero=True), peer)


def test_without_one_it_is_torchs_own_where_the_lowest_value_is_a_level() -> None:
    values = normal(3000, dtype=torch.float32)
    step = 2.0**-6
    low, high = torch.tensor(-100 * step), torch.tensor(155 * step)
    peer = torch.fake_quantize_per_tensor_affine(values, step, 100, 0, 255)
    torch.testing.assert_close(quantise_within(values, low, high, 8), peer, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(2.0, 3.0), (-3.0, -2.0), (-1.0, 4.0)])
def test_a_true_zero_stays_zero_and_widens_the_range_to_hold_it(low: float, high: float) -> None:
    values = torch.tensor([0.0, low, (low + high) / 2, high])
    found = quantise_within(values, torch.tensor(low), torch.tensor(high), 8, true_zero=True)
    assert float(found[0]) == 0
    step = (max(high, 0) - min(low, 0)) / 255
    assert float((found - values).abs().max()) <= step * 0.501


def test_32_bits_are_the_values_themselves_and_24_bits_nearly() -> None:
    values = normal(1000, dtype=torch.float32).requires_grad_()
    assert quantise(values, 32) is values
    assert quantise_gradient(values, 32, True) is values
    torch.testing.assert_close(quantise(values, 24), values, rtol=0, atol=1e-6)


def test_the_gradient_goes_straight_through_or_stops_outside_the_range() -> None:
    low, high = torch.tensor(-1.0).double(), torch.tensor(1.0).double()
    for gradient in ("straight", "clipped"):
        values = normal(50).requires_grad_()
        upstream = normal(50, seed=1)
        quantise(values, 4, low=low, high=high, gradient=gradient).backward(upstream)
        inside = (values.detach().abs() <= 1) if gradient == "clipped" else torch.ones(50)
        assert torch.equal(values.grad, upstream * inside)


def test_a_gradient_is_quantised_on_its_way_back_alone() -> None:
    values, upstream = normal(100).requires_grad_(), normal(100, seed=1)
    found = quantise_gradient(values, 3, stochastic=False)
    assert torch.equal(found, values)
    found.backward(upstream)
    torch.testing.assert_close(values.grad, quantise(upstream, 3))


@pytest.mark.parametrize("bits", [0, 33, -1, True, 2.5])
def test_bits_out_of_range_are_refused(bits: int) -> None:
    with pytest.raises(UserError, match=r"method.bits=.*: valid: whole numbers from 1 to 32"):
        quantise(torch.ones(3), bits)


@pytest.mark.parametrize(
    ("low", "high"), [(float("nan"), 1.0), (0.0, float("inf")), (1.0, 0.0), (None, None)]
)
def test_a_range_that_is_none_is_refused_in_one_line(low: float | None, high: float | None) -> None:
    with pytest.raises(UserError, match=r"^quantise: the range \[.*\] is none \(valid: finite numbers"):
        quantise(torch.tensor([0.0, float("nan")]), 8, low=low, high=high)


@pytest.mark.parametrize("m", [1, 2, 3])
def test_mid_rise_has_2_to_the_m_plus_1_levels_half_a_step_away(m: int) -> None:
    values = normal(5000)
    found, step = mid_rise(values, m), float(values.abs().max()) / 2**m
    assert found.unique().numel() == 2 ** (m + 1)
    assert float((found - values).abs().max()) <= step / 2 * (1 + 1e-12)
    assert not mid_rise(torch.zeros(3), m).isnan().any()


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_numbers_that_are_no_floats_are_refused_in_one_line(dtype: torch.dtype) -> None:
    with pytest.raises(UserError, match="quantise: values of type torch"):
        quantise(torch.ones(3).to(dtype), 8)


@pytest.mark.parametrize("size", [7, BLOCK, 2 * BLOCK, 3 * BLOCK + 5, 5 * BLOCK - 1])
def test_what_is_quantised_does_not_depend_on_the_number_of_threads(size: int) -> None:
    values, found = torch.randn(size, generator=torch.Generator().manual_seed(1)), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            found.append(quantised(values, *value_range(values), 4, stochastic=True))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_the_noise_of_a_tensor_of_many_blocks_is_uniform_and_pairs_of_it_are_independent() -> None:
    torch.manual_seed(0)
    size, blocks = 4096, 200
    noise = torch.stack(
        [uniform(torch.empty(size), bits) for bits in random_blocks(blocks, size, torch.device("cpu"))]
    )
    counts = torch.histc(noise, 16, 0, 1)
    assert float(((counts - counts.mean()) ** 2 / counts.mean()).sum()) < 45
    # correlations of 200 numbers have a standard deviation of 0.07, of 4096 0.016
    across, along = torch.corrcoef(noise[:, :64].t()), torch.corrcoef(noise[:64])
    others = ~torch.eye(64, dtype=torch.bool)
    assert float(across[others].abs().max()) < 0.4 and float(along[others].abs().max()) < 0.09
    assert float(across[others].mean().abs()) < 0.01 and float(along[others].mean().abs()) < 0.003


@pytest.mark.parametrize("value", [0.1, 0.5, 0.9])
def test_the_mean_of_many_blocks_rounded_stochastically_spreads_as_that_of_independent_draws(
    value: float,
) -> None:
    torch.manual_seed(0)
    count, ends = 2**18, (torch.tensor(0.0), torch.tensor(1.0))
    means = torch.stack(
        [quantised(torch.full((count,), value), *ends, 1, stochastic=True).mean() for _ in range(40)]
    )
    deviation = math.sqrt(value * (1 - value) / count)
    assert float((means.mean() - value).abs()) < 4 * deviation / math.sqrt(40)
    assert 0.6 < float(means.std()) / deviation < 1.5
