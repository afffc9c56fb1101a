"""Modifiers, limits, and what searchers propose."""

import math
from typing import Any

import numpy as np
import pytest
from nasbot_toys import OFFICIAL, cnn, mlp, sampled, space

from common.architectures.record import Evaluated, Record
from common.base.errors import UserError
from papers.nasbot.distances import Otmann
from papers.nasbot.graph import Kind, Layer, Network
from papers.nasbot.modifiers import (
    MODIFIERS,
    STEPS,
    SWAPS,
    branch,
    en_masse_groups,
    remove_layer,
    scale_units,
    skip,
    start_weights,
    swap_layer,
    wedge_layer,
)
from papers.nasbot.searchers import Evolution, Nasbot, NetworkSearcher, RandomNetworks, require_budget
from papers.nasbot.space import Limits, NetworkSpace, feed_forward
from papers.nasbot.treebo import TreeBO, rows, tree_kernel

KINDS: list[Kind] = ["cnn", "mlp"]
SMALL = Limits((5, 14), (8, 64), 5, 55, 200, None, None)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def many(change: Any, network: Network, count: int = 200) -> list[Network]:
    random = np.random.default_rng(0)
    return [found for _ in range(count) if (found := change(network, random)) is not None]


# --- modifiers


def test_groups_and_steps_have_the_codes_probabilities() -> None:
    weights = {name: weight for name, (weight, _) in MODIFIERS.items()}
    assert sum(weights.values()) == pytest.approx(1.2)
    assert weights["branch"] == weights["skip"] == weights["swap_layer"] == 0.2
    assert sum(STEPS) == pytest.approx(1.0)
    assert all(sum(SWAPS[label].values()) == pytest.approx(1.0) for label in SWAPS if "conv" in label)


def test_every_modifier_gives_another_network_or_none(kind: Kind) -> None:
    random = np.random.default_rng(0)
    for network in sampled(kind, 15):
        for _, change in MODIFIERS.values():
            found = change(network, random)
            assert found is None or (found != network and found.kind == kind)


def test_units_change_by_an_eighth_rounded() -> None:
    network = mlp(Layer("relu", 20), Layer("tanh", 64))
    up, down = MODIFIERS["inc_single"][1], MODIFIERS["dec_single"][1]
    assert {tuple(layer.units for layer in n.layers[1:3]) for n in many(up, network)} == {(23, 64), (20, 72)}
    assert {tuple(layer.units for layer in n.layers[1:3]) for n in many(down, network)} == {
        (18, 64),
        (20, 56),
    }  # 8.5 and 4.5 are rounded up
    assert scale_units(mlp(Layer("relu", 4)), [1], 9 / 8).layers[1].units == 5  # type: ignore[union-attr]


@pytest.mark.parametrize(("count", "groups"), [(2, 0), (3, 2), (7, 6), (15, 14)])
def test_layers_change_together_in_halves_quarters_and_eighths(count: int, groups: int) -> None:
    # between input and output there is the decision layer too
    network = mlp(*[Layer("relu", 16)] * count)
    found = en_masse_groups(network)
    assert len(found) == min(groups, 2 * (count >= 3) + 4 * (count >= 7) + 8 * (count >= 15))
    if found:
        assert sorted(found[0] + found[1]) == list(network.with_units)


def test_swaps_keep_to_the_codes_table() -> None:
    network = cnn(Layer("conv3", 16, 1), Layer("max-pool"), Layer("fc", 8))
    found = many(swap_layer, network, 1500)
    labels = [n.layers[1].label for n in found if n.layers[1].label != "conv3"]
    share = {label: labels.count(label) / len(labels) for label in set(labels)}
    assert share == pytest.approx(SWAPS["conv3"], abs=0.06)
    pools = {n.layers[2].label for n in found if n.layers[2].label != "max-pool"}
    assert pools == {"avg-pool"} and all(n.layers[3].label == "fc" for n in found)
    flipped = [n for n in found if n.layers[1].on_images and n.layers[1].stride == 2]
    assert 0.01 < len(flipped) / len(found) < 0.06
    for label, others in (
        ("relu", {"logistic", "tanh"}),
        ("tanh", {"relu", "crelu", "leaky-relu", "softplus", "elu"}),
    ):
        assert {n.layers[1].label for n in many(swap_layer, mlp(Layer(label, 8)))} == others


def test_a_wedged_layer_has_the_mean_of_its_neighbours_units() -> None:
    network = mlp(Layer("relu", 10), Layer("tanh", 21))
    sizes = set()
    for found in many(wedge_layer, network):
        assert len(found) == len(network) + 1 and feed_forward(found)
        sizes.add(tuple(layer.units for layer in found.layers[1:4]))
    # before the first, between both, behind the last; 15.5 is rounded up
    assert sizes == {(10, 10, 21), (10, 16, 21), (10, 21, 21)}


