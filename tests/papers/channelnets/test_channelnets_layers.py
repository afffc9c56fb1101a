"""Channel-wise convolutions against Conv3d, dense layers, Toeplitz matrices and finite differences."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import toeplitz
from torch import Tensor, nn
from torch.nn import functional as F

from common.base.errors import UserError
from common.metrics.macs import count_macs
from common.metrics.parameters import count_parameters
from common.models.weightless import weightless
from papers.channelnets import band
from papers.channelnets.classifier import ConvolutionalClassifier, UnsharedClassifier, random_order
from papers.channelnets.layers import (
    ChannelwiseConv,
    GroupChannelwiseConv,
    PositionMixingConv,
    SeparableChannelwiseConv,
)


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def by_conv3d(layer: ChannelwiseConv, inputs: Tensor, padding: tuple[int, int]) -> Tensor:
    """The layer as torch has it: channels are depth."""
    padded = F.pad(inputs.unsqueeze(1), (0, 0, 0, 0, *padding))
    kernels = layer.weight.view(layer.filters, 1, layer.kernel, 1, 1)
    return F.conv3d(padded, kernels, stride=(layer.stride, 1, 1)).reshape(len(inputs), -1, *inputs.shape[2:])


def same(channels: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's rule, written out again: the fewest zeros for ceil(C / s) outputs, the odd one behind."""
    outputs = (channels + stride - 1) // stride
    total = max(0, kernel - stride) if channels % stride == 0 else max(0, kernel - channels % stride)
    assert (channels + total - kernel) // stride + 1 >= outputs
    return total // 2, total - total // 2


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_channelwise_convolution_is_conv3d_with_its_channels_as_depth(data: Any) -> None:
    channels = data.draw(st.integers(1, 40))
    kernel, stride = data.draw(st.integers(1, channels)), data.draw(st.integers(1, channels))
    filters, padding = data.draw(st.integers(1, 4)), data.draw(st.sampled_from(["same", "valid"]))
    # blocks of the matrix's rows too, as many channels have them
    whole = data.draw(st.sampled_from([128, 0]))
    layer = ChannelwiseConv(channels, kernel, filters=filters, stride=stride, padding=padding).double()
    inputs = normal(2, channels, 3, 2)
    zeros = same(channels, kernel, stride) if padding == "same" else (0, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(band, "WHOLE", whole)
        patch.setattr(band, "SMALLEST_BLOCK", 2)
        found = layer(inputs)
    torch.testing.assert_close(found, by_conv3d(layer, inputs, zeros))
    assert found.shape[1] == layer.out_channels


@pytest.mark.parametrize(
    ("channels", "kernel", "groups"), [(512, 8, 2), (512, 16, 4), (1024, 64, 1), (513, 12, 3), (300, 2, 5)]
)
def test_many_channels_give_the_same_outputs_and_gradients_as_conv3d(
    channels: int, kernel: int, groups: int
) -> None:
    layer = GroupChannelwiseConv(channels, groups, kernel).double()
    inputs = normal(2, channels, 2, 3).requires_grad_()
    found, expected = layer(inputs), by_conv3d(layer, inputs, same(channels, kernel, groups))
    torch.testing.assert_close(found, expected)
    weights = normal(*found.shape)
    ours, theirs = (
        torch.autograd.grad((one * weights).sum(), [inputs, layer.weight]) for one in (found, expected)
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", [(2, 12), (2, 12, 5), (2, 12, 2, 3), (2, 12, 2, 1, 3), (0, 12, 2, 2)])
@pytest.mark.parametrize("whole", [0, 128])
def test_positions_may_have_any_shape(
    shape: tuple[int, ...], whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(band, "WHOLE", whole)
    monkeypatch.setattr(band, "SMALLEST_BLOCK", 1)
    layer = GroupChannelwiseConv(12, 3, 4).double()
    inputs = normal(*shape)
    found = layer(inputs)
    assert found.shape == inputs.shape
    flat = layer(inputs.reshape(*shape[:2], -1, 1) if shape[0] else inputs)
    torch.testing.assert_close(found.flatten(), flat.flatten())


@pytest.mark.parametrize(
    "make",
    [
        lambda: ChannelwiseConv(9, 4),
        lambda: GroupChannelwiseConv(8, 2, 4),
        lambda: SeparableChannelwiseConv(6, 4),
        lambda: PositionMixingConv(6, 4, (2, 2)),
        lambda: ConvolutionalClassifier(7, 5, (2, 2), order=[4, 2, 0, 1, 3]),
        lambda: ConvolutionalClassifier(7, 2, (2, 2)),
        lambda: UnsharedClassifier(7, 5, order=[4, 2, 0, 1, 3]),
    ],
)
@pytest.mark.parametrize("whole", [0, 128])
def test_gradients_are_those_of_finite_differences(
    make: Callable[[], nn.Module], whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(band, "WHOLE", whole)
    monkeypatch.setattr(band, "SMALLEST_BLOCK", 2)
    torch.manual_seed(0)
    layer = make().double()
    channels = getattr(layer, "channels", getattr(layer, "features", 6))
    names = [name for name, _ in layer.named_parameters()]

    def outputs(inputs: Tensor, *weights: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (inputs,))

    leaves = [parameter.detach().clone().requires_grad_() for parameter in layer.parameters()]
    inputs = normal(2, channels, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(outputs, (inputs, *leaves))
    assert torch.autograd.gradgradcheck(outputs, (inputs, *leaves))


def test_one_group_and_a_kernel_of_one_weight_scale_all_channels() -> None:
    layer = GroupChannelwiseConv(10, 1, 1).double()
    inputs = normal(3, 10, 2, 2)
    torch.testing.assert_close(layer(inputs), layer.weight.item() * inputs)


def test_as_many_groups_as_channels_and_kernels_of_all_channels_are_any_1x1_convolution() -> None:
    layer = GroupChannelwiseConv(12, 12, 12).double()
    assert layer.padding == (0, 0)
    inputs = normal(3, 12, 4, 4)
    torch.testing.assert_close(layer(inputs), F.conv2d(inputs, layer.weight[:, :, None, None]))


@pytest.mark.parametrize(("channels", "kernel"), [(9, 1), (9, 4), (9, 5), (9, 9), (1024, 64)])
def test_one_group_is_a_toeplitz_matrix(channels: int, kernel: int) -> None:
    layer = GroupChannelwiseConv(channels, 1, kernel).double()
    before = (kernel - 1) // 2
    weights = layer.weight.detach()[0].numpy()
    row = [*weights[before:], *[0] * (channels - kernel + before)][:channels]
    column = [*weights[before::-1], *[0] * channels][:channels]
    expected = torch.from_numpy(toeplitz(column, row))
    # the matrix by unit inputs
    torch.testing.assert_close(layer(torch.eye(channels, dtype=torch.float64)).T, expected)


def test_the_outputs_of_each_kernel_stand_together_and_span_all_channels() -> None:
    layer = GroupChannelwiseConv(8, 2, 4).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0]]))
    inputs = torch.arange(1.0, 9.0, dtype=torch.float64)[None]
    # one zero before: kernel 0 takes channel 2 o - 1, kernel 1 channel 2 o
    assert layer(inputs).tolist() == [[0, 2, 4, 6, 1, 3, 5, 7]]


def test_an_even_kernel_has_the_odd_zero_behind() -> None:
    assert ChannelwiseConv(1024, 64).padding == (31, 32)
    assert GroupChannelwiseConv(512, 2, 8).padding == (3, 3)
    assert GroupChannelwiseConv(513, 3, 12).padding == (4, 5)


@pytest.mark.parametrize(
    ("m", "h", "d", "g"), [(24, 5, 4, 1), (24, 3, 6, 2), (512, 14, 8, 2), (1024, 7, 64, 1)]
)
def test_the_weights_and_multiply_adds_are_those_of_the_papers_formulas(
    m: int, h: int, d: int, g: int
) -> None:
    with weightless():
        group, separable = GroupChannelwiseConv(m, g, d), SeparableChannelwiseConv(m, d)
    assert (count_parameters(group), count_macs(group, (m, h, h))) == (g * d, d * m * h * h)
    assert count_parameters(separable) == 9 * m + d
    assert count_macs(separable, (m, h, h)) == (9 * m + d * m) * h * h


@pytest.mark.parametrize(("m", "n", "h"), [(64, 10, 1), (20, 15, 3), (9, 9, 2), (9, 1, 2), (128, 120, 7)])
def test_a_convolutional_classifier_is_conv3d_and_a_linear_layer_with_a_toeplitz_matrix(
    m: int, n: int, h: int
) -> None:
    layer = ConvolutionalClassifier(m, n, (h, h)).double()
    inputs = normal(2, m, h, h)
    found = layer(inputs)
    torch.testing.assert_close(found, F.conv3d(inputs.unsqueeze(1), layer.weight[None, None]).flatten(1))
    flat = layer.weight.detach().flatten()
    rows = [F.pad(flat, (i * h * h, (n - 1 - i) * h * h)) for i in range(n)]
    torch.testing.assert_close(found, F.linear(inputs.flatten(1), torch.stack(rows)))
    torch.testing.assert_close(layer.matrix(), torch.stack(rows))
    assert count_parameters(layer) == (m - n + 1) * h * h
    assert count_macs(layer, (m, h, h)) == n * (m - n + 1) * h * h


def test_one_class_on_maps_of_one_pixel_is_a_linear_layer_of_one_output() -> None:
    inputs = normal(4, 6, 1, 1)
    for layer in (ConvolutionalClassifier(6, 1, (1, 1)).double(), UnsharedClassifier(6, 1).double()):
        torch.testing.assert_close(layer(inputs), F.linear(inputs.flatten(1), layer.weight.view(1, 6)))


@pytest.mark.parametrize(("m", "n", "h"), [(12, 10, 3), (12, 3, 1), (128, 120, 7)])
def test_without_shared_weights_a_class_weighs_the_means_of_its_window(m: int, n: int, h: int) -> None:
    layer = UnsharedClassifier(m, n).double()
    inputs = normal(2, m, h, h)
    windows = inputs.mean((2, 3)).unfold(1, m - n + 1, 1)
    torch.testing.assert_close(layer(inputs), (windows * layer.weight).sum(-1))
    assert count_parameters(layer) == n * (m - n + 1) == count_macs(layer, (m, h, h))


def test_an_order_says_which_class_stands_at_each_place() -> None:
    order = [3, 0, 2, 1]
    inputs = normal(5, 6, 2, 2)
    for plain, ordered in (
        (ConvolutionalClassifier(6, 4, (2, 2)), ConvolutionalClassifier(6, 4, (2, 2), order=order)),
        (UnsharedClassifier(6, 4), UnsharedClassifier(6, 4, order=order)),
    ):
        ordered.double().weight.data = plain.double().weight.data
        by_place, by_class = plain(inputs), ordered(inputs)
        for place, number in enumerate(order):
            assert torch.equal(by_class[:, number], by_place[:, place])
    assert sorted(random_order(50, 1)) == list(range(50)) != random_order(50, 1)
    assert random_order(50, 1) == random_order(50, 1) != random_order(50, 2)


def test_a_checkpoint_keeps_the_order_of_its_classes() -> None:
    one, other = (ConvolutionalClassifier(6, 4, (1, 1), order=random_order(4, seed)) for seed in (1, 4))
    inputs = normal(3, 6, 1, 1, dtype=torch.float32)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(inputs), other(inputs))


