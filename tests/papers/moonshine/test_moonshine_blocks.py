"""The cheap blocks: their notation, their closed forms, and what they compute, by other means."""

import math
import re
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from common.metrics.macs import count_macs
from common.models.preact_resnet import PreactBlock
from common.models.weightless import weightless
from papers.moonshine.blocks import Block, Groups, parse_block

ALL = ["S", "S-2x2", "G(2)", "G(N/4)", "G(N)", "B(2)", "B(4)", "BG(2,2)", "BG(2,M/4)", "BG(2,M)", "BG(4,M)"]


def path(block: str, inputs: int = 16, outputs: int = 16, stride: int = 1) -> nn.Sequential:
    """A residual path in float64 and evaluation mode, with statistics as after some training."""
    torch.manual_seed(0)
    made = parse_block(block).residual(inputs, outputs, stride).double()
    for norm in [layer for layer in made if isinstance(layer, nn.BatchNorm2d)]:
        state = norm.state_dict()
        for name in ("weight", "running_var"):
            state[name].uniform_(0.5, 2)
        for name in ("bias", "running_mean"):
            state[name].normal_()
    return made.eval()


def images(channels: int = 16, size: tuple[int, int] = (6, 6)) -> Tensor:
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def convolutions(layers: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in layers.modules() if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("S", Block("S", "S")),
        ("S-2x2", Block("S-2x2", "S-2x2")),
        ("G(4)", Block("G(4)", "G", groups=Groups(4, fraction=False))),
        ("G(N)", Block("G(N)", "G", groups=Groups(1, fraction=True))),
        ("G(N/16)", Block("G(N/16)", "G", groups=Groups(16, fraction=True))),
        ("B(2)", Block("B(2)", "B", 2)),
        ("BG(4, M)", Block("BG(4,M)", "BG", 4, Groups(1, fraction=True))),
        ("BG(2,M/8)", Block("BG(2,M/8)", "BG", 2, Groups(8, fraction=True))),
        ("BG(2,16)", Block("BG(2,16)", "BG", 2, Groups(16, fraction=False))),
    ],
)
def test_a_block_is_read_in_the_papers_notation(text: str, block: Block) -> None:
    assert parse_block(text) == block


