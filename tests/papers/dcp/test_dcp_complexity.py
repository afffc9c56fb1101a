"""Sizes of the pruned networks: every number of the paper's tables, to the printed digits."""

import math
from collections.abc import Iterator
from functools import cache

import pytest
import torch
from dcp_networks import FACES, VGG_ADAPT, built, kept, pruned, shape_of, vgg
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from common.base.errors import UserError
from common.pruning.slicing import sliced
from common.tables.tables import Entry, entries
from papers.dcp.complexity import Complexity, complexity
from papers.dcp.selectors import layers_within

ROWS = {f"{entry.table}.{entry.row}": entry for entry in entries("dcp")}
# ratios of rounded counts, whose counts give another last digit: (numerator, denominator) as rounded
OF_ROUNDED = {
    ("vgg19", 0.3, "params_reduction"): (20.0, 10.4),
    ("preact_resnet56", 0.5, "params_reduction"): (0.85, 0.431),
    ("resnet50_imagenet", 0.5, "flops_reduction"): (4.09, 1.82),
    ("mobilenet_v1_imagenet", 0.5, "params_reduction"): (4.2, 2.1),
}


SIZES = ("params", "macs", "params_reduction", "flops_reduction")


def counted_rows() -> Iterator[Entry]:
    """The rows that print a size and prune by a rate, or nothing."""
    for entry in ROWS.values():
        printed = (entry.reported.get(key) for key in SIZES)
        if (
            any(size is not None for size in printed)
            and not entry.cited
            and entry.values.get("method.epsilon") is None
        ):
            yield entry


def rate_of(entry: Entry) -> float:
    return float(entry.values.get("method.rate", 0.0))


def printed(value: float, digits: int) -> float:
    """A number with so many significant digits."""
    return round(value, digits - 1 - math.floor(math.log10(value)))


@cache
def size(model: str, eta: float) -> Complexity:
    return complexity(pruned(model, eta), shape_of(model))


def sizes_of(entry: Entry) -> Complexity:
    return size(model_of(entry), rate_of(entry))


def model_of(entry: Entry) -> str:
    return entry.choose["model"]


def test_the_tables_print_as_many_sizes_as_the_paper() -> None:
    tables = [entry.table for entry in counted_rows()]
    counts = {table: tables.count(table) for table in dict.fromkeys(tables)}
    assert counts == {
        "table1": 11,
        "table2": 8,
        "table3": 4,
        "table4": 3,
        "tables3": 4,
        "tables4": 8,
        "tables5": 9,
    }


@pytest.mark.parametrize(
    "entry",
    [entry for entry in counted_rows() if "params" in entry.reported],
    ids=lambda entry: f"{entry.table}.{entry.row}",
)
def test_counts_are_those_that_are_printed(entry: Entry) -> None:
    found, told = sizes_of(entry), entry.reported
    macs = told.get("macs", told.get("flops"))
    if entry.table == "table4":
        # millions with two digits behind the point
        assert (round(found.parameters / 1e6, 2), round(found.macs / 1e6, 2)) == (
            told["params"] / 1e6,
            macs / 1e6,
        )
    else:
        assert (printed(found.parameters, 3), printed(found.macs, 3)) == (told["params"], macs)


@pytest.mark.parametrize(
    "entry",
    [entry for entry in counted_rows() if "params_reduction" in entry.reported],
    ids=lambda entry: f"{entry.table}.{entry.row}",
)
def test_ratios_are_those_that_are_printed(entry: Entry) -> None:
    model = model_of(entry)
    ratios = size(model, 0.0).reduction(sizes_of(entry))
    for key, ratio in zip(("params_reduction", "flops_reduction"), ratios, strict=True):
        rounded = OF_ROUNDED.get((model, rate_of(entry), key))
        if rounded is not None:
            assert round(ratio, 2) != entry.reported[key]
            ratio = rounded[0] / rounded[1]
        assert round(ratio, 2) == entry.reported[key], key


def test_the_channels_of_table_s6_are_the_ratios_of_dcp_adapt() -> None:
    told = [row.reported["kept"] for row in ROWS.values() if row.table == "tables6"]
    assert told == [3, *VGG_ADAPT[:-1]]
    adapted = complexity(vgg(VGG_ADAPT), (3, 32, 32))
    ratios = size("vgg19", 0.0).reduction(adapted)
    assert [round(ratio, 2) for ratio in ratios] == [15.61, 2.86]
    printed_ratios = ROWS["table1.vggnet_dcp_adapt"].reported
    assert printed_ratios == {"params_reduction": 15.58, "flops_reduction": 2.86, "err_gap": -0.58}
    assert round(20.0e6 / adapted.parameters, 2) == printed_ratios["params_reduction"]


SLICED = [
    "table1.vggnet_dcp",
    "table1.resnet56_dcp",
    "table2.mobilenetv1_dcp",
    "table3.resnet50_dcp",
    "table4.spherenet4_dcp50",
    "tables3.mobilenetv2_dcp",
    "tables4.resnet18_eta70",
]


@pytest.mark.parametrize("row", SLICED)
def test_slicing_leaves_as_much_as_the_tables_say(row: str) -> None:
    entry = ROWS[row]
    model, shape = model_of(entry), shape_of(model_of(entry))
    form = {
        key.removeprefix("model."): value for key, value in entry.values.items() if key.startswith("model.")
    }
    network = built(model, **form)
    groups = layers_within(network, shape, entry.values.get("method.layers"))
    keep = {group.name: range(kept(group.channels, rate_of(entry))) for group in groups.values()}
    assert complexity(sliced(network, shape, keep), shape) == sizes_of(entry)


def test_the_narrow_networks_of_the_tests_are_the_shelfs_where_nothing_is_pruned() -> None:
    for model in ("preact_resnet56", "resnet18_imagenet", "resnet50_imagenet"):
        assert size(model, 0.0) == complexity(built(model), shape_of(model))


@pytest.mark.parametrize("model", ["vgg19", "mobilenet_v1", "spherenet4"])
def test_counts_are_those_of_another_counter(model: str) -> None:
    network = pruned(model, 0.3).eval()
    shape = shape_of(model)
    found = complexity(network, shape)
    sizes: list[int] = []

    def bias(module: nn.Module, inputs: object, outputs: torch.Tensor) -> None:
        if getattr(module, "bias", None) is not None:
            sizes.append(outputs.numel())

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(bias)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, *shape, device="meta"))
    assert found.macs == counter.get_total_flops() // 2 + sum(sizes)


def test_what_only_training_needs_is_not_counted_and_nothing_changes() -> None:
    network = built("spherenet4")
    assert network.training
    found = complexity(network, FACES)
    everything = sum(parameter.numel() for parameter in network.parameters())
    assert everything - found.parameters == 512 * 10_575
    assert network.training
    frozen = next(network.parameters()).requires_grad_(False)
    assert complexity(network, FACES).parameters == found.parameters - frozen.numel()


def test_what_several_modules_share_counts_once() -> None:
    shared = nn.Linear(4, 4, bias=False)
    network = nn.Sequential(shared, nn.ReLU(), shared)
    assert complexity(network, (4,)) == Complexity(parameters=16, macs=32)


def test_inputs_that_do_not_fit_are_one_line() -> None:
    with pytest.raises(UserError, match="cannot take one example of shape"):
        complexity(nn.Linear(4, 2), (5,))
