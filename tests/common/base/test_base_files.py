from pathlib import Path

import pytest

from common.base.files import names_beside, whole


def test_a_file_is_written_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    with whole(path) as partial:
        partial.write_text("1")
        assert not path.exists()
    assert path.read_text() == "1"
    with whole(path) as partial, partial.open("w") as file:
        file.write("2")
    assert path.read_text() == "2"
    assert [one.name for one in path.parent.iterdir()] == ["a.json"]


def test_where_writing_fails_the_old_file_stays_and_nothing_is_left_of_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("1")
    with pytest.raises(ZeroDivisionError), whole(path) as partial:
        partial.write_text("2")
        _ = 1 / 0
    assert path.read_text() == "1"
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_of_a_path_that_leads_nowhere_what_lies_there_is_named_the_likest_first(tmp_path: Path) -> None:
    for name in ("archive", "pictures", "zoo", ".hidden"):
        (tmp_path / name).mkdir()
    for name in ("a.csv", "sales.csv", "notes.txt"):
        (tmp_path / name).write_text("")
    assert names_beside(tmp_path / "pictuers") == f"pictures, archive, zoo in {tmp_path}"
    tables = names_beside(tmp_path / "sale.csv", (".csv",))
    assert tables == f"sales.csv, a.csv, archive, pictures, zoo in {tmp_path}"
    assert "notes.txt" in names_beside(tmp_path / "x", ())
    assert names_beside(tmp_path / "gone" / "below" / "x") == f"archive, pictures, zoo in {tmp_path}"
    assert names_beside(tmp_path / "zoo" / "x") == f"nothing of the kind in {tmp_path / 'zoo'}"
    for number in range(20):
        (tmp_path / "zoo" / f"{number:02}").mkdir()
    assert names_beside(tmp_path / "zoo" / "x").endswith(f"11 and 8 more in {tmp_path / 'zoo'}")
