"""Networks of the shelf become their quantised twins; what has no quantised form is named."""

from collections.abc import Callable
from copy import deepcopy
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from common.base.errors import UserError
from common.metrics.macs import count_macs
from common.metrics.parameters import count_parameters
from common.quantization.converter import float_network, plain_network, quantise_network
from common.quantization.layers import QuantisedLayer, QuantisedLinear
from common.quantization.range_norm import L1Norm, RangeNorm
from common.quantization.settings import Quantisation

EIGHT = Quantisation(
    bits=8, bits_weight=8, bits_bias=8, bits_norm=8, grad_bits=8, scale="code", num_chunks=16
)
SHELF = {
    "resnet20": ((3, 32, 32), 10),
    "convnet_digits": ((1, 8, 8), 10),
    "lenet5": ((1, 28, 28), 10),
    "mlp": ((20,), 10),
    "mobilenet_v2": ((3, 32, 32), 10),
    "densenet_40_12": ((3, 32, 32), 10),
    "vgg13": ((3, 32, 32), 10),
}


@pytest.mark.parametrize("name", list(SHELF))
def test_a_network_of_the_shelf_is_converted_whole_and_keeps_its_parameters(
    name: str, build_model: Callable[..., nn.Module]
) -> None:
    shape, classes = SHELF[name]
    network = build_model(name, shape, classes, device="cpu")
    before = dict(network.named_parameters())
    made = quantise_network(network, EIGHT)
    assert made is network
    after = dict(made.named_parameters())
    assert list(after) == list(before) and all(after[key] is before[key] for key in before)
    kinds = {type(layer) for layer in made.modules() if any(True for _ in layer.parameters(recurse=False))}
    assert all(issubclass(kind, (QuantisedLayer, RangeNorm)) for kind in kinds)
    assert count_parameters(made) == sum(p.numel() for p in before.values())


def test_a_twin_has_the_multiply_adds_of_its_network() -> None:
    macs = count_macs(small(), (1, 4, 4))
    assert count_macs(quantise_network(small(), EIGHT), (1, 4, 4)) == macs


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