def test_layers_wedged_behind_fully_connected_ones_are_such() -> None:
    network = cnn(Layer("conv3", 8, 1), Layer("fc", 12))
    for found in many(wedge_layer, network):
        labels = [layer.label for layer in found.layers]
        assert labels.count("op") == 1 and found.layers[-2].label == "softmax"
        if labels[2] == "fc" and labels[3] == "fc":
            assert found.layers[3].units == 12
        # nothing but a convolution follows the input
        assert found.layers[1].on_images


def test_a_removed_layer_leaves_a_network_and_hands_its_stride_on() -> None:
    network = cnn(Layer("conv3", 8, 1), Layer("max-pool"), Layer("conv5", 8, 1), Layer("fc", 8))
    for found in many(remove_layer, network, 60):
        assert len(found) == len(network) - 1
        assert [layer.label for layer in found.layers].count("fc") == 1
        if not any(layer.label == "max-pool" for layer in found.layers):
            (child,) = [layer for layer in found.layers if layer.label == "conv5"]
            assert child.stride == 2
    diamond = Network(
        "mlp",
        (Layer("ip"), Layer("relu", 8), Layer("tanh", 8), Layer("elu", 8), Layer("linear"), Layer("op")),
        ((0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (4, 5)),
    )
    for found in many(remove_layer, diamond, 60):
        assert len(found) == 5


def test_a_branch_stands_beside_a_path_and_starts_by_the_distance_from_the_input() -> None:
    network = mlp(*[Layer("relu", 8)] * 6)
    weights = start_weights(network)
    np.testing.assert_allclose(weights[:4], 1 / np.sqrt([1, 2, 3, 4]))
    assert weights[-2] == weights[-1] == 0
    for found in many(branch, network):
        extra = len(found) - len(network)
        assert extra >= 1 and len(found.edges) == len(network.edges) + extra + 1


def test_copied_paths_keep_pools_and_strides() -> None:
    network = cnn(
        Layer("conv3", 8, 1), Layer("conv3", 8, 2), Layer("max-pool"), Layer("conv5", 8, 1), Layer("fc", 8)
    )
    halving = 2
    for found in many(branch, network):
        # all ways to a join have halved the image equally often, or it would be no network
        assert max(h for h in found.halvings if h is not None) == halving


def test_a_skip_leads_two_layers_on_at_least_and_pools_where_images_shrink() -> None:
    network = cnn(
        Layer("conv3", 8, 1),
        Layer("max-pool"),
        Layer("conv3", 8, 2),
        Layer("conv3", 8, 1),
        Layer("conv3", 8, 1),
    )
    seen = set()
    for found in many(skip, network):
        pools = [layer.label for layer in found.layers].count("avg-pool")
        seen.add(pools)
        assert len(found.edges) == len(network.edges) + pools + 1
    assert seen == {0, 1, 2}
    for found in many(skip, mlp(*[Layer("relu", 8)] * 4)):
        ((u, v),) = set(found.edges) - set(mlp(*[Layer("relu", 8)] * 4).edges)
        assert v - u >= 2 and u != 0


# --- the space


def test_all_that_a_space_gives_keeps_to_its_limits(kind: Kind) -> None:
    limits = Limits((6, 24), (16, 128), 3, 3, 40, 5e5, 4)
    whole = space(kind, limits)
    random = np.random.default_rng(0)
    for network in [*whole.initial, *(whole.sample(random) for _ in range(20))]:
        assert limits.violation(network) is None
        assert whole.decode(whole.encode(network)) == network
        assert whole.from_json(network.to_json()) == network


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (OFFICIAL, "layers: 4 (valid: 5 to 60)"),
        (Limits((3, 4), (16, 64), 5, 5, 9, None, None), "smallest layer: 8"),
        (Limits((3, 4), (1, 4), 5, 5, 9, None, None), "largest layer: 8"),
        (Limits((3, 4), (1, 64), 5, 5, 2, None, None), "edges: 3"),
        (Limits((3, 4), (1, 64), 5, 5, 9, 10.0, None), "mass: "),
    ],
)
def test_a_network_outside_the_limits_is_refused_by_the_limit(limits: Limits, said: str) -> None:
    whole = space("mlp")
    whole.limits = limits
    with pytest.raises(UserError) as caught:
        whole.require(mlp(Layer("relu", 8)))
    assert said in str(caught.value)


def test_limits_that_leave_no_network_of_the_pool_are_refused() -> None:
    with pytest.raises(UserError, match="no network of the initial pool"):
        space("mlp", Limits((3, 4), (8, 64), 5, 5, 9, None, None))
    with pytest.raises(UserError, match=r"method.layers=\[9, 5\]"):
        space("mlp", Limits((9, 5), (8, 64), 5, 5, 9, None, None))


