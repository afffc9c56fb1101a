"""Networks as graphs: masses, path lengths, names, and what is no network."""

import itertools
from typing import Any

import networkx as nx
import numpy as np
import pytest
from nasbot_toys import cnn, mlp, relabelled, sampled

from common.base.errors import UserError
from papers.nasbot.graph import GROUPS, Kind, Layer, Network
from papers.nasbot.pools import blocked_mlp, initial_networks, several_paths

C3, POOL = Layer("conv3", 16, 1), Layer("max-pool")
KINDS: list[Kind] = ["cnn", "mlp"]


def of_edges(kind: Kind, layers: list[Layer], edges: list[tuple[int, int]]) -> Network:
    return Network(kind, tuple(layers), tuple(edges))


# --- masses


def test_masses_of_a_network_by_hand() -> None:
    # ip, conv3 16, conv3 8 beside conv3 8, conv3 32 reading both, pool, fc 16, softmax, op
    layers = [
        Layer("ip"), C3, Layer("conv3", 8, 1), Layer("conv3", 8, 1), Layer("conv3", 32, 1), POOL,
        Layer("fc", 16), Layer("softmax"), Layer("op"),
    ]  # fmt: skip
    network = of_edges(
        "cnn", layers, [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8)]
    )
    own = [16, 128, 128, 512, 32, 51.2]
    outer = max(0.1 * sum(own), 100.0)
    np.testing.assert_allclose(network.masses, [outer, *own, outer, outer], rtol=1e-14)
    assert network.channels[4] == (16, 32) and network.channels[5] == (32, 32)


def test_large_networks_give_a_tenth_to_input_and_output_and_share_it_among_decisions() -> None:
    network = several_paths()
    inner = network.masses[list(network.internal)].sum()
    decisions = [n for n, layer in enumerate(network.layers) if layer.label == "softmax"]
    assert len(decisions) == 2
    np.testing.assert_allclose(network.masses[[0, -1]], 0.1 * inner)
    np.testing.assert_allclose(network.masses[decisions], 0.05 * inner)


# --- path lengths


@pytest.mark.parametrize("kind", KINDS)
def test_path_lengths_are_those_of_all_paths_in_networkx(kind: Kind) -> None:
    for network in [n for n in sampled(kind, 60, seed=3) if len(n.edges) < 26][:6]:
        graph = nx.DiGraph(list(network.edges))
        reverse = graph.reverse()
        last = len(network) - 1
        for g, group in enumerate(GROUPS[kind].values()):
            inside = [layer.label in group for layer in network.layers]
            for number in range(len(network)):
                for t, (way, target) in enumerate(((reverse, 0), (graph, last))):
                    if number == target:
                        assert not network.path_lengths[number, t, g].any()
                        continue
                    paths = list(nx.all_simple_paths(way, number, target))
                    lengths = [sum(inside[node] for node in path[:-1]) for path in paths]
                    chance = [np.prod([1 / way.out_degree(node) for node in path[:-1]]) for path in paths]
                    expected = [min(lengths), max(lengths), float(np.dot(lengths, chance))]
                    np.testing.assert_allclose(network.path_lengths[number, t, g], expected, atol=1e-12)


# --- names


def rows(network: Network) -> np.ndarray:
    """Masses and path lengths of the layers, sorted by themselves."""
    told = np.column_stack([network.masses, network.path_lengths.reshape(len(network), -1)])
    return told[np.lexsort(told.round(9).T)]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_depends_on_the_order_of_the_layers(kind: Kind) -> None:
    random = np.random.default_rng(0)
    for network in [*sampled(kind, 20), *initial_networks(kind, "softmax", "fixed")]:
        other = relabelled(network, random)
        assert other.key == network.key
        assert other.canonical == network.canonical and other.canonical.key == network.key
        np.testing.assert_allclose(rows(other), rows(network), rtol=1e-12, atol=1e-12)


def test_keys_tell_apart_what_networkx_tells_apart() -> None:
    networks = sampled("mlp", 25, seed=1) + sampled("mlp", 25, seed=1)[:3]
    graphs = []
    for network in networks:
        graph = nx.DiGraph(list(network.edges))
        nx.set_node_attributes(graph, {n: str(layer) for n, layer in enumerate(network.layers)}, "word")
        graphs.append(graph)
    same = nx.algorithms.isomorphism.categorical_node_match("word", "")
    for i, j in itertools.combinations(range(len(networks)), 2):
        equal = nx.faster_could_be_isomorphic(graphs[i], graphs[j]) and nx.is_isomorphic(
            graphs[i], graphs[j], node_match=same
        )
        assert (networks[i].key == networks[j].key) == equal


