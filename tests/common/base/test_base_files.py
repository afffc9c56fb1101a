from pathlib import Path

import pytest

from common.base.files import whole


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
