import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from common.base.dataset import Origin
from common.base.errors import UserError
from common.data.shared.fingerprint import fingerprint_of
from common.data.tables.own_table import TableClassification, TableRegression
from common.data.tables.sheet import is_regression, sheet

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
        "encoding": "utf-8",
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
        ("a,a\nx,1\ny,2\n", {}, "2 columns are named 'a'"),
        ("", {}, "it is empty"),
        ("a\nx\n", {}, "it has one column"),
        ("a,b\nx,1\ny,1\n", {}, "all 2 rows are of one class, '1'"),
        (
            "w,b\n" + "".join(f"word{i},{i % 2}\n" for i in range(300)),
            {},
            r"no column is left .*column 'w' is left out: its 150 cells hold 150 different",
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


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_text_in_parquet_becomes_numbers_as_it_does_in_csv(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow
    from pyarrow import parquet

    columns: dict[str, list[Any]] = {
        "weight": ["12 kg", " 3.5 kg", None, "4 kg"],
        "price": ["€ 1,200", "€ 3", "€ 5.5", "€ 1"],
        "x": [1.5, 2.5, None, 0.5],
        "colour": ["red ", "red", "blue", "blue"],
        "kind": ["a", "b", "a", "b"],
    }
    file = tmp_path / "units.parquet"
    parquet.write_table(pyarrow.table(columns), file)
    rows = rows_of(table(file, test_path=str(file)))
    assert rows == [[12, 1200, 1.5, 0, 1], [3.5, 3, 2.5, 0, 1], [6.5, 5.5, 1.5, 1, 0], [4, 1, 0.5, 1, 0]]
    said = capsys.readouterr().err
    assert "numbers of 'weight' with kg" in said and "numbers of 'price' with €" in said
    assert "commas between thousands in price" in said


def test_a_relative_path_that_leads_nowhere_is_told_with_the_folder_that_it_begins_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=rf"dataset\.path=rows\.csv: no such file, from {tmp_path}; there is .* \(valid"
    ):
        table(Path("rows.csv"))


def rows_of(data: TableClassification | TableRegression, split: str = "train") -> list[list[float]]:
    data.setup()
    return data.batch(split, slice(None), augment=False)[0].tolist()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected", "said"),
    [
        ("x;n;y\n1,5;1.000;a\n-0,25;20;b\n", [[1.5, 1000], [-0.25, 20]], "decimal commas in x, n"),
        ("x;y\n1.234,5;a\n,5;b\n", [[1234.5], [0.5]], "decimal commas in x"),
        ("1,5;2,5;a\n3,5;4,5;b\n", [[1.5, 2.5], [3.5, 4.5]], "decimal commas in 0, 1"),
        ('x,y\n"1,234",a\n"7",b\n', [[1234], [7]], "commas between thousands in x"),
        ('x,y\n"1,5",a\n"2,75",b\n', [[1.5], [2.75]], "decimal commas in x"),
        ("x;y\n1,5;a\n;b\n", [[1.5], [1.5]], "decimal commas in x"),
        ("x\ty\n1.5\ta\n2.5\tb\n", [[1.5], [2.5]], None),
        # a point in a file without decimal commas
        ("x;y\n1.000;a\n2.000;b\n", [[1], [2]], None),
        # names that look like numbers, and one that does not
        ("size,2019,y\n1,3,a\n2,4,b\n", [[1, 3], [2, 4]], None),
        # a cell of several lines, and one with separators
        ('x,w,y\n1,"a;b\nc",p\n2,"a;b\nc",q\n', [[1, 1], [2, 1]], None),
        (",x,y\n0,5,a\n1,6,b\n", [[5], [6]], "the first column has no name and counts the rows"),
        ("x,y\n12%,a\n-3.5 %,b\n", [[12], [-3.5]], "numbers of 'x' with %"),
        ("x,y\n$3,a\n-$4.5,b\n,c\n", [[3], [-4.5], [-0.75]], "numbers of 'x' with $"),
        ("x;y\n1.234,50 €;a\n€ 7,25;b\n", [[1234.5], [7.25]], "decimal commas in x"),
        ("5%,3,a\n6%,4,b\n", [[5, 3], [6, 4]], "numbers with %"),
        ("x,y\n12 kg,a\n-3.5kg,b\n", [[12], [-3.5]], "numbers of 'x' with kg"),
        ("x;y\n1,5e3 m2;a\n;c\n2,5 m2;b\n", [[1500], [751.25], [2.5]], "numbers of 'x' with m2"),
        # several units, and a sign that only some of the cells have, are words
        ("x,y\n$3,a\n€3,b\n", [[1, 0], [0, 1]], None),
        ("x,y\n3%,a\n0.5,b\n", [[0, 1], [1, 0]], None),
        ("x,y\n3 kg,a\n4 g,b\n", [[1, 0], [0, 1]], None),
        ("x,y\n3 a-1,a\n4 a-2,b\n", [[1, 0], [0, 1]], None),
    ],
)
def test_numbers_are_read_as_people_write_them_and_that_is_said(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    expected: list[list[float]],
    said: str | None,
) -> None:
    file = tmp_path / "a.csv"
    file.write_text(text)
    assert rows_of(table(file, test_path=str(file))) == expected
    errors = capsys.readouterr().err
    assert said in errors if said else "comma" not in errors