def test_parallel_twins_are_named_quickly() -> None:
    # 12! orders are open
    layers = [Layer("ip"), *[Layer("relu", 8)] * 12, Layer("linear"), Layer("op")]
    edges = [(0, n) for n in range(1, 13)] + [(n, 13) for n in range(1, 13)] + [(13, 14)]
    network = of_edges("mlp", layers, edges)
    assert relabelled(network, np.random.default_rng(0)).key == network.key


@pytest.mark.parametrize("kind", KINDS)
def test_json_and_codes_come_back(kind: Kind) -> None:
    for network in sampled(kind, 10):
        assert Network.from_json(network.to_json()) == network
        assert Network.decoded(network.code) == network


# --- pools


def test_the_fixed_pool_has_the_widths_that_the_paper_says_and_the_codes_pool_has_them_shifted() -> None:
    random = np.random.default_rng
    fixed = blocked_mlp(3, 2, "linear", "fixed", random(0))
    shifted = blocked_mlp(3, 2, "linear", "official_bug", random(0))
    assert [layer.units for layer in fixed.layers[1:-2]] == [64, 64, 128, 128, 256, 256]
    # the code's list is 64 128 256 | 64 64 128 128 256 256, of which layer k takes number k
    assert [layer.units for layer in shifted.layers[1:-2]] == [128, 256, 64, 64, 128, 128]
    assert [layer.label for layer in fixed.layers] == [layer.label for layer in shifted.layers]


def test_pools_have_the_sizes_of_the_spec() -> None:
    assert len(initial_networks("cnn", "softmax", "fixed")) == 12
    sizes = [len(network) - 3 for network in initial_networks("mlp", "linear", "fixed")]
    assert sizes == [6, 8, 10, 12, 12, 16, 18, 20, 24, 24]


# --- what is no network


def plain(*edges: tuple[int, int], layers: list[Any] | None = None) -> Network:
    words = ["ip", "relu", "tanh", "linear", "op"] if layers is None else layers
    told = [{"label": w, "units": 8} if w in ("relu", "tanh") else {"label": w} for w in words]
    return Network.from_json({"kind": "mlp", "layers": told, "edges": [list(edge) for edge in edges]})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: plain((0, 1), (1, 2), (2, 1), (2, 3), (3, 4)), "cycle 1 (relu) -> 2 (tanh) -> 1 (relu)"),
        (lambda: plain((0, 2), (1, 2), (2, 3), (3, 4)), "layer 1 (relu) has no input"),
        (lambda: plain((0, 1), (0, 2), (2, 3), (3, 4)), "layer 1 (relu) has no output"),
        (lambda: plain((0, 1), (1, 2), (2, 3), (1, 4), (3, 4)), "op reads a layer 'relu'"),
        (lambda: plain((0, 1), (1, 2), (2, 3), (3, 4), (3, 4)), "edge [3, 4] stands twice"),
        (lambda: plain((0, 9)), "edge [0, 9]"),
        (lambda: plain(layers=["ip"]), "a network of 1 layer;"),
        (lambda: plain((0, 1), (1, 2), layers=["ip", "softplus", "op"]), "units=None"),
        (lambda: Network.from_json({"kind": "rnn", "layers": [], "edges": []}), "kind 'rnn'"),
        (lambda: Network.from_json([1, 2]), "a network is told as"),
        (lambda: cnn(Layer("conv3", 0, 1)), "units=0"),
        (lambda: cnn(Layer("conv3", 8, 3)), "stride=3"),
        (lambda: cnn(Layer("conv9", 8, 1)), "'conv9'"),
        (lambda: cnn(Layer("fc", 8), Layer("conv3", 8, 1)), "reads one without images"),
        (lambda: mlp(Layer("conv3", 8, 1)), "'conv3'"),
    ],
)
def test_what_is_no_network_gets_one_line(make: Any, said: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_images_of_unequal_sizes_at_a_join_are_named() -> None:
    layers = [Layer("ip"), C3, POOL, C3, Layer("softmax"), Layer("op")]
    with pytest.raises(UserError, match=r"unequal sizes meet at a layer conv3 16: .*1/1 .*1/2 "):
        of_edges("cnn", layers, [(0, 1), (1, 2), (1, 3), (2, 3), (3, 4), (4, 5)])
