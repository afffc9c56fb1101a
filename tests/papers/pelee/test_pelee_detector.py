"""The detector: what the paper prints of its cost, its default boxes, and whose weights it starts from."""

from typing import Any

import pytest
import torch
from pelee_toys import COCO, SHAPE, VOC, detector
from torch import nn

from common.base.errors import UserError
from common.metrics.macs import count_macs
from common.metrics.parameters import count_parameters
from common.models.folding import folded
from common.models.weightless import weightless
from papers.pelee.detector import VOC_IN_COCO
from papers.pelee.speed import maps_and_scales

COCO_NAMES = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign "
    "parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag "
    "tie suitcase frisbee skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard "
    "tennis_racket bottle wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli carrot "
    "hot_dog pizza donut cake chair couch potted_plant bed dining_table toilet tv laptop mouse remote "
    "keyboard cell_phone microwave oven toaster sink refrigerator book clock vase scissors teddy_bear "
    "hair_drier toothbrush"
)
# VOC's classes in their order, by COCO's names
VOC_NAMES = (
    "airplane bicycle bird boat bottle bus car cat chair cow dining_table dog horse motorcycle person "
    "potted_plant sheep couch train tv"
)
SMALL = {"maps": [0, 0, 1], "extras": [], "scales": [10.0, 20.0, 37.0, 54.0]}

# (classes, what is changed, parameters, multiply-adds): the first three as the paper prints them, rounded;
# the others are what heads right on the sources cost, where it prints 5.63 M, 1,340 M and 5.69 M, 1,670 M
COSTS: list[tuple[int, dict[str, Any], int, int]] = [
    (VOC, {}, 5_425_892, 1_204_968_960),
    (COCO, {}, 5_981_012, 1_283_950_080),
    (VOC, {"kernel": 3}, 7_269_092, 1_468_239_360),
    (VOC, {"kernel": 3, "residual": None}, 6_894_436, 1_587_401_728),
    (
        VOC,
        {"kernel": 3, "residual": None, "sources": 3, "maps": [0, 1, 2, 3, 4, 5]},
        6_548_836,
        1_836_924_928,
    ),
]


@pytest.mark.parametrize(("classes", "changed", "parameters", "macs"), COSTS)
def test_a_detector_has_its_cost(classes: int, changed: dict[str, Any], parameters: int, macs: int) -> None:
    with weightless():
        model = detector("pelee", classes=classes, **changed)
    assert (count_parameters(model), count_macs(model, SHAPE)) == (parameters, macs)


@pytest.fixture(scope="module")
def pelee() -> Any:
    return detector("pelee")


def test_its_default_boxes_are_5142_around_a_symmetric_grid(pelee: Any) -> None:
    priors = pelee.priors.double()
    assert priors.shape == (5142, 4)
    # a box's corners sum to 2 (cx + cy), and centres lie symmetrically about the image's
    corners = torch.cat([priors[:, :2] - priors[:, 2:] / 2, priors[:, :2] + priors[:, 2:] / 2], dim=1)
    assert float(corners.sum()) == pytest.approx(2 * 5142, rel=1e-7)


def test_its_maps_and_sizes_are_those_of_table_6(pelee: Any) -> None:
    found = maps_and_scales(pelee, SHAPE)
    assert [found[f"map_{i}"] for i in range(1, 7)] == [19, 19, 10, 5, 3, 1]
    expected = [30.4, 60.8, 112.48, 164.16, 215.84, 267.52]
    assert [found[f"scale_{i}"] for i in range(1, 7)] == pytest.approx(expected)


def test_both_heads_on_19x19_share_one_residual_block(pelee: Any) -> None:
    assert len(pelee.offsets) == len(pelee.logits) == 6 and len(pelee.blocks) == 5
    assert pelee.maps == (0, 0, 1, 2, 3, 4)


def test_extra_layers_have_biases_and_no_normalisation_and_norms_are_caffes(pelee: Any) -> None:
    assert not [m for m in pelee.extras.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.bias is not None for m in pelee.extras.modules() if isinstance(m, nn.Conv2d))
    norms = [m for m in pelee.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 1e-3)}


def test_the_detector_folds_whole() -> None:
    model = detector("pelee_small", (1, 32, 32), 10).eval().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    plain = folded(model, (1, 32, 32))
    assert not [m for m in plain.modules() if isinstance(m, nn.BatchNorm2d)]
    images = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        for got, wanted in zip(plain(images), model(images), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def test_vocs_classes_are_found_among_cocos_by_their_names() -> None:
    names = COCO_NAMES.split()
    assert len(names) == COCO and [names[label] for label in VOC_IN_COCO] == VOC_NAMES.split()


def test_a_detector_of_voc_takes_the_logits_of_its_classes_from_one_of_coco() -> None:
    shape = (3, 64, 64)
    coco, voc = (detector("pelee", shape, classes, **SMALL) for classes in (COCO, VOC))
    assert voc.start_from(coco.state_dict()) is None
    images = torch.randn(2, *shape)
    with torch.no_grad():
        (offsets, logits), (own_offsets, own_logits) = coco.eval()(images), voc.eval()(images)
    torch.testing.assert_close(own_offsets, offsets)
    chosen = [0, *(1 + label for label in VOC_IN_COCO)]
    torch.testing.assert_close(own_logits, logits[..., chosen])


def test_a_detector_of_other_classes_starts_its_logits_anew() -> None:
    shape = (3, 64, 64)
    coco, other = (detector("pelee", shape, classes, **SMALL) for classes in (COCO, 3))
    assert other.start_from(coco.state_dict()) is not None
    weight = coco.state_dict()["offsets.0.weight"]
    torch.testing.assert_close(other.state_dict()["offsets.0.weight"], weight)


def test_a_detector_of_other_layers_is_refused() -> None:
    shape = (3, 64, 64)
    one, other = (detector("pelee", shape, VOC, kernel=kernel, **SMALL) for kernel in (1, 3))
    with pytest.raises(UserError, match="another network"):
        one.start_from(other.state_dict())
