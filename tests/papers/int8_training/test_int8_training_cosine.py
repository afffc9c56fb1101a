"""Angles between tensors and their quantised forms, their bound, and that looking changes nothing."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from common.quantization.affine import mid_rise, quantise
from common.quantization.converter import quantise_network
from common.quantization.settings import Quantisation
from papers.int8_training.cosine import (
    BINS,
    cosine,
    cosine_bound,
    excess_kurtosis,
    histogram,
    measure,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("count", [100, 10_000, 300_000])
@pytest.mark.parametrize("m", [1, 2, 3, 5, 7, 11])
def test_the_bound_holds_for_gaussians_and_the_cosine_is_that_of_many_dimensions(m: int, count: int) -> None:
    values = normal(count)
    found = float(cosine(values, mid_rise(values, m)))
    assert found >= cosine_bound(m, count)
    if m >= 3 and count >= 10_000:
        step = float(values.abs().max()) / 2**m
        assert found == pytest.approx(1 / math.sqrt(1 + step**2 / 12), abs=1e-3)


def test_the_bounds_are_those_of_the_figure_with_a_bit_for_the_sign() -> None:
    for bits, read in ((2, 0.63), (4, 0.85), (6, 0.95)):
        assert cosine_bound(bits - 1, 100_000) == pytest.approx(read, abs=0.05)


@pytest.mark.parametrize("bits", [2, 4])
def test_heavy_tails_break_the_bound(bits: int) -> None:
    values = torch.from_numpy(stats.t(2).rvs(100_000, random_state=0))
    found = float(cosine(values, quantise(values, bits, stochastic=True)))
    assert (
        found
        < cosine_bound(bits - 1, values.numel())
        < float(cosine(normal(100_000), quantise(normal(100_000), bits)))
    )


@pytest.mark.parametrize("unit", [1e-30, 1e-8, 1.0, 1e8, 1e30])
def test_no_unit_changes_what_is_measured(unit: float) -> None:
    values = normal(1000).float()
    after = quantise(values, 3)
    assert float(cosine(unit * values, unit * after)) == pytest.approx(float(cosine(values, after)))
    assert float(excess_kurtosis(unit * values)) == pytest.approx(
        stats.kurtosis(values.double().numpy()), abs=1e-4
    )
    torch.testing.assert_close(histogram(unit * values), histogram(values), atol=0.003, rtol=0)


def test_a_histogram_holds_everything() -> None:
    values = torch.cat([normal(10_000), torch.tensor([1e6, -1e6]).double()])
    found = histogram(normal(10_000))
    assert found.numel() == BINS and float(found.sum()) == pytest.approx(1)
    assert float(found[BINS // 2 - 2 : BINS // 2 + 2].sum()) == pytest.approx(0.6827, abs=0.02)
    assert float(histogram(values).sum()) == pytest.approx(1)
    assert float(histogram(torch.zeros(5)).sum()) == pytest.approx(1)


def network(**settings: int) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 3)
    )
    return quantise_network(layers, Quantisation(**settings))  # type: ignore[arg-type]


def loss(model: nn.Module, inputs: Tensor, targets: Tensor | None) -> Tensor:
    assert targets is not None
    return nn.functional.cross_entropy(model(inputs), targets)


BATCH = (torch.randn(12, 1, 6, 6, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 3)


def test_angles_close_with_bits_and_every_kind_is_seen() -> None:
    found = {}
    for bits in (2, 4, 8):
        model = network(bits=bits, bits_weight=bits, grad_bits=bits)
        angles = measure(model, loss, [BATCH])
        assert {kind: len(seen) for kind, seen in angles.cosines.items()} == {
            "activations": 3,
            "weights": 2,
            "layer_gradients": 2,
        }
        found[bits] = angles.summary()
        shapes = angles.shapes()
        assert {"kurtosis_activations", "kurtosis_layer_gradients", "kurtosis_weight_gradients"} <= set(
            shapes
        )
    assert found[2]["cos_fwd"] < found[4]["cos_fwd"] < found[8]["cos_fwd"] <= 1
    assert found[2]["cos_bwd"] < found[4]["cos_bwd"] < found[8]["cos_bwd"] <= 1
    assert found[2]["cos_bound"] < found[4]["cos_bound"]


def test_looking_leaves_weights_averages_gradients_and_random_numbers_alone() -> None:
    model = network(bits=4, bits_weight=4, grad_bits=4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    measure(model, loss, [BATCH])
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_of_a_float_network_nothing_is_seen() -> None:
    angles = measure(network(), loss, [BATCH])
    assert angles.summary() == {} and angles.shapes() == {}