def test_the_codes_layer_of_v2_is_a_convolution_whose_channels_are_positions() -> None:
    layer = PositionMixingConv(10, 4, (2, 3)).double()
    inputs = normal(2, 10, 2, 3)
    along = F.pad(inputs.reshape(2, 10, 6).permute(0, 2, 1), (1, 2))
    expected = torch.zeros(2, 6, 10, dtype=torch.float64)
    for c in range(10):
        expected[:, :, c] = torch.einsum("bpt,qpt->bq", along[:, :, c : c + 4], layer.weight)
    torch.testing.assert_close(layer(inputs), expected.permute(0, 2, 1).reshape(2, 10, 2, 3))
    assert count_parameters(PositionMixingConv(1024, 64, (7, 7))) == 153_664


LAYERS = [
    (lambda: GroupChannelwiseConv(12, 2, 4), 12),
    (lambda: ChannelwiseConv(300, 64), 300),
    (lambda: SeparableChannelwiseConv(12, 5), 12),
    (lambda: ConvolutionalClassifier(12, 9, (3, 3)), 12),
    (lambda: ConvolutionalClassifier(12, 2, (3, 3)), 12),
    (lambda: UnsharedClassifier(12, 9), 12),
]


@pytest.mark.parametrize(("make", "channels"), LAYERS)
@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_no_unit_of_the_inputs_changes_a_layer(
    make: Callable[[], nn.Module], channels: int, unit: float
) -> None:
    torch.manual_seed(0)
    layer, inputs = make(), normal(2, channels, 3, 3, dtype=torch.float32)
    torch.testing.assert_close(layer(unit * inputs), unit * layer(inputs), rtol=1e-4, atol=1e-5 * unit)