@pytest.mark.parametrize(
    "text",
    ["", "s", "G", "G()", "G(0)", "G(M)", "G(N/0)", "G(2,2)", "G(N/)", "B(N)", "BG(2)", "BG(2,N)", "H(2)"],
)
def test_what_is_no_block_is_refused_in_one_line_with_what_is_valid(text: str) -> None:
    with pytest.raises(UserError, match=rf"model\.block={re.escape(text)}; valid: S, S-2x2, G\(g\)") as error:
        parse_block(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "channels", "message"),
    [
        ("G(16)", 24, "24 channels cannot have 16 groups; valid: a number that divides 24"),
        ("G(N/16)", 24, "24 channels cannot have groups of 16; valid"),
        ("B(5)", 24, "24 channels cannot be contracted by 5; valid: b that divides 24"),
        ("BG(2,8)", 24, "12 channels cannot have 8 groups"),
        ("BG(2,M/8)", 24, "12 channels cannot have groups of 8"),
    ],
)
def test_groups_that_do_not_divide_are_refused_in_one_line(text: str, channels: int, message: str) -> None:
    for use in (parse_block(text).cost, lambda n: parse_block(text).residual(n, n, 1)):
        with pytest.raises(UserError, match=rf"model\.block={re.escape(text)}: .*{message}") as error:
            use(channels)
        assert "\n" not in str(error.value)


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(["S", "S-2x2", "G", "B", "BG"]),
    channels=st.integers(1, 8).map(lambda n: 16 * n),
    groups=st.sampled_from([1, 2, 3, 4, 8, 16]),
    fraction=st.booleans(),
    contraction=st.sampled_from([1, 2, 3, 4]),
)
def test_a_block_costs_what_table_1_says(
    kind: str, channels: int, groups: int, fraction: bool, contraction: int
) -> None:
    assume(kind not in ("B", "BG") or channels % contraction == 0)
    inner = channels // contraction if kind == "BG" else channels
    assume(kind not in ("G", "BG") or inner % groups == 0)
    g = f"{'N' if kind == 'G' else 'M'}/{groups}" if fraction else str(groups)
    text = {"G": f"G({g})", "B": f"B({contraction})", "BG": f"BG({contraction},{g})"}.get(kind, kind)
    block = parse_block(text)
    with weightless():
        whole = PreactBlock(channels, channels, 1, block.residual, half=False)
    found = sum(conv.weight.numel() for conv in convolutions(whole))
    norms = [layer for layer in whole.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert (found, sum(4 * norm.num_features for norm in norms)) == block.cost(channels)
    n, b, number = channels, contraction, (inner // groups if fraction else groups)
    formula = {
        "S": 2 * n**2 * 9,
        "S-2x2": 2 * n**2 * 4,
        "G": 2 * n**2 * (9 / number + 1),
        "B": n**2 * (9 / b**2 + 2 / b),
        "BG": n**2 * (9 / (number * b**2) + 2 / b),
    }[kind]
    assert found == pytest.approx(formula, rel=1e-12)
    assert count_macs(whole, (channels, 6, 5)) == 30 * found


def test_parameters_fall_as_the_groups_grow() -> None:
    for form, counts in [("G({})", [1, 2, 4, 8, 16, 64]), ("BG(2,{})", [1, 2, 4, 8, 16, 32])]:
        costs = [parse_block(form.format(g)).cost(64)[0] for g in counts]
        assert all(after < before for before, after in pairwise(costs))


def test_g_of_one_group_with_identity_1x1_is_s() -> None:
    plain, grouped = path("S"), path("G(1)")
    assert [type(layer).__name__ for layer in plain] == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d"]
    identity = torch.eye(16, dtype=torch.float64).view(16, 16, 1, 1)
    for pointwise in (grouped[3], grouped[9]):
        pointwise.load_state_dict({"weight": identity})
    # what stands between GConv and Conv1x1 is taken out
    for extra in (1, 2, 7, 8):
        grouped[extra] = nn.Identity()
    for mine, other in [(0, 0), (4, 1), (6, 3)]:
        grouped[mine].load_state_dict(plain[other].state_dict())
    torch.testing.assert_close(grouped(images()), plain(images()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("b", [1, 2, 4])
def test_b_is_bg_of_one_group(b: int) -> None:
    plain, grouped = path(f"B({b})", 16, 32, 2), path(f"BG({b},1)", 16, 32, 2)
    assert str(plain) == str(grouped)
    assert torch.equal(plain(images()), grouped(images()))


def test_g_of_n_is_depthwise_separable() -> None:
    layers: Any = path("G(N)", 16, 24, 2)
    x = images()
    for depthwise, norm, pointwise in [(0, 1, 3), (6, 7, 9)]:
        weight, stride = layers[depthwise].weight, layers[depthwise].stride
        channels = [functional.conv2d(x[:, [c]], weight[[c]], None, stride, 1) for c in range(x.shape[1])]
        x = functional.relu(layers[norm](torch.cat(channels, 1)))
        x = torch.einsum("oi,bihw->bohw", layers[pointwise].weight[:, :, 0, 0], x)
        x = functional.relu(layers[4](x)) if depthwise == 0 else x
    torch.testing.assert_close(layers(images()), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("block", ["G(4)", "G(N/8)", "BG(2,4)", "BG(2,M/4)", "BG(4,M)"])
def test_a_grouped_convolution_is_a_dense_one_with_blocks_on_the_diagonal(block: str) -> None:
    layers = path(block, 16, 32, 2)
    dense = nn.Sequential(*layers)
    for position, layer in enumerate(layers.children()):
        if not isinstance(layer, nn.Conv2d) or layer.groups == 1:
            continue
        parts = [torch.stack(list(part)) for part in layer.weight.chunk(layer.groups)]
        full = nn.Conv2d(layer.in_channels, layer.out_channels, 3, layer.stride[0], 1, bias=False).double()
        planes = [torch.block_diag(*(part[:, :, i, j] for part in parts)) for i in range(3) for j in range(3)]
        full.weight.data = torch.stack(planes, 2).view_as(full.weight)
        dense[position] = full
    torch.testing.assert_close(layers(images()), dense(images()), rtol=0, atol=1e-12)


def test_groups_follow_the_inputs_in_g_and_the_bottleneck_in_bg() -> None:
    assert [conv.groups for conv in convolutions(path("G(N/8)", 16, 32, 2))] == [2, 1, 4, 1]
    assert [conv.groups for conv in convolutions(path("G(N)", 16, 32, 2))] == [16, 1, 32, 1]
    assert [conv.groups for conv in convolutions(path("BG(2,M/8)", 16, 32, 2))] == [1, 2, 1]
    assert [conv.groups for conv in convolutions(path("BG(4,M)", 16, 32, 2))] == [1, 8, 1]


def test_the_grouped_or_the_middle_convolution_has_the_stride() -> None:
    assert [conv.stride[0] for conv in convolutions(path("S", 16, 32, 2))] == [2, 1]
    assert [conv.stride[0] for conv in convolutions(path("G(2)", 16, 32, 2))] == [2, 1, 1, 1]
    assert [conv.stride[0] for conv in convolutions(path("BG(2,2)", 16, 32, 2))] == [1, 2, 1]


@pytest.mark.parametrize("stride", [1, 2])
def test_s_2x2_is_s_with_the_corners_of_its_kernels_alone(stride: int) -> None:
    small, plain = path("S-2x2", 16, 24, stride), path("S", 16, 24, stride)
    plain[1].load_state_dict(small[1].state_dict())
    for mine, other in zip(convolutions(small), convolutions(plain), strict=True):
        other.weight.data.zero_()
        other.weight.data[:, :, ::2, ::2] = mine.weight.data
    for size in [(6, 6), (7, 5)]:
        torch.testing.assert_close(small(images(size=size)), plain(images(size=size)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("block", ALL)
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1)])
def test_a_block_keeps_the_size_up_to_the_stride(block: str, size: tuple[int, int]) -> None:
    assert path(block)(images(size=size)).shape == (2, 16, *size)
    halved = (math.ceil(size[0] / 2), math.ceil(size[1] / 2))
    assert path(block, 16, 32, 2)(images(size=size)).shape == (2, 32, *halved)


@pytest.mark.parametrize("block", ALL)
def test_the_path_after_activation_ends_in_batch_normalisation(block: str) -> None:
    parsed = parse_block(block)
    with weightless():
        before, after = parsed.residual(16, 32, 2), parsed.post_residual(16, 32, 2)
    assert str(nn.Sequential(*before, nn.BatchNorm2d(32))) == str(after)


@pytest.mark.parametrize("block", ["S", "S-2x2", "G(4)", "G(N)", "BG(2,M)"])
def test_weights_start_with_the_variance_of_the_fan_out_without_groups(block: str) -> None:
    torch.manual_seed(0)
    for conv in convolutions(parse_block(block).residual(128, 128, 1)):
        variance = 2 / (conv.kernel_size[0] ** 2 * conv.out_channels)
        # the standard error of a variance of n normal numbers is sqrt(2 / n) of it
        allowed = 5 * math.sqrt(2 / conv.weight.numel())
        assert conv.weight.square().mean().item() == pytest.approx(variance, rel=allowed)
        assert conv.bias is None
