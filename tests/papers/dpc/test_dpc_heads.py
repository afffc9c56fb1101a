"""The cell as a module, against its formula, the official arithmetic of pooling, and ASPP."""

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.base.errors import UserError
from common.metrics.macs import count_macs
from common.metrics.parameters import count_parameters
from papers.dpc import heads
from papers.dpc.cell import ASPP_CELL, POINTWISE, TOP1, WORST, Cell, Operator, atrous, pointwise, pool
from papers.dpc.heads import (
    ASPP,
    AtrousSeparable,
    DensePredictionCell,
    HeadSettings,
    PyramidPooling,
    map_of,
    operator_module,
    pooling_window,
    table_cost,
)
from papers.dpc.space import CellSpace

SMALL = HeadSettings(filters=8, dropout=0.0)


def randomised(module: nn.Module, seed: int = 0) -> Any:
    """Evaluation mode, with statistics and scales that are not those of the start."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.running_mean, layer.running_var, layer.weight.data, layer.bias.data):
                assert tensor is not None
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module.eval()


def official_kernel(crop: int, stride: int, grid: int) -> int:
    """int((crop - 1) / (stride grid) + 1), in floats as the official code has it."""
    return int((float(crop) - 1.0) * (1.0 / stride / grid) + 1.0)


@pytest.mark.parametrize(
    ("crop", "grid", "side", "kernel"), [(513, 4, 33, 9), (257, 1, 17, 17), (513, 2, 33, 17)]
)
def test_pooling_windows_are_those_of_the_official_unit_tests(
    crop: int, grid: int, side: int, kernel: int
) -> None:
    assert map_of((crop, crop), 16) == (side, side)
    assert pooling_window((side, side), (grid, grid)) == (kernel, kernel)


def test_windows_from_the_maps_size_are_those_from_the_crop_for_all_crops() -> None:
    for crop, stride, grid in product(range(33, 1100, 7), (8, 16), (1, 2, 4, 8)):
        map_size = map_of((crop, crop), stride)
        assert pooling_window(map_size, (grid, grid))[0] == official_kernel(crop, stride, grid)


def test_official_pooling_is_a_sliding_mean_resized_with_aligned_corners() -> None:
    layer = randomised(PyramidPooling(3, 4, (2, 4), SMALL))
    maps = torch.randn(2, 3, 9, 13)
    rows, columns = 5, 4
    means = torch.stack(
        [
            torch.stack([maps[:, :, i : i + rows, j : j + columns].mean((2, 3)) for j in range(10)], -1)
            for i in range(5)
        ],
        -2,
    )
    wanted = F.interpolate(layer.conv(means), size=(9, 13), mode="bilinear", align_corners=True)
    torch.testing.assert_close(layer(maps), wanted)


def test_adaptive_pooling_is_the_mean_of_each_grid_cell() -> None:
    layer = randomised(PyramidPooling(3, 4, (2, 4), SMALL._replace(pooling="adaptive")))
    maps = torch.randn(2, 3, 8, 8)
    means = maps.reshape(2, 3, 2, 4, 4, 2).mean((3, 5))
    wanted = F.interpolate(layer.conv(means), size=(8, 8), mode="bilinear", align_corners=True)
    torch.testing.assert_close(layer(maps), wanted)


def test_windows_follow_the_size_of_evaluation_unless_they_are_fixed() -> None:
    free = randomised(PyramidPooling(3, 4, (2, 2), SMALL))
    fixed = randomised(PyramidPooling(3, 4, (2, 2), SMALL._replace(pooling_map=(9, 9))))
    fixed.load_state_dict(free.state_dict())
    small, large = torch.randn(1, 3, 9, 9), torch.randn(1, 3, 17, 17)
    assert torch.equal(free(small), fixed(small))
    assert not torch.allclose(free(large), fixed(large))
    wanted = F.interpolate(
        free.conv(F.avg_pool2d(large, 5, 1)), size=(17, 17), mode="bilinear", align_corners=True
    )
    torch.testing.assert_close(fixed(large), wanted)


def test_a_window_larger_than_the_map_is_one_line() -> None:
    fixed = PyramidPooling(3, 4, (1, 1), SMALL._replace(pooling_map=(49, 49)))
    with pytest.raises(UserError, match="pooling over 49x49 is larger than the map of 9x9"):
        fixed(torch.randn(1, 3, 9, 9))
    adaptive = PyramidPooling(3, 4, (8, 8), SMALL._replace(pooling="adaptive"))
    with pytest.raises(UserError, match="a grid of 8x8 is larger than the map of 5x9"):
        adaptive(torch.randn(1, 3, 5, 9))


@pytest.mark.parametrize("form", ["official", "adaptive"])
def test_pooling_over_the_whole_map_is_constant_in_space(form: heads.PoolingForm) -> None:
    layer = randomised(PyramidPooling(3, 4, (1, 1), SMALL._replace(pooling=form)))
    found = layer(torch.randn(2, 3, 7, 9))
    torch.testing.assert_close(found, found[..., :1, :1].expand_as(found))


@pytest.mark.parametrize("rates", [(1, 1), (1, 6), (6, 3)])
def test_the_receptive_field_is_two_rates_and_one_wide(rates: tuple[int, int]) -> None:
    layer: Any = AtrousSeparable(1, 1, rates, 0.1)
    nn.init.ones_(layer[0].weight)
    maps = torch.zeros(1, 1, 31, 31)
    maps[0, 0, 15, 15] = 1.0
    touched = layer[0](maps)[0, 0]
    rows, columns = (touched > 0).any(1).nonzero().flatten(), (touched > 0).any(0).nonzero().flatten()
    assert rows.tolist() == [15 - rates[0], 15, 15 + rates[0]]
    assert columns.tolist() == [15 - rates[1], 15, 15 + rates[1]]


def test_rates_of_one_are_an_ordinary_3x3() -> None:
    layer = randomised(AtrousSeparable(3, 4, (1, 1), 0.1))
    depthwise, first_norm, relu, pointwise_layer, second_norm, last = layer
    maps = torch.randn(2, 3, 6, 7)
    plain = F.conv2d(maps, depthwise.weight, padding=1, groups=3)
    wanted = last(second_norm(pointwise_layer(relu(first_norm(plain)))))
    torch.testing.assert_close(layer(maps), wanted)


def test_beyond_the_map_only_the_middle_tap_touches_data_and_that_is_said_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "_told", set())
    layer = randomised(AtrousSeparable(3, 4, (9, 9), 0.1))
    maps = torch.randn(2, 3, 5, 5)
    middle = maps * layer[0].weight[:, 0, 1, 1].view(1, 3, 1, 1)
    torch.testing.assert_close(layer[0](maps), middle)
    for _ in range(3):
        layer(maps)
    assert capsys.readouterr().err.count("rates 9x9 reach beyond a map of 5x5") == 1


def test_five_1x1_on_the_map_are_a_head_that_sees_one_pixel() -> None:
    head = randomised(DensePredictionCell(POINTWISE, 3, SMALL))
    maps = torch.randn(2, 3, 5, 5)
    whole = head(maps)
    torch.testing.assert_close(whole[..., 2:3, 4:5], head(maps[..., 2:3, 4:5]))


def test_the_cell_is_its_formula() -> None:
    cell = Cell((atrous(1, 2), pointwise(0), pool(2, 1, 1)))
    head = randomised(DensePredictionCell(cell, 3, SMALL))
    maps = torch.randn(2, 3, 9, 9)
    first, second, third = head.branches
    y1 = first(maps)
    y2 = second(y1)
    wanted = head.projection(torch.cat([y1, y2, third(y2)], 1))
    torch.testing.assert_close(head(maps), wanted)


@pytest.mark.parametrize("training", [False, True])
def test_aspp_as_a_cell_is_aspp_as_a_module(training: bool) -> None:
    settings = HeadSettings(filters=8, dropout=0.0)
    cell: Any = DensePredictionCell(ASPP_CELL, 5, settings)
    module: Any = ASPP(5, settings)
    parts = [module.pointwise, *module.atrous, nn.ModuleDict({"conv": module.image})]
    for branch, part in zip(cell.branches, parts, strict=True):
        part.load_state_dict(branch.state_dict())
    module.projection.load_state_dict(cell.projection.state_dict())
    maps = torch.randn(2, 5, 33, 33)
    torch.testing.assert_close(cell.train(training)(maps), module.train(training)(maps))
    assert count_parameters(cell) == count_parameters(module)


def test_dropout_stands_before_the_cells_projection_and_after_aspps() -> None:
    def dropped(head: nn.Module) -> Tensor:
        torch.manual_seed(0)
        return head.train()(torch.randn(4, 5, 33, 33)) == 0

    settings = HeadSettings(filters=8, dropout=1.0)
    assert dropped(ASPP(5, settings)).all()
    # all branches are dropped, so that what is left is the projection's batch normalisation of zero
    cell: Any = DensePredictionCell(ASPP_CELL, 5, settings)
    nn.init.ones_(cell.projection[1].bias)
    assert not dropped(cell).any()


def test_output_stride_8_doubles_the_rates() -> None:
    layer: Any = operator_module(Operator("atrous", (18, 15)), 4, SMALL._replace(multiplier=2))
    assert isinstance(layer, AtrousSeparable)
    assert layer[0].dilation == layer[0].padding == (36, 30)
    aspp: Any = ASPP(4, SMALL._replace(multiplier=2))
    assert [branch[0].dilation for branch in aspp.atrous] == [
        (12, 12),
        (24, 24),
        (36, 36),
    ]


@pytest.mark.parametrize("operator", CellSpace().operators, ids=lambda operator: operator.label)
def test_each_of_the_81_operators_keeps_the_map_and_counts_as_its_formula(operator: Operator) -> None:
    layer = operator_module(operator, 6, SMALL).eval()
    assert layer(torch.randn(2, 6, 17, 21)).shape == (2, 8, 17, 21)
    cost = table_cost(Cell(((-1, operator),)), 6, 8, (17, 21))  # type: ignore[arg-type]
    convolutions = [m for m in layer.modules() if isinstance(m, nn.Conv2d)]
    assert cost.parameters == sum(m.weight.numel() for m in convolutions)
    # one addition more for each output of the 1x1
    places = (cost.madds - count_macs(layer, (6, 17, 21))) / 8
    assert 1 <= places <= 17 * 21 and places == int(places)


@pytest.mark.parametrize(
    ("channels", "parameters", "madds"),
    [(320, 0.36, 3.00), (2048, 0.81, 6.84)],
    ids=["mobilenet", "xception"],
)
def test_the_best_cells_costs_are_those_of_table_1(channels: int, parameters: float, madds: float) -> None:
    cost = table_cost(TOP1, channels, 256, (65, 129))
    assert cost.parameters == (9 + 256) * channels + 4 * (9 * 256 + 256**2)
    assert round(cost.parameters / 1e6, 2) == parameters
    assert round(cost.madds / 1e9, 2) == pytest.approx(madds, abs=0.011)


def test_aspps_multiply_adds_on_mobilenet_are_those_of_table_1_and_its_parameters_are_more() -> None:
    cost = table_cost(ASPP_CELL, 320, 256, (65, 129))
    assert cost.parameters == (5 * 256 + 27) * 320
    assert round(cost.parameters / 1e6, 2) == 0.42
    assert cost.madds / 1e9 == pytest.approx(2.82, abs=0.011)


def test_the_best_cell_is_the_lighter_one_where_the_backbone_is_wide() -> None:
    dpc, aspp = (table_cost(cell, 2048, 256, (65, 129)) for cell in (TOP1, ASPP_CELL))
    assert dpc.madds / aspp.madds == pytest.approx(0.38, abs=0.005)
    assert dpc.parameters < 0.5 * 1.63e6


def test_norms_of_branches_are_mean_absolute_weights_of_the_projection() -> None:
    head: Any = DensePredictionCell(TOP1, 3, SMALL)
    weight = head.projection[0].weight.detach()
    wanted = [float(weight[:, 8 * i : 8 * (i + 1)].abs().mean()) for i in range(5)]
    assert head.branch_norms().tolist() == pytest.approx(wanted)


def test_a_cell_that_pools_first_sees_no_place() -> None:
    head = randomised(DensePredictionCell(Cell(WORST.branches[:1]), 3, SMALL))
    found = head(torch.randn(1, 3, 9, 9))
    torch.testing.assert_close(found, found[..., :1, :1].expand_as(found))
