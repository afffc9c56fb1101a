import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from common.base.errors import UserError
from common.data.tables.own_table import TableClassification, TableRegression, is_regression, sheet

TEXT = """size,colour,rating,kind
1.5,red,3,a
,blue,4,b
2.5,NA,5,a
3.5,red,1,b
0.5,green,2,a
4.5,blue,2,
2.0,red,7,b
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "table.csv"
    file.write_text(TEXT)
    return file


def table(path: Path, regression: bool = False, **changes: Any) -> TableClassification | TableRegression:
    made = TableRegression if regression else TableClassification
    options: dict[str, Any] = {
        "kind": made.KIND,
        "data_dir": "data",
        "seed": 0,
        "source": "real",
        "limit": None,
        "validation": 0.0,
        "normalise": "none",
        "verify": True,
        "batch_size": 8,
        "positive": None,
        "path": str(path),
        "test_path": None,
        "test": 0.5,
        "target": -1,
        "drop": [],
    }
    return made(**options | changes)


def test_columns_of_numbers_and_of_words_become_inputs_and_what_is_missing_is_counted(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = table(path, test_path=str(path))
    data.setup()
    inputs, targets = data.batch("train", slice(None), augment=False)
    # size, the words "", blue, green, red, rating; without the row that has no target
    assert data.shape == (6,)
    assert data.classes == 2
    assert targets is not None
    assert targets.tolist() == [0, 1, 0, 1, 0, 1]
    assert inputs[:, 0].tolist() == [1.5, 2.0, 2.5, 3.5, 0.5, 2.0]
    assert inputs[0].tolist() == [1.5, 0, 0, 0, 1, 3]
    assert inputs[2, 1:5].tolist() == [1, 0, 0, 0]
    assert sum(data.repairs.values()) == 4
    said = capsys.readouterr().err
    assert "1 rows have no target" in said
    assert "target 'kind' (classes a, b); 2 columns of numbers, 1 of words" in said


def test_the_held_out_part_is_the_same_for_all_seeds_and_nobody_trains_on_it(path: Path) -> None:
    first, second = table(path), table(path, seed=5)
    for data in (first, second):
        data.setup()
    assert torch.equal(
        first.batch("test", slice(None), False)[0], second.batch("test", slice(None), False)[0]
    )
    assert first.size("train") + first.size("test") == 6


def test_means_and_words_are_those_of_the_training_part(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("x,w,y\n1,a,0\n3,b,1\n")
    (tmp_path / "test.csv").write_text("x,w,y\n,c,1\n100,a,0\n")
    data = table(tmp_path / "train.csv", test_path=str(tmp_path / "test.csv"))
    data.setup()
    assert data.batch("test", slice(None), False)[0].tolist() == [[2, 0, 0], [100, 1, 0]]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (["a", "b"], False),
        (["1", "2", "1"], False),
        (["0.5", "2"], True),
        ([str(i) for i in range(20)], False),
        ([str(i) for i in range(21)], True),
        (["-1.0", "1.0"], False),
    ],
)
def test_a_target_of_fractions_or_of_many_numbers_is_for_regression(
    target: list[str], expected: bool
) -> None:
    assert is_regression(target) is expected


def test_numbers_are_targets_of_a_regression_in_their_units(path: Path) -> None:
    data = table(path, regression=True, target="rating", drop=["kind"], test_path=str(path))
    data.setup()
    targets = data.batch("train", slice(None), augment=False)[1]
    assert data.classes is None
    assert targets is not None
    assert targets.tolist() == [3, 4, 5, 1, 2, 2, 7]


def test_labels_in_libsvm_and_other_separators_are_read(tmp_path: Path) -> None:
    file = tmp_path / "rows.svm"
    file.write_text("-1 1:0.5 3:2\n+1 2:1\n-1 1:4\n+1 3:1e3\n")
    data = table(file, test_path=str(file))
    data.setup()
    inputs, targets = data.batch("train", slice(None), augment=False)
    assert inputs.tolist() == [[0.5, 0, 2], [0, 1, 0], [4, 0, 0], [0, 0, 1000]]
    assert targets is not None
    assert targets.tolist() == [0, 1, 0, 1]
    (tmp_path / "rows.csv").write_text("1;2;a\n3;4;b\n")
    assert sheet(str(tmp_path / "rows.csv"), -1, ()).names == ["0", "1"]


@pytest.mark.parametrize(
    ("text", "changes", "said"),
    [
        ("a,b\n1,2\n3\n", {}, "row 3 has 1 cells, the first 2"),
        ("a,b\nx,1\ny,2\n", {"target": "c"}, r"dataset\.target=c: no such column \(valid: a, b"),
        ("a,b\nx,1\ny,2\n", {"target": 2}, r"dataset\.target=2: no such column"),
        ("a,b\nx,1\ny,2\n", {"drop": ["c"]}, r"no column 'c'"),
        ("a,a\nx,1\ny,2\n", {}, "two columns are named 'a'"),
        ("", {}, "it is empty"),
        ("a\nx\n", {}, "1 columns"),
        ("a,b\nx,1\ny,1\n", {}, "it has 1 classes"),
        (
            "w,b\n" + "".join(f"word{i},{i % 2}\n" for i in range(300)),
            {},
            r"150 different words .*drop=\[w\]",
        ),
    ],
)
def test_a_file_that_does_not_fit_gets_one_line(
    tmp_path: Path, text: str, changes: dict[str, Any], said: str
) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=said):
        table(file, **changes)


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is not None, reason="pyarrow is installed")
def test_parquet_without_its_package_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"pip install -e '\.\[tables\]'"):
        table(tmp_path / "a.parquet")


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_parquet_is_read_as_csv_is(tmp_path: Path, path: Path) -> None:
    from pyarrow import csv, parquet

    parquet.write_table(csv.read_csv(path), tmp_path / "table.parquet")
    assert table(tmp_path / "table.parquet").shape == table(path).shape
