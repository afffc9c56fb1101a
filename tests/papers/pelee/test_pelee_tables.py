"""The tables of Pelee: all rows of the paper, each of which can be asked for or is only cited."""

from common.tables.tables import entries

OURS = {"ours", "cifar_small", "digits_steps", "digit_scenes", "bccd"}
ROWS = {
    "table2": 7,
    "table3": 7,
    "table4": 4,
    "fig5": 3,
    "table5": 2,
    "table6": 3,
    "table7": 4,
    "table8": 9,
    "table9": 3,
    "table10": 7,
}


def test_all_49_rows_of_the_paper_are_there() -> None:
    rows = [entry.table for entry in entries("pelee") if entry.table not in OURS]
    assert {table: rows.count(table) for table in rows} == ROWS and len(rows) == 49


def test_what_is_cited_is_not_ours_to_run() -> None:
    cited = {f"{entry.table}.{entry.row}" for entry in entries("pelee") if entry.cited}
    assert len(cited) == 22
    assert not {row for row in cited if row.endswith("pelee") or "densenet" in row}