@pytest.mark.parametrize("cell", ["inf", "-Infinity", "1e999", "1e39"])
def test_one_number_without_end_is_refused_with_its_column_and_line(tmp_path: Path, cell: str) -> None:
    file = tmp_path / "a.csv"
    file.write_text("x,y\n" + "".join(f"{cell if i == 7 else i / 3},{'ab'[i % 2]}\n" for i in range(30)))
    with pytest.raises(UserError, match=rf"column 'x', line 9 of .*: '{cell}' is no finite number"):
        table(file, test_path=str(file))
    with pytest.raises(UserError, match="column 'x', line 9"):
        table(file, regression=True, target="x")
    # where numbers are words, it is one
    file.write_text(f"x,y\n{cell},a\nred,b\n")
    assert table(file, test_path=str(file)).shape == (2,)


def test_a_word_among_measurements_is_refused_with_its_column_and_line(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("x,y\n" + "".join(f"{'12a' if i == 7 else i / 3},{'ab'[i % 2]}\n" for i in range(40)))
    with pytest.raises(
        UserError, match=r"column 'x', line 9 of .*: '12a' is no finite number, as 39 of its 40"
    ):
        table(file, test_path=str(file))
    # a few grades are words all the same
    file.write_text("x,y\n" + "".join(f"{'K' if i == 7 else i % 5},{'ab'[i % 2]}\n" for i in range(40)))
    assert table(file, test_path=str(file)).shape == (6,)


def test_a_column_in_which_nearly_every_cell_is_another_word_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.csv"
    names = [f"id{i}" if i % 8 else "id0" for i in range(40)]
    file.write_text("id,x,y\n" + "".join(f"{name},{i},{'ab'[i % 2]}\n" for i, name in enumerate(names)))
    data = table(file, test_path=str(file))
    data.setup()
    assert data.shape == (1,)
    assert [column["name"] for column in data.facts()["columns"]] == ["x"]
    assert (
        "column 'id' is left out: its 40 cells hold 36 different words ('id9', ...)"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (["250000", "310000", "199000"], True),
        (["10000", "0"], False),
        (["9999", "1", "2"], False),
        (["1" + "0" * 25, "2", "3"], True),
        (["1_000", "2", "3"], False),
    ],
)
def test_a_target_of_large_whole_numbers_is_for_regression(target: list[str], expected: bool) -> None:
    assert is_regression(target) is expected