# --- searchers


def nasbot(**changes: Any) -> Nasbot:
    settings: dict[str, Any] = {
        "initial": 4, "distances": "both", "form": "sum", "weights": [0.1, 0.25, 0.61, 1.5],
        "acquisition": "hallucinated_ei", "start": "evaluated", "refit": 3, "draws": 40,
    }  # fmt: skip
    return Nasbot(**(settings | changes))


def searchers() -> dict[str, NetworkSearcher]:
    return {
        "nasbot": nasbot(),
        "initial": nasbot(start="initial", acquisition="ei", distances="normalised"),
        "ucb": nasbot(acquisition="ucb", distances="d"),
        "evolution": Evolution(initial=4, temperature=2.0),
        "candidates": RandomNetworks(initial=4, style="candidates"),
        "mutation": RandomNetworks(initial=4, style="mutation"),
        "treebo": TreeBO(initial=4),
    }


def searched(
    searcher: NetworkSearcher, whole: NetworkSpace, count: int, failing: int = -1
) -> Record[Network]:
    """A search for many edges; evaluation `failing` has no score."""
    record: Record[Network] = Record()
    for number in range(count):
        network = searcher.propose(whole, record, np.random.default_rng((0, number)))
        score = math.nan if number == failing else float(len(network.edges))
        record.add(Evaluated(network, {"score": score}, {}, 0.0))
    return record


@pytest.mark.slow
@pytest.mark.parametrize("name", list(searchers()))
def test_a_searcher_starts_with_the_pool_and_evaluates_nothing_twice(name: str) -> None:
    whole = space("mlp", SMALL)
    record = searched(searchers()[name], whole, 9, failing=5)
    assert len(record.keys) == 9
    networks = [item.architecture for item in record]
    assert networks[: len(whole.initial)] == whole.initial[:4]
    assert all(network in whole for network in networks)
    again = searched(searchers()[name], whole, 9, failing=5)
    assert [item.architecture for item in again] == networks


@pytest.mark.slow
def test_nasbot_finds_more_edges_than_it_started_with() -> None:
    record = searched(nasbot(), space("mlp", SMALL), 12)
    scores = [item.score for item in record]
    assert max(scores[4:]) > max(scores[:4])


def test_nasbot_does_not_propose_what_is_under_way_nor_what_is_at_distance_zero() -> None:
    whole = space("mlp", SMALL)
    record = searched(nasbot(), whole, 6)
    random = np.random.default_rng(7)
    first = nasbot().propose(whole, record, random)
    record.pending = [first]
    second = nasbot().propose(whole, record, np.random.default_rng(7))
    assert second.key != first.key and first.key not in record.keys
    known = [item.architecture for item in record]
    assert Otmann().between([second], [*known, first])[1].max(0).min() > 1e-12


@pytest.mark.slow
def test_a_fit_is_kept_until_it_is_due() -> None:
    whole, searcher = space("mlp", SMALL), nasbot()
    record = searched(searcher, whole, 6)
    names = []
    for _ in range(4):
        network = searcher.propose(whole, record, np.random.default_rng(len(record)))
        assert searcher._fit is not None
        names.append(searcher._fit[0])
        record.add(Evaluated(network, {"score": 1.0}, {}, 0.0))
    # of 6, 7 and 8 scores the first 6, of 9 all
    assert names[0] == names[1] == names[2] != names[3]


def test_treebo_proposes_rows_alone_and_its_kernel_is_positive(kind: Kind) -> None:
    import torch

    whole = space(kind, Limits((5, 20), (8, 64), 5, 55, 200, None, 5))
    networks = rows(whole, 12, np.random.default_rng(0))
    assert len(networks) == 12 and all(feed_forward(network) and network in whole for network in networks)
    lengths = torch.tensor([[0.3, 2.0]], dtype=torch.float64)
    K = tree_kernel(networks, networks, lengths, 20)[0].numpy()
    assert np.linalg.eigvalsh(K).min() > -1e-10
    np.testing.assert_allclose(K.diagonal(), [1 + (len(n) - 3) / 20 for n in networks])
    record = searched(TreeBO(initial=2), whole, 5)
    assert all(feed_forward(item.architecture) for item in record)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: nasbot(initial=0), "method.searcher.initial=0"),
        (lambda: nasbot(refit=0), "method.searcher.refit=0"),
        (lambda: nasbot(weights=[]), "structural weights"),
        (lambda: Evolution(initial=2, temperature=0.0), "temperature=0.0"),
        (
            lambda: require_budget(nasbot(initial=10), 9),
            "paper.evaluations=9 is smaller than the initial pool",
        ),
    ],
)
def test_settings_out_of_range_get_one_line(make: Any, said: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert said in str(caught.value) and "\n" not in str(caught.value)
