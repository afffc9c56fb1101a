"""NASBOT on convolutional cells: their graphs, distances of these, and proposals."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog

from common.architectures.record import Evaluated, Record
from common.base.errors import UserError
from papers.nao.cell import ConvArchitecture
from papers.nao.recurrent_cell import RecurrentCell, Step
from papers.nao.space import ConvSpace
from papers.nasbot.cells import LABELS, CellNasbot, graph_of, label_of, penalties
from papers.nasbot.distances import STRUCTURAL_WEIGHTS, Otmann

SPACE = ConvSpace(2, ("identity", "conv_3x3", "max_pool_3x3"), one_cell=True)
SETTINGS: dict[str, Any] = {
    "initial": 6, "distances": "both", "form": "sum", "weights": list(STRUCTURAL_WEIGHTS),
    "acquisition": "hallucinated_ei", "refit": 7, "draws": 60, "width": 4,
}  # fmt: skip


def cells(normal: list[list[Any]], reduction: list[list[Any]] | None = None) -> ConvArchitecture:
    return ConvArchitecture.from_json({"normal": normal, "reduction": reduction or normal})


def test_a_node_is_read_by_way_of_both_its_branches() -> None:
    graph = graph_of(cells([[0, "conv_3x3", 1, "identity"], [2, "max_pool_3x3", 1, "conv_1x7_7x1"]]), 4)
    assert [layer.label for layer in graph.layers] == [
        "ip", "cell", "conv 3", "identity", "max_pool 3", "conv 7", "op",
    ]  # fmt: skip
    edges = {(0, 1), (0, 2), (1, 3), (2, 4), (3, 4), (1, 5), (4, 6), (5, 6)}
    assert set(graph.edges) == edges
    # convolutions 4 * 4, what has no weights 4, the ends a tenth of it all
    assert graph.masses.tolist() == pytest.approx([4.4, 4, 16, 4, 4, 16, 4.4])


def test_what_no_node_reads_leaves_the_cell() -> None:
    graph = graph_of(cells([[1, "identity", 1, "conv_3x3"]]), 4)
    # input 0 is concatenated as it is
    assert set(graph.edges) == {(0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (0, 4)}


def test_a_reduction_cell_of_its_own_stands_behind_the_normal_one() -> None:
    one, other = [[0, "identity", 1, "conv_3x3"]], [[0, "conv_3x3", 1, "identity"]]
    graph = graph_of(cells(one, other), 4)
    labels = [layer.label for layer in graph.layers]
    assert labels == ["ip", "cell", "identity", "conv 3", "conv 3", "identity", "op"]
    # its inputs are the cell before the normal one, and both branches of the normal one's node
    assert {edge for edge in graph.edges if edge[1] in (4, 5)} == {(1, 4), (2, 5), (3, 5)}


@pytest.mark.parametrize(
    ("one", "other", "cost"),
    [
        ("conv_3x3", "conv_3x3", 0.0),
        ("conv_3x3", "conv_5x5", 0.2),
        ("conv_3x3", "conv_1x7_7x1", math.sqrt(2) / 5),
        ("conv_3x3", "sep_conv_3x3", 0.1),
        ("sep_conv_3x3", "dil_sep_conv_5x5", 0.28),
        ("max_pool_3x3", "avg_pool_3x3_inside", 0.5),
        ("max_pool_3x3", "max_pool_5x5", 0.2),
        ("max_pool_3x3", "conv_3x3", math.inf),
        ("identity", "conv_1x1", math.inf),
    ],
)
def test_penalties_are_those_of_layers_carried_over(one: str, other: str, cost: float) -> None:
    table, (i, j) = penalties(), (LABELS.index(label_of(name)) for name in (one, other))
    assert table[i, j] == table[j, i] == pytest.approx(cost)


def test_distances_equal_linear_programming() -> None:
    random = np.random.default_rng(0)
    otmann = Otmann(penalties=penalties())
    for _ in range(6):
        first, second = (graph_of(SPACE.sample(random), 4) for _ in range(2))
        rows = [LABELS.index(layer.label) for layer in first.layers]
        columns = [LABELS.index(layer.label) for layer in second.layers]
        n, m = len(rows), len(columns)
        structure = np.abs(first.path_lengths[:, None] - second.path_lengths[None]).mean((2, 3, 4))
        for weight, d in zip(STRUCTURAL_WEIGHTS, otmann.pair(first, second)[0], strict=True):
            costs = np.minimum(penalties()[np.ix_(rows, columns)] + weight * structure, 3.0)
            limits = np.zeros((n + m, n * m))
            for i in range(n):
                limits[i, i * m : (i + 1) * m] = 1
            for j in range(m):
                limits[n + j, j::m] = 1
            supplies = np.concatenate([first.masses, second.masses])
            # what is matched saves 1 on each side
            found = linprog(costs.ravel() - 2, A_ub=limits, b_ub=supplies, bounds=(0, None))
            assert d == pytest.approx(supplies.sum() + found.fun, abs=1e-9)


def test_networks_that_are_the_same_function_are_one_graph() -> None:
    one = cells([[0, "conv_3x3", 1, "identity"], [1, "max_pool_3x3", 0, "identity"]])
    twin = cells([[0, "identity", 1, "max_pool_3x3"], [1, "identity", 0, "conv_3x3"]])
    first, second = graph_of(one, 4), graph_of(twin, 4)
    assert first.key == second.key
    d, normalised = Otmann(penalties=penalties()).pair(first, second)
    assert float(d.max()) == float(normalised.max()) == 0.0


@pytest.mark.parametrize("operation", ["fc_3x3", "conv", "identity_3x3", "conv_4x4", ""])
def test_an_operation_that_cells_have_not_is_named(operation: str) -> None:
    with pytest.raises(UserError, match=f"operation {operation}; valid: identity, or one of conv"):
        label_of(operation)


def test_architectures_without_cells_are_refused() -> None:
    with pytest.raises(UserError, match="RecurrentCell has no cells"):
        graph_of(RecurrentCell((Step(0, "tanh"),)), 4)


def landscape(architecture: ConvArchitecture) -> float:
    """More convolutions are better, those of the second node most."""
    first, second = architecture.canonical.normal
    return sum((w * (b.operation == "conv_3x3") for w, n in ((1, first), (3, second)) for b in n), 0.0)


def searched(count: int, scale: float = 1.0, seed: int = 0) -> Record[ConvArchitecture]:
    searcher, record = CellNasbot(**SETTINGS), Record[ConvArchitecture]()
    for number in range(count):
        one = searcher.propose(SPACE, record, np.random.default_rng((seed, number)))
        score = math.nan if number == 2 else scale * landscape(one)
        record.add(Evaluated(one, {"score": score}, {}, 0.0))
    return record


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_proposals_are_new_and_better_than_the_start_in_any_units(scale: float) -> None:
    record = searched(14, scale)
    later = [item.architecture.key for item in record.items[6:]]
    assert len(set(later)) == 8 and not set(later) & {i.architecture.key for i in record.items[:6]}
    first, last = ([i.score for i in part if i.valid] for part in (record.items[:6], record.items[6:]))
    assert np.mean(last) > np.mean(first) + scale


def test_what_is_under_way_is_not_proposed_again_and_proposals_follow_from_the_record_alone() -> None:
    record = searched(8)
    random = lambda: np.random.default_rng(5)  # noqa: E731
    first = CellNasbot(**SETTINGS).propose(SPACE, record, random())
    assert CellNasbot(**SETTINGS).propose(SPACE, record, random()) == first
    record.pending = [first]
    assert CellNasbot(**SETTINGS).propose(SPACE, record, random()).key != first.key


def test_a_width_below_one_is_refused() -> None:
    with pytest.raises(UserError, match=r"width=0"):
        CellNasbot(**(SETTINGS | {"width": 0}))
