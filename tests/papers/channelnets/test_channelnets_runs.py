"""ChannelNets through the runner: trained, distilled, pruned, and refused by name."""

from pathlib import Path
from typing import Any

import pytest

from common.base.errors import UserError
from common.runs.compose import compose
from common.runs.runner import execute

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
SHORT = ("paper=channelnets", "scale=smoke", "dataset.batch_size=32")
NARROW = "[4,4,4,4,4,4,4,8,8]"


def outcome(folder: Path, *words: str) -> dict[str, Any]:
    config, request = compose([*words, f"output_dir={folder}", "logger=none", "trainer=cpu"])
    return execute(config, request).result["metrics"]


def test_a_run_says_the_sizes_as_the_tables_have_them(tmp_path: Path) -> None:
    found = outcome(tmp_path, "entry=channelnets.digits_small.v3", "scale=smoke")
    assert found["top1"] == pytest.approx(100 - found["test_error"])
    assert found["params_millions"] == 0.04194 and found["parameters"] == 41_940
    assert found["flops_millions"] == found["macs"] / 1e6


def test_orders_of_the_classes_are_judged_side_by_side(tmp_path: Path) -> None:
    found = outcome(tmp_path, "entry=channelnets.class_orders.ccl", "scale=smoke")
    assert found["test_error_lowest"] <= found["test_error"] <= found["test_error_highest"]
    assert found["test_error_std"] > 0


def test_it_learns_from_a_teacher_by_its_features_and_loses_channels_before(tmp_path: Path) -> None:
    net = (
        "model=channelnet_v2_digits",
        f"model.widths={NARROW}",
        "model.gcw_kernel=2",
        "model.dwscw_kernel=3",
    )
    teacher = f"teacher='{' '.join(net)} method=optimizer/sgd'"
    words = ("method=pruning/channels", "method.rate=0.5", "inner=distillation/attention_transfer")
    found = outcome(tmp_path, *SHORT, *net, *words, teacher)
    assert found["parameters"] < found["parameters_before"]
    assert 0 <= found["test_error"] <= 100


def test_quantised_training_names_the_layers_that_have_no_form(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no quantised form of blocks\.7\.gcw \(GroupChannelwiseConv\)"
    ) as error:
        outcome(tmp_path, *SHORT, "method=quantization/qbp")
    assert "\n" not in str(error.value)