def test_a_small_network_learns_with_all_quantised() -> None:
    torch.manual_seed(0)
    network = quantise_network(small(), EIGHT)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    inputs, targets = torch.randn(48, 1, 4, 4), torch.arange(48) % 3
    inputs += targets.view(-1, 1, 1, 1)
    losses = []
    for _ in range(40):
        loss = nn.functional.cross_entropy(network(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 3
    assert float((network.eval()(inputs).argmax(1) == targets).float().mean()) > 0.8


def test_norms_become_what_the_setting_says_and_layers_of_32_bits_stay() -> None:
    found = {norm: quantise_network(small(), Quantisation(norm=norm)) for norm in ("range_bn", "l1_bn", "bn")}
    assert [type(found[norm][1]) for norm in found] == [RangeNorm, L1Norm, nn.BatchNorm2d]
    assert all(type(network[0]) is nn.Conv2d for network in found.values())


def test_a_layer_that_is_used_twice_stays_one() -> None:
    shared = nn.Linear(4, 4)
    network = nn.Sequential(shared, nn.ReLU(), shared)
    made = quantise_network(network, EIGHT)
    assert made[0] is made[2] and isinstance(made[0], QuantisedLayer)


def test_the_last_norm_of_each_residual_block_may_start_at_zero(
    build_model: Callable[..., nn.Module],
) -> None:
    network = build_model("resnet8", (3, 32, 32), 10, device="cpu")
    made = quantise_network(network, Quantisation(zero_init_residual=True))
    gammas = {name: layer.weight for name, layer in made.named_modules() if isinstance(layer, RangeNorm)}
    zero = [name for name, weight in gammas.items() if not weight.any()]
    assert zero == [f"stages.{stage}.0.residual.4" for stage in range(3)]


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)


def test_what_has_no_quantised_form_is_named_in_one_line_and_may_be_left() -> None:
    network = Own()
    with pytest.raises(UserError) as error:
        quantise_network(network, EIGHT)
    assert "no quantised form of table (Embedding), norm (LayerNorm) in Own" in str(error.value)
    assert "\n" not in str(error.value) and type(network.head) is nn.Linear
    made = quantise_network(network, EIGHT, leave=["table", "norm"])
    assert isinstance(made.head, QuantisedLayer) and type(made.norm) is nn.LayerNorm
    with pytest.raises(UserError, match="the network has no tabel"):
        quantise_network(Own(), EIGHT, leave=["tabel"])


class _Waits(TorchDispatchMode):
    """Counts what makes the host wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "is_nonzero"):
            self.waits.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("norm", ["range_bn", "l1_bn"])
def test_no_step_waits_for_the_device(norm: str) -> None:
    settings = Quantisation(
        bits=8, bits_weight=8, bits_bias=8, bits_norm=8, bits_scale=8, grad_bits=8, num_chunks=4, norm=norm
    )
    network, inputs = quantise_network(small(), settings), torch.randn(8, 1, 4, 4)
    with _Waits() as watched:
        nn.functional.cross_entropy(network(inputs), torch.arange(8) % 3).backward()
    assert not watched.waits


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((name, 0) for name in ("bits", "bits_weight", "grad_bits", "grad_weight_bits", "bits_scale")),
        ("bits", 33),
        *(("norm", "group"), ("scale", "third"), ("arithmetic", "exact"), ("clip_gradient", "none")),
        *(("num_chunks", 0), ("eps", -1.0), ("range_momentum", 1.5), ("norm_momentum", float("nan"))),
    ],
)
def test_a_setting_out_of_range_is_refused_by_its_name(key: str, value: object) -> None:
    with pytest.raises(UserError, match=f"^method.{key}="):
        Quantisation(**{key: value})  # type: ignore[arg-type]


def test_integer_products_need_at_most_8_bits() -> None:
    with pytest.raises(UserError, match="do not fit int8 matrices"):
        Quantisation(bits=9, bits_weight=8, arithmetic="integer")


@pytest.fixture
def photograph() -> Tensor:
    return torch.rand(16, 3, 32, 32)


def test_a_resnet_in_32_bits_is_the_float_network(
    build_model: Callable[..., nn.Module], photograph: Tensor
) -> None:
    torch.manual_seed(0)
    network = build_model("resnet8", (3, 32, 32), 10, device="cpu")
    expected = network(photograph)
    made = quantise_network(network, Quantisation(norm="bn"))
    assert torch.equal(made(photograph), expected)


@pytest.mark.parametrize("norm", ["range_bn", "l1_bn"])
def test_the_plain_copy_of_a_network_evaluates_as_it_does_without_the_rounding_of_activations(
    norm: str,
) -> None:
    torch.manual_seed(0)
    network = quantise_network(small(), Quantisation(bits_weight=3, bits_bias=3, bits_norm=4, norm=norm))
    inputs = torch.randn(8, 1, 4, 4)
    network(inputs)
    expected = network.eval()(inputs)
    plain = plain_network(network)
    assert {type(layer) for layer in plain.modules()} == {type(layer) for layer in small().modules()}
    torch.testing.assert_close(plain(inputs), expected)
    assert torch.equal(network(inputs), expected)


def test_a_plain_copy_has_every_setting_of_its_layers() -> None:
    layers = nn.Sequential(
        nn.Conv2d(2, 4, (3, 2), stride=2, padding=(1, 2), dilation=(2, 1), groups=2),
        nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1, bias=False),
        nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"),
    )
    said = str(layers)
    inputs = torch.randn(2, 2, 8, 8)
    expected = layers(inputs)
    plain = plain_network(quantise_network(layers, Quantisation(grad_bits=8)))
    assert str(plain) == said and torch.equal(plain(inputs), expected)


def test_a_network_that_is_quantised_already_takes_the_new_settings_alone() -> None:
    torch.manual_seed(0)
    network, anew = small(), Quantisation(bits=4, norm="l1_bn", grad_bits=6)
    own = dict(network.named_parameters())
    twice = quantise_network(quantise_network(network, EIGHT), anew)
    assert all(parameter is own[name] for name, parameter in twice.named_parameters())
    once = quantise_network(deepcopy(float_network(twice)), anew)
    twice = quantise_network(twice, anew)
    assert str(twice) == str(once) and "L1Norm" in str(once)
    inputs = torch.randn(8, 1, 4, 4)
    assert torch.equal(twice(inputs), once(inputs))
    left = quantise_network(twice, anew, ["0"])
    assert type(left[0]) is nn.Conv2d and isinstance(left[4], QuantisedLinear)


@pytest.mark.parametrize("norm", ["range_bn", "l1_bn"])
def test_a_network_made_float_again_evaluates_as_before_and_trains(
    norm: Literal["range_bn", "l1_bn"],
) -> None:
    torch.manual_seed(0)
    network = quantise_network(small(), Quantisation(norm=norm))
    inputs = 3 + 2 * torch.randn(64, 1, 4, 4)
    for _ in range(20):
        network(inputs)
    expected = network.eval()(inputs)
    again = float_network(network)
    assert str(again) == str(small())
    torch.testing.assert_close(again(inputs), expected, rtol=1e-4, atol=1e-5)
    again.train()(inputs).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in again.parameters())


def test_a_trained_network_evaluates_as_in_float_before_its_first_batch_as_a_quantised_one() -> None:
    torch.manual_seed(0)
    network, inputs = small(), torch.randn(64, 1, 4, 4)
    network(inputs)
    expected = network.eval()(inputs)
    quantised = quantise_network(network, Quantisation(norm="range_bn"))
    torch.testing.assert_close(quantised(inputs), expected)


def test_a_layer_keeps_its_settings_and_hooks_and_the_type_of_its_numbers() -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, dilation=2, groups=2), nn.BatchNorm2d(4)).double()
    network[0].register_forward_hook(lambda module, inputs, output: output + 100)
    quantised = quantise_network(network, Quantisation(bits=8, norm="range_bn"))
    layer = quantised[0]
    assert isinstance(layer, QuantisedLayer)
    assert (layer.stride, layer.dilation, layer.groups, layer.padding) == ((2, 2), (2, 2), 2, (0, 0))
    inputs = torch.randn(4, 2, 9, 9, dtype=torch.float64)
    assert float(layer(inputs).detach().min()) > 50
    assert quantised(inputs).dtype == quantised.eval()(inputs).dtype == torch.float64
    assert {value.dtype for value in quantised.state_dict().values()} == {torch.float64, torch.int64}
    assert plain_network(quantised)(inputs).dtype == torch.float64
    assert float(float_network(quantised)[0](inputs).detach().min()) > 50


def test_a_layer_whose_weight_is_made_of_other_parameters_is_named() -> None:
    with pytest.warns(FutureWarning):
        layer = nn.utils.weight_norm(nn.Linear(6, 4))
    for made in (layer, nn.utils.parametrizations.weight_norm(nn.Linear(6, 4))):
        with pytest.raises(UserError, match=r"no quantised form of 0 \("):
            quantise_network(nn.Sequential(made), EIGHT)
