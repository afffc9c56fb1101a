"""What is refused of a `tables.yaml`, by its place in the file."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.base.errors import UserError
from common.tables import tables
from common.tables.checked import check_tables

TABLES = yaml.safe_load("""
paper: mine
scales: {laptop: {paper.epochs: 2}, smoke: {paper.epochs: 1}}
titles: {test_error: error on the test set}
tables:
  - id: digits
    about: error on digits
    metrics: {test_error: {unit: '%', better: lower}}
    choose: {dataset: digits}
    rows: [{id: first}, {id: second, set: {method.lr: 0.1}}]
""")


def test_tables_as_they_should_be_are_let_through() -> None:
    check_tables(TABLES, "mine", Path("tables.yaml"))


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ((), [], "the file: valid: a mapping with paper"),
        (("tables",), None, "tables: valid: a list"),
        (("paper",), "yours", "paper: yours (valid: mine"),
        (("scales", "tiny"), {}, "scales: unknown key tiny (valid: paper, laptop, smoke)"),
        (("titles", "test_loss"), "loss", "titles: unknown key test_loss (valid: test_error)"),
        (("titles", "test_error"), 3, "titles: test_error: 3 (valid: words)"),
        (("titles",), None, "titles: valid: a mapping with test_error"),
        (("tables", 0, "id"), ..., "table number 1: id is missing"),
        (("tables", 0, "metrics"), ..., "table digits: metrics is missing"),
        (("tables", 0, "chose"), {}, "table digits: unknown key chose (valid: choose"),
        (("tables", 0, "budget"), {"small": {}}, "table digits: budget: unknown key small"),
        (("tables", 0, "metrics", "test_error", "better"), "smaller", "better=smaller (valid: lower"),
        (("tables", 0, "metrics", "test_error", "unit"), ..., "metric test_error: unit is missing"),
        (("tables", 0, "rows"), {"first": {}}, "table digits: rows: valid: a list of rows"),
        (("tables", 0, "rows", 1, "id"), "first", "table digits: rows: first stands there more than once"),
        (("tables", 0, "rows", 1, "set"), "x", "table digits: row second: set: valid: a mapping"),
        (("tables", 0, "rows", 0), "first", "table digits: row number 1: valid: a mapping with"),
        (("tables", 0, "grid"), {"row": "{a}"}, "table digits: grid: axes is missing"),
        (("tables",), 2 * TABLES["tables"], "tables: digits stands there more than once"),
    ],
)
def test_what_is_not_as_it_should_be_is_named_by_its_place(
    place: tuple[Any, ...], value: Any, said: str
) -> None:
    content = deepcopy(TABLES)
    node = content
    for key in place[:-1]:
        node = node[key]
    if value is ...:
        del node[place[-1]]
    elif place:
        node[place[-1]] = value
    else:
        content = value
    with pytest.raises(UserError) as refused:
        check_tables(content, "mine", Path("tables.yaml"))
    assert str(refused.value).startswith("tables.yaml: ") and said in str(refused.value)


def test_a_file_that_is_no_yaml_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "papers" / "torn" / "tables.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("paper: torn\ntables:\n  - : [\n")
    with pytest.raises(UserError, match=r"torn/tables\.yaml: no YAML: line \d: "):
        tables.load_tables("torn")
