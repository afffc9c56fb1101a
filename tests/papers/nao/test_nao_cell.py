"""Cells as data: published strings, both codes' tokens, keys, grammars and spaces."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.base.errors import UserError
from papers.nao.cell import (
    NAMED,
    Branch,
    ConvArchitecture,
    Node,
    conv_architecture_of,
    loose_ends,
    parse_numbers,
    parse_tokens,
    to_numbers,
    to_tokens,
)
from papers.nao.grammar import START, Grammar
from papers.nao.operations import NAO, NAO_WS
from papers.nao.recurrent_cell import ACTIVATIONS, RecurrentCell, Step, parse_recurrent, to_recurrent_text
from papers.nao.recurrent_cell import NAMED as RECURRENT
from papers.nao.space import ConvSpace, RecurrentSpace

SMALL = ConvSpace(2, ("identity", "conv_3x3", "max_pool_3x3"), one_cell=True)
SPACES: list[Any] = [
    SMALL,
    ConvSpace(5, NAO),
    ConvSpace(5, NAO, tokens="split"),
    ConvSpace(5, NAO_WS),
    ConvSpace(3, NAO_WS, one_cell=True),
    RecurrentSpace(),
    RecurrentSpace(1),
]
NAONET = "0 7 1 15 2 8 1 7 0 6 1 7 0 8 4 7 1 5 0 7 0 7 1 13 0 6 0 14 0 9 1 10 0 14 2 6 1 11 0 7"


# --- published architectures


def test_naonet_is_what_its_figure_shows() -> None:
    net = NAMED["naonet"]
    assert net.normal[0] == Node(Branch(0, "conv_3x3"), Branch(1, "avg_pool_5x5"))
    assert net.normal[3] == Node(Branch(0, "conv_1x3_3x1"), Branch(4, "conv_3x3"))
    assert net.reduction[4] == Node(Branch(1, "max_pool_3x3"), Branch(0, "conv_3x3"))
    assert loose_ends(net.normal) == [3, 5, 6] and loose_ends(net.reduction) == [3, 4, 5, 6]


def test_the_two_codes_differ_in_the_inputs_of_one_node_of_naonet() -> None:
    one, other = NAMED["naonet"], NAMED["naonet_dag"]
    assert one.normal == other.normal
    assert [a == b for a, b in zip(one.reduction, other.reduction, strict=True)] == [
        True,
        True,
        False,
        True,
        True,
    ]
    assert other.reduction[2] == Node(Branch(1, "conv_1x7_7x1"), Branch(0, "max_pool_2x2"))


def dag_of(architecture: ConvArchitecture) -> dict[str, Any]:
    """The first code's file, written here by hand from its format."""
    words = {"identity": "identity", "conv_1x3_3x1": "conv 1x3+3x1", "conv_1x7_7x1": "conv 1x7+7x1"}
    found = {}
    for name, cell in (("conv_dag", architecture.normal), ("reduc_dag", architecture.reduction)):
        nodes: dict[str, Any] = {f"node_{k}": [f"node_{k}", None, None, None, None] for k in (1, 2)}
        for k, node in enumerate(cell, 3):
            says = [words.get(b.operation, " ".join(b.operation.rsplit("_", 1))) for b in node]
            nodes[f"node_{k}"] = [f"node_{k}", *(f"node_{b.source + 1}" for b in node), *says]
        found[name] = nodes
    return found


@pytest.mark.parametrize("name", ["naonet", "naonet_dag", "nasnet_a", "amoebanet_a", "enas"])
def test_strings_tokens_and_files_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    net = NAMED[name]
    assert parse_tokens(to_tokens(net)) == net
    assert ConvArchitecture.from_json(dag_of(net)) == net
    assert ConvArchitecture.from_json(json.loads(json.dumps(net.to_json()))) == net
    path = tmp_path / "net.json"
    path.write_text(json.dumps(dag_of(net)))
    assert conv_architecture_of(str(path)) == conv_architecture_of(name) == net


@pytest.mark.parametrize(
    ("name", "operations"), [("naonet", NAO), ("naonet_b", NAO_WS), ("naonet_ws", NAO_WS)]
)
def test_published_numbers_come_back_as_they_were(name: str, operations: tuple[str, ...]) -> None:
    text = to_numbers(NAMED[name], operations)
    assert parse_numbers(text) == NAMED[name]
    if name == "naonet":
        assert text == NAONET


