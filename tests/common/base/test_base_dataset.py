"""The facts of a data set, by which a network is used on new data."""

import json

import pytest
import torch

from common.base.dataset import DataSet, plain_numbers
from common.data.detection.voc import Voc2007
from common.data.images.cifar import COARSE_NAMES, FINE_NAMES, Cifar10, Cifar100
from common.data.images.digits import Digits
from common.data.images.mnist import FashionMnist, Mnist
from common.data.images.svhn import Svhn
from common.data.segmentation.camvid import CamVid
from common.data.segmentation.cityscapes import Cityscapes
from common.data.segmentation.digit_masks import DigitMasks
from common.data.segmentation.voc_segmentation import Voc2012Segmentation
from common.data.tables.bundled import BreastCancer, Wine
from common.data.tables.libsvm import A9a, Mushrooms

NAMED: list[type[DataSet]] = [
    *(A9a, BreastCancer, CamVid, Cifar10, Cityscapes, DigitMasks, Digits, FashionMnist, Mnist, Mushrooms),
    *(Svhn, Voc2007, Voc2012Segmentation, Wine),
]


@pytest.mark.parametrize("data", NAMED)
def test_each_class_has_one_name(data: type[DataSet]) -> None:
    assert data.CLASS_NAMES is not None
    assert len(set(data.CLASS_NAMES)) == data.CLASSES


def test_cifar100s_names_are_in_alphabetical_order_as_its_labels_are() -> None:
    assert list(FINE_NAMES) == sorted(FINE_NAMES) and list(COARSE_NAMES) == sorted(COARSE_NAMES)
    assert (len(COARSE_NAMES), len(FINE_NAMES)) == Cifar100.LABELS


def test_the_facts_give_what_the_network_gets_from_what_is_stored() -> None:
    data = Digits(
        kind="image_classification",
        data_dir=".",
        seed=0,
        source="real",
        limit=None,
        validation=0.0,
        normalise="standard",
        verify=True,
        batch_size=8,
        augment="none",
        positive=[3, 5],
    )
    facts = json.loads(json.dumps(data.facts()))
    assert facts["class_names"] == ["not 3 or 5", "3 or 5"] and facts["classes"] == 2
    stored, (given, _) = data.train.inputs.float(), data.batch("train", slice(None), augment=False)
    assert torch.equal((stored - facts["offset"]) * torch.tensor(facts["scale"]), given)


def test_numbers_that_are_all_equal_are_written_as_one() -> None:
    assert plain_numbers(torch.full((3, 1, 1), 0.5)) == 0.5
    assert plain_numbers(torch.tensor([1.0, 2.0])) == [1.0, 2.0]
