"""Cells as data, and the space that they are drawn from."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.base.errors import UserError
from papers.dpc.cell import ASPP_CELL, NAMED, TOP1, WORST, Cell, atrous, cell_of, pointwise, pool
from papers.dpc.space import CellSpace

# as it is published: dense_prediction_cell_branch5_top1_cityscapes.json
PUBLISHED = (
    '[{"kernel": 3, "rate": [1, 6], "op": "conv", "input": -1}, '
    '{"kernel": 3, "rate": [18, 15], "op": "conv", "input": 0}, '
    '{"kernel": 3, "rate": [6, 3], "op": "conv", "input": 1}, '
    '{"kernel": 3, "rate": [1, 1], "op": "conv", "input": 0}, '
    '{"kernel": 3, "rate": [6, 21], "op": "conv", "input": 0}]'
)


def test_the_published_file_is_the_best_cell_and_comes_out_again() -> None:
    assert Cell.from_json(json.loads(PUBLISHED)) == TOP1
    assert TOP1.to_json() == json.loads(PUBLISHED)


@pytest.mark.parametrize("name", NAMED)
def test_every_named_cell_survives_json(name: str) -> None:
    assert Cell.from_json(json.loads(json.dumps(NAMED[name].to_json()))) == NAMED[name]


def test_a_cell_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "cell.json").write_text(PUBLISHED)
    assert cell_of(str(tmp_path / "cell.json")) == TOP1


@pytest.mark.parametrize(
    ("branches", "says"),
    [
        ([], "no branches"),
        ([{"op": "conv", "kernel": 1, "input": 0}], "branch 0 reads itself"),
        ([{"op": "conv", "kernel": 1, "input": 1}], "branch 0 reads branch 1 (valid: -1 for the backbone)"),
        (
            [{"op": "conv", "kernel": 1, "input": -1}, {"op": "conv", "kernel": 1, "input": -2}],
            r"branch 1 reads branch -2 (valid: -1 for the backbone, 0 to 0)",
        ),
        ([{"op": "conv", "kernel": 5, "input": -1}], "kernel 5 (valid: conv with kernel 1 or 3"),
        ([{"op": "conv", "kernel": 3, "input": -1}], "rate None (valid: two whole numbers)"),
        ([{"op": "conv", "kernel": 3, "rate": [1, 2.5], "input": -1}], "rate [1, 2.5]"),
        ([{"op": "conv", "kernel": 3, "rate": [0, 1], "input": -1}], "sizes [0, 1] (valid: at least 1)"),
        ([{"op": "pyramid_pooling", "grid_size": [2], "input": -1}], "grid_size [2]"),
        ([{"op": "conv", "kernel": 1, "input": "F"}], "input F"),
        ({"op": "conv"}, "no list of branches"),
        ([1], "branch 0 is 1 (valid: a dictionary"),
        (["conv"], "branch 0 is conv (valid: a dictionary"),
        ([None], "branch 0 is None (valid: a dictionary"),
        ([{"op": "conv", "kernel": 1, "input": True}], "input True"),
    ],
)
def test_what_is_no_cell_is_refused_in_one_line(branches: Any, says: str) -> None:
    with pytest.raises(UserError) as error:
        Cell.from_json(branches)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("value", "says"), [("top9", "valid: top1, aspp_cell"), ("no.json", "no.json")])
def test_an_unknown_name_or_file_says_what_is_valid(value: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        cell_of(value)


def test_relabelled_branches_are_one_function_with_one_key() -> None:
    other = Cell((atrous(1, 6), atrous(6, 21, 0), atrous(1, 1, 0), atrous(18, 15, 0), atrous(6, 3, 3)))
    assert other != TOP1
    assert other.key == TOP1.key
    assert other.canonical() == TOP1.canonical() == TOP1.canonical().canonical()
    assert TOP1.key != ASPP_CELL.key


def test_the_space_has_the_papers_size() -> None:
    space = CellSpace()
    assert len(space.operators) == len(set(space.operators)) == 81
    assert space.size == 418_414_128_120
    assert space.encode(TOP1)[0] == 0


def test_keys_tell_apart_exactly_the_functions_of_a_small_space() -> None:
    space = CellSpace(3, [1, 2], [1])
    codes = itertools.product(*(range(n) for number in range(3) for n in (number + 1, len(space.operators))))
    cells = [space.decode(code) for code in codes]
    assert len(set(cells)) == len(cells) == space.size == 6 * 6**3
    assert len({cell.key for cell in cells}) == space.functions
    assert all(space.decode(space.encode(cell)) == cell for cell in cells)
    # the same tree under some relabelling, by trying all of them
    by_relabelling = {min(_relabelled(cell)) for cell in cells}
    assert len(by_relabelling) == space.functions


def _relabelled(cell: Cell) -> list[str]:
    found = []
    for order in itertools.permutations(range(len(cell.branches))):
        place = {old: new for new, old in enumerate(order)} | {-1: -1}
        branches = [(place[cell.branches[old].input], cell.branches[old].operator) for old in order]
        if all(source < number for number, (source, _) in enumerate(branches)):
            found.append(repr(branches))
    return found


def test_the_uniform_sampler_hits_every_input_and_operator_alike() -> None:
    space, random, draws = CellSpace(), np.random.default_rng(0), 8_100
    codes = np.array([space.encode(space.sample(random)) for _ in range(draws)])
    for number in range(5):
        for column, choices in ((2 * number, number + 1), (2 * number + 1, 81)):
            counts = np.bincount(codes[:, column], minlength=choices)
            expected = draws / choices
            chi_squared = float(((counts - expected) ** 2 / expected).sum())
            # mean k - 1, variance 2 (k - 1): five standard deviations
            assert chi_squared <= choices - 1 + 5 * (2 * (choices - 1)) ** 0.5


def test_a_mutation_changes_one_choice_and_stays_in_the_space() -> None:
    space, random = CellSpace(), np.random.default_rng(1)
    cell, changed = TOP1, set()
    for _ in range(300):
        neighbour = space.mutate(cell, random)
        pairs = zip(space.encode(cell), space.encode(neighbour), strict=True)
        differing = [place for place, (before, after) in enumerate(pairs) if before != after]
        assert len(differing) == 1
        changed.add(differing[0])
        cell = neighbour
    assert changed == set(range(10)) - {0}


@pytest.mark.parametrize(
    ("cell", "says"),
    [(Cell((pointwise(),)), "1 branches; valid: 5"), (Cell((atrous(2, 1),) * 5), "3x3 2x1: no operator")],
)
def test_a_cell_outside_the_space_is_refused(cell: Cell, says: str) -> None:
    with pytest.raises(UserError, match=says):
        CellSpace().encode(cell)


def test_a_code_outside_the_space_is_refused() -> None:
    with pytest.raises(UserError, match="branch 0; valid: an input of 0 to 0"):
        CellSpace().decode((1, 0) + (0, 0) * 4)
    with pytest.raises(UserError, match="a code of 3 numbers; valid: 10"):
        CellSpace().decode((0, 0, 0))


def test_the_worst_cell_pools_over_the_whole_map_first() -> None:
    assert WORST.branches[0] == pool(1, 1)
    assert [source for source, _ in WORST.branches] == [-1, 0, 1, 2, 3]
