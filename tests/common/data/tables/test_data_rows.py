"""Files as they are downloaded: their separators, titles, names and packing."""

import bz2
import gzip
import lzma
import zipfile
from pathlib import Path

import pytest

from common.base.errors import UserError
from common.data.tables.rows import arff, delimiter_of, headed
from common.data.tables.sheet import is_regression, numbered, sheet, table_of

PLAIN = "a,b,y\n1,x,p\n2,z,q\n"


@pytest.mark.parametrize(
    ("text", "names", "row"),
    [
        ("a|b\n1|x\n2|z\n", ["a", "b"], ["1", "x"]),
        ("a b  c\n  1   x 3\n 2  z\t4\n", ["a", "b", "c"], ["1", "x", "3"]),
        # numbers between blanks, then a tab, as UCI's auto-mpg
        ('18.0  8  ?\t"a b"\n15.0  6  7.5\t"c d"\n', ["0", "1", "2", "3"], ["18.0", "8", "?", "a b"]),
        # words with blanks between tabs
        ("who\tx\nAda L\t1\nBob M\t2\n", ["who", "x"], ["Ada L", "1"]),
        ('a, b\n1, "x, z"\n2, "u, v"\n', ["a", "b"], ["1", "x, z"]),
        ("Title of it\n\nFrom,2020\na,b,y\n1,x,p\n2,z,q\n3,z,q\n4,z,q\n", ["a", "b", "y"], ["1", "x", "p"]),
        ("sep=;\na;b\n1;x\n2;z\n", ["a", "b"], ["1", "x"]),
        ("# by hand\na,b,y\n1,x,p\n2,z,q\n3,u,q\n", ["a", "b", "y"], ["1", "x", "p"]),
        ('# "a","b"\n1,x\n2,z\n', ["a", "b"], ["1", "x"]),
        # a separator at the end of rows; a name of its own for each row, as R has it
        ("a,b\n1,x,\n2,z,\n", ["a", "b"], ["1", "x"]),
        ("a,b,\n1,x\n2,z\n", ["a", "b"], ["1", "x"]),
        ("a,b\nr1,1,x\nr2,2,z\n", ["", "a", "b"], ["r1", "1", "x"]),
        ("a,b\n7,1,x\n3,2,z\n", ["a", "b"], ["1", "x"]),
        ("Unnamed: 0,a,b\n7,1,x\n3,2,z\n", ["a", "b"], ["1", "x"]),
        # names in the middle again, as of joined files
        ("a,b\n1,x\na,b\n2,z\n", ["a", "b"], ["1", "x"]),
        # words alone, without names
        ("u,v,p\nu,w,p\nm,v,q\nm,w,q\n", ["0", "1", "2"], ["u", "v", "p"]),
        ("kind,b\nx,u\nz,u\n", ["kind", "b"], ["x", "u"]),
    ],
)
def test_rows_and_names_are_found_in_texts_of_many_forms(
    tmp_path: Path, text: str, names: list[str], row: list[str]
) -> None:
    (tmp_path / "a.txt").write_text(text)
    found = table_of(str(tmp_path / "a.txt"))
    assert found.names == names
    assert [column[0] for column in found.raw] == row
    assert {len(column) for column in (*found.columns, *found.raw)} == {len(found.lines)}


def test_a_wide_first_row_does_not_hide_the_separator() -> None:
    names = ";".join(f"a column, number {i}" for i in range(9_500))
    assert delimiter_of(f"{names}\n{';'.join(['1,5'] * 9_500)}\n" * 2) == ";"


def test_a_known_name_says_that_the_first_row_holds_names() -> None:
    columns = [["group", "h", "l"], ["2010", "1", "2"]]
    assert not headed(columns, ()) and headed(columns, ["group"])


def test_rows_for_a_table_without_names_have_none_either() -> None:
    names = ["0", "1", "2"]
    assert not headed([["5more", "2"], ["low", "low"], ["2", "3"]], names)
    assert headed([["2", "a"], ["0", "b"]], names)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_file_is_read_as_what_it_holds(tmp_path: Path, pack: object) -> None:
    (tmp_path / "a.csv.packed").write_bytes(pack(PLAIN.encode()))  # type: ignore[operator]
    assert sheet(str(tmp_path / "a.csv.packed"), "y", ()).columns == [["1", "2"], ["x", "z"]]


def test_a_zip_of_one_file_is_read_and_others_are_named(tmp_path: Path) -> None:
    def zipped(*names: str) -> str:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
            for name in names:
                packed.writestr(name, PLAIN)
        return str(tmp_path / "a.zip")

    assert table_of(zipped("in/a.csv", "__MACOSX/in/a.csv")).names == ["a", "b", "y"]
    with pytest.raises(UserError, match=r"a zip of 2 files, a\.csv, b\.csv"):
        table_of(zipped("a.csv", "b.csv"))
    with pytest.raises(UserError, match="a spreadsheet's own format; save it as CSV"):
        table_of(zipped("[Content_Types].xml", "xl/sheet1.xml"))


def test_an_arff_file_has_its_attributes_and_rows(tmp_path: Path) -> None:
    text = (
        "% of OpenML\n@RELATION r\n@ATTRIBUTE 'its status' {'<0',none}\n@attribute x numeric\n"
        "@attribute \"a \\'b\\'\" string\n@DATA\n% rows\n'<0', 1.5,'it\\'s, so'\n?,2,\"u\"\n"
    )
    names, rows, lines = arff(tmp_path, text)
    assert names == ["its status", "x", "a 'b'"]
    assert rows == [["<0", "1.5", "it's, so"], ["?", "2", "u"]] and lines == [8, 9]
    (tmp_path / "a.arff").write_text(text)
    assert sheet(str(tmp_path / "a.arff"), "x", ()).columns == [["<0", "?"], ["it's, so", "u"]]
    with pytest.raises(UserError, match="a sparse ARFF file"):
        arff(tmp_path, "@relation r\n@attribute x numeric\n@data\n{0 1}\n")
    with pytest.raises(UserError, match="row 4 has 2 cells, and there are 1 attributes"):
        arff(tmp_path, "@relation r\n@attribute x numeric\n@data\n1,2\n")


def test_how_many_rows_do_not_fit_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n" + "1,2\n" * 9 + "1\n1,2,3\n")
    with pytest.raises(UserError, match="row 11 has 1 cells, the first 2; 1 others do not fit either"):
        table_of(str(tmp_path / "a.csv"))


def test_numbers_behind_equal_names_are_free() -> None:
    assert numbered(["a", "a", "a (2)", "a"]) == ["a", "a (3)", "a (2)", "a (4)"]


def test_numbers_that_differ_in_most_of_few_rows_are_for_regression() -> None:
    assert is_regression(["191", "162", "182", "211", "167", "169", "154"])
    assert not is_regression(["1", "2", "3", "5", "6", "7"] * 3)
