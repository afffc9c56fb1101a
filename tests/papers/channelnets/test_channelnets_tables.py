"""The tables of channelnets: all rows of the paper, their sizes where the printed ones are right, data."""

from collections import Counter

import pytest
import torch

from common.metrics.macs import count_macs
from common.metrics.parameters import count_parameters
from common.runs.check_entries import check_row, compose_and_build
from common.tables.tables import Entry, entries, runnable
from papers.channelnets.xor import ChannelXor

OURS = {"xor", "digits_small", "class_orders"}
ROWS = {f"{entry.table}.{entry.row}": entry for entry in entries("channelnets")}
IMAGE = (3, 224, 224)


def test_the_paper_and_its_extension_have_27_rows_of_which_two_are_only_cited() -> None:
    counts = Counter(entry.table for entry in ROWS.values() if entry.table not in OURS)
    assert counts == {
        "table1": 7,
        "table2": 6,
        "table3": 2,
        "tpami_groups": 3,
        "tpami_ccl": 4,
        "tpami_mobilenetv2": 2,
        "gendisc_cifar100": 3,
    }
    assert {name for name, entry in ROWS.items() if entry.cited} == {"table1.googlenet", "table1.alexnet"}
    for entry in runnable("channelnets"):
        check_row(entry)


# parameters and multiply-adds, in millions, as printed; those of ChannelNets' multiply-adds do not fit
@pytest.mark.parametrize(
    ("row", "macs_fit"),
    [
        ("table1.mobilenet_1_0", True),
        ("table1.shufflenet_2x", True),
        ("table2.mobilenet_0_75", True),
        ("table2.mobilenet_0_5", True),
        ("table1.channelnet_v1", False),
        ("table2.channelnet_v2", False),
        ("table2.channelnet_v1_0_75", False),
    ],
)
def test_the_networks_of_the_rows_have_the_sizes_that_are_printed(row: str, macs_fit: bool) -> None:
    entry = ROWS[row]
    _, model = compose_and_build([f"entry={entry.name}"])
    assert isinstance(model, torch.nn.Module)
    assert count_parameters(model) / 1e6 == pytest.approx(entry.reported["params"], abs=0.16)
    macs = count_macs(model, IMAGE) / 1e6
    assert (round(macs) == pytest.approx(entry.reported["flops"], abs=1)) == macs_fit
    if not macs_fit:
        assert 1.14 < macs / entry.reported["flops"] < 1.17


def settings(entry: Entry) -> dict[str, object]:
    return {key: value for key, value in entry.values.items() if key.startswith("model.")}


def test_rows_of_one_table_differ_in_what_it_is_about_alone() -> None:
    assert settings(ROWS["table3.channelnet_v1_minus"]) == {"model.gcw": False}
    assert settings(ROWS["table3.channelnet_v1"]) == {}
    for groups in (2, 3, 4):
        found = settings(ROWS[f"tpami_groups.groups_{groups}"])
        assert (found["model.groups"], found["model.gcw_kernel"]) == (groups, 4 * groups)
    assert settings(ROWS["tpami_ccl.ccl_random_order"]) == {"model.class_order_seed": 100}


def test_narrow_networks_of_the_claims_have_equal_sizes() -> None:
    sizes = {}
    for row in ("v1_0_85", "v2", "v3"):
        _, model = compose_and_build([f"entry=channelnets.digits_small.{row}"])
        assert isinstance(model, torch.nn.Module)
        sizes[row] = count_parameters(model)
    assert sizes == {"v1_0_85": 43_793, "v2": 42_754, "v3": 41_940}


def test_the_two_bits_are_in_the_two_halves_and_their_exclusive_or_is_the_class() -> None:
    data = ChannelXor(
        kind="image_classification",
        data_dir="",
        seed=0,
        source="real",
        limit=None,
        validation=0.0,
        normalise="standard",
        verify=True,
        batch_size=100,
        positive=None,
        augment="none",
    )
    data.setup()
    for split, size in (("train", 2000), ("test", 2000)):
        inputs, labels = data.batch(split, slice(0, None), augment=False)  # type: ignore[arg-type]
        assert inputs.shape == (size, 16, 4, 4) and labels is not None
        bits = torch.stack([inputs[:, :8].mean((1, 2, 3)) > 0, inputs[:, 8:].mean((1, 2, 3)) > 0])
        assert torch.equal(bits[0] ^ bits[1], labels.bool())
        assert abs(float(labels.double().mean()) - 0.5) < 0.05
        assert all(abs(float(bit.double().mean()) - 0.5) < 0.05 for bit in bits)
        # each number has about the spread that normalisation takes it to have
        torch.testing.assert_close(inputs.std((0, 2, 3)), torch.ones(16), atol=0.1, rtol=0)