@pytest.mark.parametrize(("make", "channels"), LAYERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_half_and_double_precision_stay_what_they_are(
    make: Callable[[], nn.Module], channels: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    layer, inputs = make(), normal(2, channels, 3, 3, dtype=torch.float32)
    exact = layer(inputs)
    found = layer.to(dtype)(inputs.to(dtype))
    assert found.dtype == dtype
    tolerance = {"rtol": 0.05, "atol": 0.05} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(found.float(), exact, **tolerance)
    found.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == dtype for p in layer.parameters())


@pytest.mark.parametrize(("make", "channels"), LAYERS)
def test_channels_last_and_gradients_of_single_examples_are_taken(
    make: Callable[[], nn.Module], channels: int
) -> None:
    torch.manual_seed(0)
    layer, inputs = make().double(), normal(3, channels, 3, 3)
    torch.testing.assert_close(layer(inputs.to(memory_format=torch.channels_last)), layer(inputs))
    weights = dict(layer.named_parameters())

    def loss(parameters: dict[str, Tensor], example: Tensor) -> Tensor:
        return torch.func.functional_call(layer, parameters, (example[None],)).square().sum()

    single = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, inputs)
    layer(inputs).square().sum().backward()
    for name, parameter in weights.items():
        torch.testing.assert_close(single[name].sum(0), parameter.grad)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: GroupChannelwiseConv(10, 3, 4), "3 groups do not divide 10 channels; valid: 1, 2, 5, 10"),
        (lambda: GroupChannelwiseConv(10, 2, 11), "kernel=11 is more than its 10 channels; valid: 1 to 10"),
        (lambda: GroupChannelwiseConv(10, 0, 2), "groups=0; valid: a whole number >= 1"),
        (lambda: ChannelwiseConv(10, 12), "kernel=12 is more than its 10 channels"),
        (lambda: ChannelwiseConv(10, 2, stride=11), "stride=11 is more than its 10 channels; valid: 1 to 10"),
        (lambda: ChannelwiseConv(10, 2, padding="reflect"), "padding=reflect; valid: same, valid"),
        (lambda: ChannelwiseConv(10, 0), "kernel=0; valid: a whole number >= 1"),
        (lambda: ChannelwiseConv(10, 2)(torch.zeros(2, 9, 3, 3)), "takes 10 channels, got inputs"),
        (lambda: SeparableChannelwiseConv(10, 3, size=4), "size=4; valid: an odd number"),
        (lambda: PositionMixingConv(10, 3, (2, 2))(torch.zeros(2, 10, 3, 3)), "takes maps of 2x2"),
        (lambda: ConvolutionalClassifier(10, 11, (1, 1)), "11 classes of 10 features leave no kernel"),
        (lambda: ConvolutionalClassifier(10, 3, (0, 1)), "height=0; valid: a whole number >= 1"),
        (lambda: ConvolutionalClassifier(10, 3, (2, 2))(torch.zeros(2, 10, 1, 1)), "takes maps of 2x2"),
        (lambda: ConvolutionalClassifier(10, 3, (1, 1), order=[0, 1]), "order names 2 classes; valid: each"),
        (lambda: UnsharedClassifier(10, 3, order=[0, 1, 1]), "order does not name each class once"),
        (lambda: UnsharedClassifier(10, 0), "classes=0; valid: a whole number >= 1"),
    ],
)  # fmt: skip
def test_what_a_layer_cannot_take_is_one_line_with_its_name(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        make()
    line = str(error.value)
    assert "\n" not in line
    assert line.split(":")[0] in {
        *("ChannelwiseConv", "GroupChannelwiseConv", "SeparableChannelwiseConv", "PositionMixingConv"),
        *("ConvolutionalClassifier", "UnsharedClassifier"),
    }