def test_of_many_classes_the_first_are_shown_and_how_many_more_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.csv"
    file.write_text("x,y\n" + "".join(f"{i},{i % 13}\n" for i in range(26)))
    table(file).setup()
    assert (
        "(classes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 3 more; dataset.kind=regression" in capsys.readouterr().err
    )


def test_classes_that_are_numbers_are_one_however_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,1\n2,1.0\n3,2\n")
    (tmp_path / "b.csv").write_text("y,x\n2.00,9\n")
    data = table(tmp_path / "a.csv", test_path=str(tmp_path / "b.csv"), target="y")
    data.setup()
    assert data.class_names() == ["1", "2"]
    assert [data.batch(part, slice(None), False)[1].tolist() for part in ("train", "test")] == [
        [0, 0, 1],
        [1],
    ]  # type: ignore


def test_classes_made_of_others_have_names_of_their_own(path: Path) -> None:
    assert table(path, positive=[1]).class_names() == ["not b", "b"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"x,y\n", r"a row of names \(x, y\), and no row below it"),
        (
            "x,y\nm\xfcde,a\nwach,b\n".encode("latin-1"),
            r"byte 0xfc in line 2\); .*encoding=latin-1.* iconv -f latin1",
        ),
        (b"PK\x03\x04xlsx", r"a spreadsheet's own format, and cannot be unpacked .*; save it as CSV"),
        (b"\xd0\xcf\x11\xe0xls", r"a spreadsheet's own format; save it as CSV"),
        (b"\x1f\x8b\x08\x00", r"packed by gzip, and cannot be unpacked"),
        (b"<!DOCTYPE html><html>", r"a web page; download the file that it shows"),
        (b'x,y\n"1,a\n' + b"2,b\n" * 50_000, r"is a quotation mark left open"),
        (b"x,y\n1,\n2,NA\n", r"dataset\.target=y: no row of .* has one"),
    ],
)
def test_a_file_that_cannot_be_read_says_what_it_is_and_what_to_do(
    tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=said):
        table(tmp_path / "a.csv")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-16"])
