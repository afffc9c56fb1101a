"""Numbers as people write them, read back as those that they are."""

from pathlib import Path

import pytest

from common.data.tables.written import PLAIN, Written, missing, plain_numbers

FILE = Path("a.csv")


@pytest.mark.parametrize(
    ("column", "delimiter", "expected", "written"),
    [
        (["x", "1.5", "-", "3"], ",", ["1.5", "", "3"], PLAIN),
        (["x", "1,5", "*", "n/a"], ";", ["1.5", "", "n/a"], Written(commas="decimal")),
        (["x", "$1,200", "-", "$3"], ",", ["1200", "", "3"], Written("$", "thousands")),
        (["x", "..", "12 kg", "3 kg"], ",", ["", "12", "3"], Written("kg")),
        (
            ["x", "1 234,5", "7", "12 345 678"],
            ";",
            ["1234.5", "7", "12345678"],
            Written(None, "decimal", True),
        ),
        (["x", "1'234.5", "#DIV/0!"], ",", ["1234.5", ""], Written(None, None, True)),
        (["x", "1\u00a0234 €", "5 €"], ";", ["1234", "5"], Written("€", None, True)),
        (["x", "inf", "-", "2"], ",", ["inf", "", "2"], PLAIN),
        # of words a mark is one
        (["x", "+", "-", "+"], ",", ["+", "-", "+"], PLAIN),
        (["x", "5more", "-", "4"], ",", ["5more", "-", "4"], PLAIN),
        (["x", "3/28/2014"], ",", ["3/28/2014"], PLAIN),
        (["x", "12:30"], ",", ["12:30"], PLAIN),
        (["x", "-", "-", "-"], ",", ["-", "-", "-"], PLAIN),
    ],
)
def test_numbers_of_each_form_become_plain_and_marks_among_them_are_missing(
    column: list[str], delimiter: str, expected: list[str], written: Written
) -> None:
    columns, forms = plain_numbers(FILE, [column], delimiter)
    assert columns == [["x", *expected]]
    assert forms == [written]
    cells = [cell for cell, found in zip(column[1:], expected, strict=True) if not missing(found)]
    assert [written.plain(cell) for cell in cells] == [found for found in expected if not missing(found)]


def test_a_first_cell_that_is_no_name_may_be_a_mark_and_a_name_is_none() -> None:
    columns, _ = plain_numbers(FILE, [["-", "1", "2"], ["unknown", "1", "2"]], ",")
    assert [column[0] for column in columns] == ["", "unknown"]


def test_what_is_no_number_is_left_as_it_stands() -> None:
    assert [Written("kg", "decimal").plain(cell) for cell in ("many kg", "-", "1,5 kg")] == [
        "many kg",
        "-",
        "1.5",
    ]
