"""The tables of int8_training: all rows of the paper are entries, and its networks have the paper's sizes."""

from collections import Counter

from common.metrics.parameters import count_parameters
from common.models.imagenet_resnet import ImageNetResNet
from common.models.resnet import CifarResNet
from common.tables.tables import runnable


def test_all_41_rows_of_the_paper_are_entries() -> None:
    counts = Counter(entry.table for entry in runnable("int8_training"))
    assert {name: count for name, count in counts.items() if name != "digits_small"} == {
        "text6_2": 4,
        "fig2_left": 10,
        "fig2_right": 3,
        "fig3": 2,
        "fig4": 4,
        "ablation_bifurcation": 8,
        "ablation_cn": 5,
        "appendix_f": 5,
    }


def test_the_networks_have_the_sizes_of_the_paper_and_its_code() -> None:
    cifar = CifarResNet(shape=(3, 32, 32), classes=10, depth=14, block="basic", shortcut="B")
    assert count_parameters(cifar) == 175_258
    for blocks, block, size in (
        ([2, 2, 2, 2], "basic", 11_689_512),
        ([3, 4, 6, 3], "bottleneck", 25_557_032),
    ):
        network = ImageNetResNet(
            shape=(3, 224, 224), classes=1000, blocks=blocks, widths=[64, 128, 256, 512], block=block
        )
        assert count_parameters(network) == size