def test_the_text_of_a_file_is_the_same_in_each_encoding(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes("x,y\nmüde,a\nwach,b\n".encode(encoding))
    # utf-16 begins with a mark
    data = table(file, test_path=str(file), encoding="utf-8" if encoding == "utf-16" else encoding)
    assert data.facts()["columns"][0]["words"] == ["müde", "wach"]
    with pytest.raises(UserError, match=r"dataset\.encoding=latin_one: "):
        table(file, encoding="latin_one")


def test_the_columns_of_a_test_table_are_found_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("p,q,y\n1,2,a\n3,4,b\n")
    (tmp_path / "b.csv").write_text("y,more,q,p\na,7,20,10\n")
    data = table(tmp_path / "a.csv", test_path=str(tmp_path / "b.csv"), target="y")
    assert rows_of(data, "test") == [[10, 20]]
    assert "1 columns left out, as training has not got them: more" in capsys.readouterr().err
    (tmp_path / "b.csv").write_text("y,q\na,20\n")
    with pytest.raises(UserError, match=r"b\.csv: it lacks 1 of the 2 columns of training: p"):
        table(tmp_path / "a.csv", test_path=str(tmp_path / "b.csv"), target="y")


def test_a_libsvm_file_counts_from_where_it_does_and_what_it_lacks_is_zero(tmp_path: Path) -> None:
    (tmp_path / "a.svm").write_text("-1 1:0.5 3:2\n+1\n-1 2:4\n")
    (tmp_path / "b.svm").write_text("# of another day\n+1 1:7 9:1\n")
    data = table(tmp_path / "a.svm", test_path=str(tmp_path / "b.svm"))
    assert rows_of(data) == [[0.5, 0, 2], [0, 0, 0], [0, 4, 0]]
    assert rows_of(data, "test") == [[7, 0, 0]]
    (tmp_path / "c.svm").write_text("-1 0:5 1:6\n+1 0:1\n")
    (tmp_path / "d.svm").write_text("-1 1:6\n")
    data = table(tmp_path / "c.svm", test_path=str(tmp_path / "d.svm"))
    assert rows_of(data, "test") == [[0, 6]]
    (tmp_path / "e.csv").write_text("1,2,label\n1,2,-1\n")
    with pytest.raises(UserError, match="the training part is LIBSVM and the other one is not"):
        table(tmp_path / "a.svm", test_path=str(tmp_path / "e.csv"), target="label")


def test_the_index_that_pandas_writes_into_parquet_is_no_target_and_no_nameless_input(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def write(index: str) -> Path:
        columns = {"x": [1.5, None, 3.0], "y": ["a", "b", "a"], index: [7, 8, 9]}
        about = {b"pandas": json.dumps({"index_columns": [index], "columns": []}).encode()}
        made = pyarrow.table(columns).replace_schema_metadata(about)
        parquet.write_table(made, tmp_path / "a.parquet")
        return tmp_path / "a.parquet"

    data = table(write("__index_level_0__"), test_path=str(tmp_path / "a.parquet"))
    assert (rows_of(data), data.class_names()) == ([[1.5], [2.25], [3]], ["a", "b"])
    data = table(write("id"), test_path=str(tmp_path / "a.parquet"))
    assert (data.facts()["target"], rows_of(data)[0]) == ("y", [7, 1.5])


def test_a_table_that_is_judged_has_the_normalisation_and_the_merged_classes_of_training(
    tmp_path: Path,
) -> None:
    own, other = tmp_path / "a.csv", tmp_path / "b.csv"
    own.write_text("x,y\n" + "".join(f"{i},{'abc'[i % 3]}\n" for i in range(30)))
    other.write_text("y,x\nc,100\na,-1\nb,0\n")
    trained = table(own, positive=[2], normalise="standard", limit=10, validation=0.1)
    trained.setup()
    facts = trained.facts()
    origin = Origin(facts, fingerprint_of(trained))
    # neither a limit nor another way to normalise of its own counts
    data = table(other, target="y", origin=origin, normalise="unit_interval", limit=2, validation=0.5)
    data.adopt(facts)
    inputs, targets = data.batch("test", slice(None), augment=False)
    assert targets is not None
    assert (data.class_names(), targets.tolist()) == (["not c", "c"], [1, 0, 0])
    expected = [[(x - facts["offset"]) * facts["scale"]] for x in (100, -1, 0)]
    assert torch.allclose(inputs, torch.tensor(expected))
    synthetic = table(other, target="y", origin=origin, source="synthetic")
    assert synthetic.tested() == "the test part of table"
    with pytest.raises(
        UserError, match=r"dataset\.target=x: the network was trained on a part of this table"
    ):
        table(own, target="x", origin=origin)


def test_words_that_a_target_may_have_but_that_stand_for_nothing_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,mild\n2,None\n3,bad\n4,\n")
    table(tmp_path / "a.csv", drop=[])
    sheet(str(tmp_path / "a.csv"), "y", ())
    assert capsys.readouterr().err.count("2 rows have no target (None is none); they are left out") == 1


@pytest.mark.parametrize("level", [1e9, 1.7e12, -1e30])
def test_numbers_that_float32_does_not_tell_apart_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], level: float
) -> None:
    (tmp_path / "a.csv").write_text("x,y\n" + "".join(f"{level * (1 + i * 1e-9)!r},{i}\n" for i in range(9)))
    table(tmp_path / "a.csv", regression=True).setup()
    assert "column 'x': float32 does not tell its numbers apart" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"dataset\.target=x: float32 .*subtract a constant"):
        table(tmp_path / "a.csv", regression=True, target="x")


