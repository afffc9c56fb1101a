"""Integer products: exact sums, and the same outputs as simulated ones up to the rounding of a float sum."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from common.quantization.affine import quantised
from common.quantization.converter import quantise_network
from common.quantization.integer import LONGEST_SUM, coded, int_matmul
from common.quantization.layers import QuantisedLayer
from common.quantization.settings import Quantisation


def random_int8(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-128, 128, shape, generator=generator, dtype=torch.int8)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (3, 5, 7), (17, 33, 9), (64, 144, 16), (2, 4608, 3), (100, 1, 40)]
)
def test_int32_accumulators_are_those_of_int64(shape: tuple[int, int, int]) -> None:
    n, k, m = shape
    first, second = random_int8(n, k), random_int8(k, m, seed=1)
    found = int_matmul(first, second)
    assert found.dtype == torch.int32
    assert torch.equal(found.long(), first.long() @ second.long())


def test_extreme_numbers_and_sums_beyond_int32_stay_exact() -> None:
    for k in (64, LONGEST_SUM, LONGEST_SUM + 5):
        first = torch.full((2, k), -128, dtype=torch.int8)
        assert int_matmul(first, first.t().contiguous()).tolist() == [[k * 2**14] * 2] * 2


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
@pytest.mark.parametrize("true_zero", [False, True])
@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
def test_codes_stand_for_the_quantised_values(bits: int, true_zero: bool, unit: float) -> None:
    values = unit * (torch.randn(500, generator=torch.Generator().manual_seed(0)) + 0.3)
    low, high = values.aminmax()
    levels = quantised(values, low, high, bits, true_zero=true_zero)
    found = coded(levels, low, high, bits, true_zero)
    assert found.codes.dtype == torch.int8
    torch.testing.assert_close(found.codes * found.step + found.offset, levels, rtol=1e-5, atol=1e-6 * unit)


def assert_alike(layer: nn.Module, inputs: Tensor, terms: int) -> None:
    """The integer output of a layer is its simulated one, up to the rounding of a sum of so many floats.

    |error| <= n u sum |x| |w|, n terms, u half of a float's spacing at 1 (Higham 2002, section 3.1).
    """
    with torch.no_grad():
        simulated = quantise_network(layer, Quantisation(bits=8, bits_weight=8, norm="bn"))
        expected = simulated.train()(inputs)
        integer = Quantisation(bits=8, bits_weight=8, norm="bn", arithmetic="integer")
        simulated.settings = integer
        found = simulated(inputs)
        size = float(inputs.abs().max()) * float(simulated.weight.abs().max()) * terms
        assert found.shape == expected.shape and found.dtype == expected.dtype
        assert float((found - expected).abs().max()) <= (terms + 4) * 2.0**-24 * size + 1e-7 * float(
            0 if simulated.bias is None else simulated.bias.abs().max()
        )
        assert float(expected.abs().max()) > 0


SHAPES: list[tuple[Callable[[], nn.Module], tuple[int, ...], int]] = [
    (lambda: nn.Linear(7, 5), (6, 7), 7),
    (lambda: nn.Linear(300, 11, bias=False), (2, 3, 300), 300),
    (lambda: nn.Conv1d(3, 8, 5, stride=2, padding=3), (4, 3, 17), 15),
    (lambda: nn.Conv2d(3, 8, 3, padding=1), (4, 3, 9, 7), 27),
    (
        lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), dilation=(1, 2), padding=(2, 0), groups=2),
        (3, 4, 9, 8),
        12,
    ),
    (lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6), (2, 6, 5, 5), 9),
    (lambda: nn.Conv2d(4, 6, 4, padding="same"), (2, 4, 7, 6), 64),
    (lambda: nn.Conv2d(4, 6, 3, padding=2, padding_mode="reflect"), (2, 4, 7, 6), 36),
    (lambda: nn.Conv3d(2, 3, 3, padding=1), (2, 2, 4, 5, 4), 54),
    (lambda: nn.ConvTranspose1d(4, 6, 3, stride=3), (2, 4, 5), 12),
    (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (2, 4, 5, 4), 18),
    (lambda: nn.ConvTranspose2d(4, 6, 2, padding=3), (2, 4, 9, 8), 16),
    (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, dilation=2), (2, 2, 4, 4), 18),
]


@pytest.mark.parametrize(("make", "shape", "terms"), SHAPES)
@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
def test_integer_and_simulated_outputs_agree_for_layers_of_many_shapes(
    make: Callable[[], nn.Module], shape: tuple[int, ...], terms: int, unit: float
) -> None:
    torch.manual_seed(0)
    assert_alike(make(), unit * (torch.rand(*shape) - 0.2), terms)


def test_integer_and_simulated_outputs_agree_in_all_layers_of_resnet8(
    build_model: Callable[..., nn.Module],
) -> None:
    torch.manual_seed(0)
    network = build_model("resnet8", (3, 32, 32), 10, device="cpu")
    seen: dict[nn.Module, Tensor] = {}
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        layer.register_forward_pre_hook(lambda module, inputs: seen.update({module: inputs[0].detach()}))
    network(torch.rand(2, 3, 32, 32))
    assert len(seen) == 8
    for layer in layers:
        layer._forward_pre_hooks.clear()
        terms = layer.weight[0].numel()
        assert_alike(layer, seen[layer], terms)


@pytest.mark.parametrize(("bits", "true_zero"), [(8, False), (4, True), (1, False)])
def test_a_step_of_a_network_by_integers_has_the_gradients_of_the_simulated_one(
    bits: int, true_zero: bool
) -> None:
    found = []
    for arithmetic in ("simulated", "integer"):
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
        settings = Quantisation(bits=bits, bits_weight=bits, true_zero=true_zero, arithmetic=arithmetic)
        network = quantise_network(layers, settings)
        assert isinstance(network[0], QuantisedLayer)
        nn.functional.cross_entropy(network(torch.rand(6, 1, 4, 4)), torch.arange(6) % 3).backward()
        found.append([p.grad for p in network.parameters()])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_nan_stays_nan() -> None:
    settings = Quantisation(bits=8, bits_weight=8, arithmetic="integer")
    layer = quantise_network(nn.Linear(3, 2), settings)
    assert layer(torch.full((2, 3), float("nan"))).isnan().all()