def test_naonets_tokens_are_the_first_codes() -> None:
    # node 3 of the file: node_1 conv 3x3, node_2 avg_pool 5x5; node 7: node_2 identity, node_1 conv 3x3
    tokens = to_tokens(NAMED["naonet_dag"])
    assert tokens.startswith("1 9 16 2 11 17 3 9 19 2 9 16 ")
    assert " 2 7 14 1 9 16 | 1 9 16 2 11 15 " in tokens
    assert (
        conv_architecture_of(tokens) == conv_architecture_of(tokens.replace("| ", "")) == NAMED["naonet_dag"]
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (NAONET.replace("2 8", "2 99", 1), r"position 5: 99 is no operation \(valid: 0 to 15\)"),
        (NAONET.replace("4 7", "5 7", 1), r"position 14: 5 is no source \(valid: 0 to 4\)"),
        ("0 7 1", "3 numbers"),
        ("", "architecture : valid: naonet"),
        ("nasnet_z", "architecture nasnet_z: valid: naonet"),
        (
            "1 9 16 2 11 14 | 1 9 16 2 11 17",
            r"position 5: avg_pool has no kernel 1x1 \(valid: 2x2, 3x3, 5x5\)",
        ),
        ("1 9 16 3 11 17 | 1 9 16 2 11 17", r"position 3: 3 is no source \(valid: 1 to 2\)"),
        ("1 9 16 2 11 17 | 1 14 16 2 11 17", r"position 7: 14 is no type \(valid: 7 to 13\)"),
        ("1 9 16 2 11 x | 1 9 16 2 11 17", "valid: naonet"),
        (
            "1 9 16 | 2 11 17 1 9 16 2 11 17",
            r"a \| behind 3 tokens \(valid: one, between the cells, behind 6\)",
        ),
        ("1 9 16 2 11 17 1 9 16 2 11 17 |", r"a \| behind 12 tokens"),
        ("1 9 16 2 11 17 | 1 9 16 | 2 11 17", r"a \| behind 6 tokens"),
        ("missing.json", "architecture missing.json"),
    ],
)
def test_what_no_grammar_accepts_is_one_line_with_its_position(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        conv_architecture_of(text)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "dictionary of normal and reduction"),
        (
            {"normal": [[0, "conv_3x3", 2, "identity"]], "reduction": []},
            "normal, node 0: source 2; valid: 0 to 1",
        ),
        ({"normal": [[0, "conv_9x9", 1, "identity"]], "reduction": []}, "operation conv_9x9"),
        ({"normal": 3, "reduction": []}, "normal: 3; valid: a list"),
        ({"normal": [[0, ["a"], 1, "identity"]], "reduction": []}, r"operation \['a'\]"),
        ({"normal": [[True, "identity", 1, "identity"]], "reduction": []}, "source True"),
        ({"conv_dag": {"node_1": [], "node_2": []}, "reduc_dag": {}}, "conv_dag: 2 nodes"),
        ({"conv_dag": {"node_1": 0, "node_2": 0, "node_3": [1]}, "reduc_dag": {}}, "conv_dag, node_3"),
    ],
)
def test_data_that_are_no_architecture_name_the_place(data: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        ConvArchitecture.from_json(data)


# --- recurrent cells


@pytest.mark.parametrize("name", RECURRENT)
def test_published_recurrent_cells_come_back_as_they_were(name: str) -> None:
    cell = RECURRENT[name]
    assert len(cell.steps) == 11 and parse_recurrent(to_recurrent_text(cell)) == cell
    assert RecurrentCell.from_json(json.loads(json.dumps(cell.to_json()))) == cell


def test_activations_two_and_three_are_those_that_published_strings_are_evaluated_by() -> None:
    assert RECURRENT["nao"].steps[-1] == Step(1, "identity")
    assert ACTIVATIONS == ("tanh", "relu", "identity", "sigmoid")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0 1 2 1", r"position 2: 2 is no source \(valid: 0 to 1\)"),
        ("0 4", r"position 1: 4 is no activation \(valid: 0 to 3\)"),
        ("0 1 1", "3 numbers"),
        ("0 x", "position 1: x is no activation"),
    ],
)
def test_wrong_recurrent_strings_name_the_position(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse_recurrent(text)


def test_recurrent_cells_that_are_one_tree_have_one_key() -> None:
    one = RecurrentCell((Step(0, "relu"), Step(0, "tanh"), Step(1, "sigmoid")))
    other = RecurrentCell((Step(0, "tanh"), Step(0, "relu"), Step(2, "sigmoid")))
    assert one.key == other.key != RecurrentCell((Step(0, "tanh"), Step(0, "relu"), Step(1, "sigmoid"))).key


# --- keys


def brute_force_key(cell: tuple[Node, ...]) -> Any:
    """The smallest description among all orders of nodes and branches, tried one by one."""
    best: Any = None
    for order in itertools.permutations(range(len(cell))):
        numbers = {0: 0, 1: 1, **{2 + old: 2 + new for new, old in enumerate(order)}}
        rows = [sorted((numbers[b.source], b.operation) for b in cell[old]) for old in order]
        if all(source < 2 + row for row, pair in enumerate(rows) for source, _ in pair):
            best = rows if best is None else min(best, rows)
    return best


@given(st.integers(0, 10**6), st.sampled_from([2, 3, 4]))
def test_keys_agree_with_trying_every_order(seed: int, nodes: int) -> None:
    space = ConvSpace(nodes, ("identity", "conv_3x3"), one_cell=True)
    random = np.random.default_rng(seed)
    one = space.sample(random)
    other = space.mutate(one, random)
    same = brute_force_key(one.normal) == brute_force_key(other.normal)
    assert (one.key == other.key) == same
    assert one.canonical.key == one.key


def test_the_small_space_has_735_different_networks_of_at_most_945() -> None:
    found = list(SMALL.every())
    # 21 unordered pairs of six branches, 45 of nine; of those that read no first node two orders are one cell
    assert SMALL.size == (2 * 3) ** 2 * (3 * 3) ** 2
    assert len(found) == len({one.key for one in found}) == 21 * 45 - 21 * 21 + 21 * 22 // 2 == 735
    assert all(one.canonical == one for one in found)
    assert {SMALL.sample(np.random.default_rng(k)).key for k in range(50)} <= {one.key for one in found}


# --- spaces and grammars


def test_spaces_have_the_papers_sizes() -> None:
    assert ConvSpace(5, NAO).size == math.prod((i * 11) ** 2 for i in range(2, 7)) ** 2
    assert ConvSpace(5, NAO_WS).size == math.prod((i * 5) ** 2 for i in range(2, 7)) ** 2
    assert RecurrentSpace().size == math.prod(4 * i for i in range(1, 12))
    shapes = [(s.grammar.vocabulary, s.grammar.length) for s in (SPACES[2], SPACES[3], SPACES[5])]
    assert shapes == [(21, 60), (12, 40), (16, 22)]


@pytest.mark.parametrize("space", SPACES)
def test_an_architecture_survives_every_way_of_writing_it(space: Any) -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        one = space.sample(random)
        assert space.decode(space.encode(one)) == one
        assert space.grammar.decode(space.grammar.encode(one)) == one
        assert space.from_json(json.loads(json.dumps(one.to_json()))) == one
        other = space.mutate(one, random)
        assert sum(a != b for a, b in zip(space.encode(one), space.encode(other), strict=True)) == 1
        assert space.grammar.decode(space.grammar.encode(other)) == other


@pytest.mark.parametrize("space", SPACES)
def test_a_walk_through_the_mask_is_an_architecture_and_nothing_else_is(space: Any) -> None:
    grammar: Grammar[Any] = space.grammar
    random = np.random.default_rng(1)
    for _ in range(20):
        tokens, before = [], START
        for position in range(grammar.length):
            allowed = grammar.allowed[position, before].nonzero().flatten().tolist()
            before = int(random.choice(allowed))
            tokens.append(before)
        assert grammar.encode(grammar.decode(tokens)) == tokens
        at = int(random.integers(grammar.length))
        wrong = [*tokens[:at], START, *tokens[at + 1 :]]
        with pytest.raises(UserError, match=f"position {at}: token 0"):
            grammar.decode(wrong)


def test_the_masks_are_the_codes() -> None:
    pairs, recurrent = SPACES[3].grammar, SPACES[5].grammar
    for j in range(5):
        for position in (4 * j, 4 * j + 2, 20 + 4 * j):
            assert pairs.allowed[position, 9].nonzero().flatten().tolist() == list(range(1, j + 3))
            assert pairs.allowed[position + 1, 1].nonzero().flatten().tolist() == list(range(7, 12))
    for t in range(0, 22, 2):
        assert recurrent.allowed[t, 3].nonzero().flatten().tolist() == list(range(1, t // 2 + 2))
        assert recurrent.allowed[t + 1, 1].nonzero().flatten().tolist() == [12, 13, 14, 15]
    # the identity has one kernel, a convolution those of the space
    split = SPACES[2].grammar
    assert split.allowed[2, 7].nonzero().flatten().tolist() == [14]
    assert split.allowed[2, 9].nonzero().flatten().tolist() == [14, 16, 19, 20]


def test_published_sequences_of_the_shared_weights_are_numbers_plus_one_and_seven() -> None:
    numbers = list(map(int, to_numbers(NAMED["naonet_b"], NAO_WS).split()))
    wanted = [value + (7 if position % 2 else 1) for position, value in enumerate(numbers)]
    assert SPACES[3].grammar.encode(NAMED["naonet_b"]) == wanted
    cell = list(map(int, to_recurrent_text(RECURRENT["nao"]).split()))
    wanted = [value + (12 if position % 2 else 1) for position, value in enumerate(cell)]
    assert SPACES[5].grammar.encode(RECURRENT["nao"]) == wanted


@pytest.mark.parametrize("space", [SPACES[1], SPACES[2], SMALL])
def test_exchanged_branches_are_the_same_network_one_node_a_cell(space: ConvSpace) -> None:
    random = np.random.default_rng(2)
    found = [space.sample(random) for _ in range(200)]
    tokens = space.grammar.tensor(found)
    swapped = space.grammar.swapped(tokens, torch.Generator().manual_seed(0))
    nodes: list[int] = []
    for one, row in zip(found, swapped.tolist(), strict=True):
        other = space.grammar.decode(row)
        assert other.key == one.key
        for cell, new in ((one.normal, other.normal), (one.reduction, other.reduction)):
            changed = [k for k, (a, b) in enumerate(zip(cell, new, strict=True)) if a != b]
            assert len(changed) <= 1 and all(new[k] == cell[k].swapped for k in changed)
            nodes += changed
    assert set(nodes) == set(range(space.nodes))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ConvSpace(0, NAO), "method.nodes=0"),
        (lambda: ConvSpace(2, ("conv_9x9",)), "method.operations"),
        (lambda: ConvSpace(2, ("identity", "identity")), "method.operations"),
        (lambda: ConvSpace(6, NAO, tokens="split"), "method.nodes=6"),
        (lambda: ConvSpace(2, NAO_WS, tokens="split"), "none for avg_pool_3x3_inside"),
        (lambda: list(ConvSpace(5, NAO).every()), "to count through"),
        (lambda: ConvSpace(5, NAO_WS).require(NAMED["naonet"]), "node 0 has conv_3x3; valid in this space"),
        (lambda: SMALL.require(NAMED["naonet"]), "has 5 nodes; valid in this space: 2"),
        (lambda: SMALL.decode((0, 0, 0, 0, 3, 0, 0, 0)), "position 4"),
        (lambda: SMALL.decode((0, 0, 0, 0, 1.5, 0, 0, 0)), "1.5 at position 4; valid: a whole number"),  # type: ignore[arg-type]
        (lambda: RecurrentSpace(1).decode((0, "tanh")), "'tanh' at position 1; valid: a whole"),  # type: ignore[arg-type]
        (lambda: RecurrentSpace(0), "method.steps=0"),
        (lambda: RecurrentSpace(2).encode(RECURRENT["nao"]), "11 steps; valid in this space: 2"),
    ],
)
def test_what_is_outside_a_space_is_refused(make: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make()