@pytest.mark.parametrize("unit", [1e-30, 1e-8, 1.0, 1e8, 1e30])
def test_numbers_of_any_unit_that_float32_tells_apart_are_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], unit: float
) -> None:
    # the first column is constant but for the rounding of float64
    rows = (f"{unit * (0.1 + 0.2 if i % 2 else 0.3)!r},{unit * (100 + i)!r},{unit * i!r}\n" for i in range(9))
    (tmp_path / "a.csv").write_text("c,x,y\n" + "".join(rows))
    data = table(tmp_path / "a.csv", regression=True, normalise="standard")
    data.setup()
    said = capsys.readouterr().err
    assert "float32" not in said
    assert f"rmse is in their standard deviations of {1 / data.target_scale:.6g}" in said
    assert data.batch("train", slice(None), False)[0].isfinite().all()


def test_a_column_is_meant_by_its_name_where_that_is_a_number_too(tmp_path: Path) -> None:
    file = tmp_path / "years.csv"
    file.write_text("2019,2020,1\n" + "".join(f"{i / 7},{i % 2},{i}\n" for i in range(20)))
    data = table(file, target=2020, drop=[1])
    assert (data.sheet.target_name, [column.name for column in data.columns]) == ("2020", ["2019"])
    # no year of the names is a row
    assert len(data.sheet) == 20


def test_the_first_cells_of_a_table_without_names_are_no_names_for_a_place_among_its_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "plain.csv"
    file.write_text("1,2,1\n" + "3,4,0\n" * 9 + "3,5,1\n" * 9)
    assert (table(file, target=2).sheet.target_name, len(table(file, target=2).sheet)) == ("2", 19)
    assert "plain.csv: its first row holds no names; its columns are 0 to 2" in capsys.readouterr().err


def test_a_ranking_in_libsvm_is_libsvm(tmp_path: Path) -> None:
    file = tmp_path / "ranks.txt"
    file.write_text("".join(f"{i % 2} qid:{i // 2} 1:{i / 8} 3:1\n" for i in range(12)))
    assert (table(file).class_list, table(file).shape) == (["0", "1"], (3,))


def test_a_target_from_which_nothing_can_be_learned_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "names.csv"
    file.write_text("name,size,price\n" + "".join(f"person {i},{i / 7},3.5\n" for i in range(30)))
    with pytest.raises(
        UserError, match=r"its 30 rows are of 30 classes \('person 0', .*another column, of size"
    ):
        table(file, target="name")
    with pytest.raises(UserError, match=r"^dataset\.target=price: it is 3\.5 in all 30 rows"):
        table(file, target="price", regression=True)


def test_an_empty_column_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "hole.csv"
    file.write_text("size,hole,kind\n" + "".join(f"{i / 7},,{'ab'[i % 2]}\n" for i in range(20)))
    data = table(file)
    data.setup()
    assert data.shape == (1,)
    assert "column 'hole' is left out: it is empty" in capsys.readouterr().err
    assert data.repairs == {}


def test_of_a_column_that_is_left_out_a_word_is_shown_and_how_many_numbers_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "books.csv"
    cells = [f"({i}.5)" if i % 2 else f"{i}.5" for i in range(40)]
    file.write_text(
        "debt,size,kind\n" + "".join(f"{c},{i},{'ab'[i % 4 // 2]}\n" for i, c in enumerate(cells))
    )
    table(file).setup()
    said = capsys.readouterr().err
    assert re.search(
        r"column 'debt' is left out: .* words \('\(\d+\.5\)', \.\.\.; \d+ of them are numbers\)", said
    )


def test_words_and_classes_that_differ_in_case_alone_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "case.csv"
    rows = zip(["TRUE", "true", "other"] * 20, ["yes", "Yes", "no", "no"] * 15, strict=True)
    file.write_text("flag,bought\n" + "".join(f"{flag},{bought}\n" for flag, bought in rows))
    table(file).setup()
    said = capsys.readouterr().err
    assert "target 'bought': 'Yes' and 'yes' differ in case alone, and count as 2" in said
    assert "column 'flag': 'TRUE' and 'true' differ in case alone, and count as 2" in said
